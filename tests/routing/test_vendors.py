"""Vendors that speak OpenAI's protocol in their own way, each as a row: one case per deviation."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from admin_api.vendors import vendors
from routing.errors import (
    BadRequest,
    ContentPolicy,
    NotFound,
    Overloaded,
    ProviderError,
    QuotaExhausted,
    RateLimited,
    ServerError,
    TimedOut,
    TooLarge,
)
from routing.pricing import cost
from routing.providers import classify, codec, probe
from routing.providers.wire import HttpRequest, HttpResponse
from routing.values import Capability, FinishReason, Provider, Reply
from tests.routing import factories
from tests.routing.factories import KEY

_AZURE = factories.provider(
    "https://res.openai.azure.com/openai/deployments/d1",
    slug="azure",
    settings={
        "auth_header": "api-key",
        "extra_query": {"api-version": "2026-10-01"},
        "models_path": "../../models",
    },
)
_VLLM = factories.provider("http://gpu.internal:8000/v1", slug="vllm")


def _row(slug: str) -> Provider:
    """The provider as installing it from the catalog would make it."""
    vendor = vendors()[slug]
    return factories.provider(vendor.base_url, slug=slug, settings=vendor.settings)


def _encoded(owner: Provider, capability: Capability = Capability.TEXT, **fields: Any) -> HttpRequest:
    to = factories.route(owner)
    return codec(to, capability).encode(factories.call(capability, to=to, **fields), fields.get("key", KEY))


def _payload(request: HttpRequest) -> dict[str, Any]:
    payload = json.loads(request.body)
    assert isinstance(payload, dict)
    return payload


def _decoded(
    owner: Provider,
    body: Any,
    capability: Capability = Capability.TEXT,
    *,
    content_type: str = "application/json",
    **fields: Any,
) -> Reply:
    to = factories.route(owner)
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = HttpResponse(200, {"content-type": content_type}, raw)
    return codec(to, capability).decode(response, factories.call(capability, to=to, **fields))


def _chat(content: Any = "Hi.", finish: str | None = "stop", **extra: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": content, "reasoning_content": "hm", "reasoning": "hm"}
    return {"model": "m", "choices": [{"message": message, "finish_reason": finish}], **extra}


_SCHEMA = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}


# --- what is sent -------------------------------------------------------------------------------------


@pytest.mark.parametrize("slug", ["deepseek", "groq", "mistral", "together", "openrouter", "ollama"])
def test_the_token_limit_has_its_old_name_everywhere_else(slug: str) -> None:
    payload = _payload(_encoded(_row(slug), parameters={"max_tokens": 9}, end_user="abc"))
    assert payload["max_tokens"] == 9
    assert not {"max_completion_tokens", "user", "safety_identifier"} & set(payload)


def test_deepseek_is_asked_for_json_without_a_schema() -> None:
    payload = _payload(_encoded(_row("deepseek"), parameters={"response_format": _SCHEMA}))
    assert payload["response_format"] == {"type": "json_object"}
    plain = {"response_format": {"type": "text"}}
    assert _payload(_encoded(_row("deepseek"), parameters=plain))["response_format"] == {"type": "text"}
    never = factories.provider(settings={"structured_output": "none"})
    assert "response_format" not in _payload(_encoded(never, parameters={"response_format": _SCHEMA}))


def test_mistral_has_names_of_its_own() -> None:
    owner = _row("mistral")
    assert _payload(_encoded(owner, parameters={"seed": 7}))["random_seed"] == 7
    embedding = _payload(_encoded(owner, Capability.EMBEDDING, parameters={"dimensions": 256}))
    assert (embedding["output_dimension"], "dimensions" in embedding) == (256, False)
    speech = _payload(_encoded(owner, Capability.SPEECH, voice="v1"))
    assert (speech["voice_id"], "voice" in speech) == ("v1", False)


def test_azure_puts_deployment_version_and_key_elsewhere() -> None:
    request = _encoded(_AZURE)
    assert request.url == (
        "https://res.openai.azure.com/openai/deployments/d1/chat/completions?api-version=2026-10-01"
    )
    assert (request.headers["api-key"], "authorization" in request.headers) == (KEY, False)


def test_openrouter_is_tested_where_a_key_counts() -> None:
    assert probe(_row("openrouter"), KEY).url == "https://openrouter.ai/api/v1/key"
    assert probe(_row("groq"), KEY).url == "https://api.groq.com/openai/v1/models"


def test_openrouter_gets_its_headers_where_they_are_configured() -> None:
    titled = factories.provider(settings={"extra_headers": {"X-Title": "Shop"}})
    assert _encoded(titled).headers["x-title"] == "Shop"
    assert "x-title" not in _encoded(_row("openrouter")).headers


def test_ollama_and_vllm_need_no_key() -> None:
    for owner in (_row("ollama"), _VLLM):
        to = factories.route(owner)
        assert "authorization" not in codec(to, Capability.TEXT).encode(factories.call(to=to), None).headers


# --- what comes back ----------------------------------------------------------------------------------


def test_deepseek_counts_its_cache_beside_and_keeps_the_line_alive() -> None:
    usage = {"prompt_tokens": 100, "completion_tokens": 5, "prompt_cache_hit_tokens": 60}
    body = b"\n\n: keep-alive\n\n" + json.dumps(_chat(usage=usage)).encode()
    reply = _decoded(_row("deepseek"), body)
    assert (reply.text, reply.usage.input_tokens, reply.usage.cached_tokens) == ("Hi.", 100, 60)


def test_groq_may_put_usage_aside() -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "queue_time": 0.1, "total_time": 0.2}
    reply = _decoded(_row("groq"), _chat(x_groq={"id": "req", "usage": usage}))
    assert (reply.usage.input_tokens, reply.usage.output_tokens) == (3, 4)


def test_mistral_answers_in_chunks_and_speaks_json() -> None:
    chunks = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
        {"type": "text", "text": "Hi"},
    ]
    assert _decoded(_row("mistral"), _chat(chunks)).text == "Hi"
    assert _decoded(_row("mistral"), _chat(finish="model_length")).finish_reason is FinishReason.LENGTH
    spoken = _decoded(_row("mistral"), {"audio_data": "SUQzAA=="}, Capability.SPEECH)
    assert (spoken.artifact, spoken.media_type) == (b"ID3\x00", "audio/mpeg")


def test_together_may_say_nothing_of_usage_and_finish() -> None:
    reply = _decoded(_row("together"), _chat(finish=None, usage=None))
    assert (reply.finish_reason, reply.usage.estimated) == (FinishReason.STOP, True)


def test_openrouter_says_what_it_took() -> None:
    usage = {"prompt_tokens": 1000, "completion_tokens": 1000, "cost": 0.00014}
    reply = _decoded(_row("openrouter"), _chat(usage=usage))
    assert cost(reply.usage, factories.price()) == cost(reply.usage, None) == Decimal("0.00014")


@pytest.mark.parametrize("said", [None, True, -1, "0.1", {"total": 1}, 1e300])
def test_what_is_no_cost_is_none(said: Any) -> None:
    usage = {"prompt_tokens": 1000, "completion_tokens": 0, "cost": said}
    reply = _decoded(_row("openrouter"), _chat(usage=usage))
    assert cost(reply.usage, factories.price()) == Decimal("0.001")


def test_vllm_may_end_for_reasons_of_its_own() -> None:
    assert _decoded(_VLLM, _chat(finish="abort")).finish_reason is FinishReason.OTHER


def test_azure_adds_its_filters_verdicts() -> None:
    body = _chat(prompt_filter_results=[{"prompt_index": 0}])
    body["choices"][0]["content_filter_results"] = {"hate": {"filtered": False}}
    assert _decoded(_AZURE, body).text == "Hi."


@pytest.mark.parametrize(
    ("slug", "body", "expected"),
    [
        ("deepseek", _chat("", "insufficient_system_resource"), Overloaded),
        ("mistral", _chat("", "error"), ServerError),
        ("openrouter", {"error": {"code": 502, "message": "upstream"}}, ServerError),
        ("openrouter", {"error": {"code": 429, "message": "slow"}}, RateLimited),
        ("openrouter", {"choices": [{"error": {"code": 503, "message": "no"}}]}, Overloaded),
        ("together", {"choices": []}, ServerError),
    ],
)
def test_failures_inside_a_200(slug: str, body: Any, expected: type[ProviderError]) -> None:
    with pytest.raises(ProviderError) as caught:
        _decoded(_row(slug), body)
    assert type(caught.value) is expected


_FLAGGED = {"reasons": ["violence"], "flagged_input": "x"}


@pytest.mark.parametrize(
    ("slug", "status", "body", "expected"),
    [
        ("deepseek", 402, {"error": {"message": "Insufficient Balance"}}, QuotaExhausted),
        ("deepseek", 422, {"error": {"message": "bad"}}, BadRequest),
        ("groq", 498, {"error": {"message": "capacity"}}, Overloaded),
        ("groq", 413, {"error": {"message": "too large"}}, TooLarge),
        ("mistral", 422, {"detail": [{"loc": ["body", "x"], "msg": "bad", "type": "y"}]}, BadRequest),
        ("mistral", 400, {"object": "error", "message": "bad", "code": 3051}, BadRequest),
        ("openrouter", 402, {"error": {"code": 402, "message": "credits"}}, QuotaExhausted),
        ("openrouter", 403, {"error": {"code": 403, "message": "x", "metadata": _FLAGGED}}, ContentPolicy),
        ("openrouter", 408, {"error": {"code": 408, "message": "slow"}}, TimedOut),
        ("openrouter", 503, {"error": {"code": 503, "message": "no route"}}, Overloaded),
        ("ollama", 404, {"error": "model 'x' not found, try pulling it first"}, NotFound),
        (
            "vllm",
            400,
            {"object": "error", "message": "maximum context length", "code": 400},
            TooLarge,
        ),
        (
            "azure",
            400,
            {"error": {"code": "content_filter", "message": "x"}},
            ContentPolicy,
        ),
        ("azure", 404, {"error": {"code": "DeploymentNotFound", "message": "x"}}, NotFound),
    ],
)
def test_errors(slug: str, status: int, body: Any, expected: type[ProviderError]) -> None:
    response = HttpResponse(status, {"apim-request-id": "a1"}, json.dumps(body).encode())
    error = classify(factories.provider(slug=slug), response)
    assert (type(error), error.request_id) == (expected, "a1")


def test_azure_and_groq_say_when_to_come_back() -> None:
    limited = HttpResponse(429, {"retry-after-ms": "1500"}, b'{"error": {"message": "slow"}}')
    assert classify(_AZURE, limited).retry_after == 1.5
    limited = HttpResponse(429, {"retry-after": "2.5"}, b'{"error": {"message": "slow"}}')
    assert classify(_row("groq"), limited).retry_after == 2.5
