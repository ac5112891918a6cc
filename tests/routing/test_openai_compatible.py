from __future__ import annotations

import base64
import json
import struct
from dataclasses import replace
from typing import Any

import pytest

from routing.errors import (
    AuthFailed,
    BadRequest,
    ConfigurationError,
    ContentPolicy,
    EmptyReply,
    NotFound,
    Overloaded,
    ProviderError,
    QuotaExhausted,
    RateLimited,
    ServerError,
    TimedOut,
    TooLarge,
    UnsupportedParameter,
)
from routing.providers import ALIASES, CODECS, classify, probe
from routing.providers.wire import HttpRequest, HttpResponse, scrubbed
from routing.values import Capability, FinishReason, Provider, Reply, Turn, Usage
from tests.routing import factories
from tests.routing.factories import KEY

_CODECS = CODECS["openai_compatible"]


def _encoded(
    capability: Capability = Capability.TEXT,
    *,
    owner: Provider | None = None,
    key: str | None = KEY,
    **fields: Any,
) -> HttpRequest:
    to = factories.route(owner)
    return _CODECS[capability].encode(factories.call(capability, to=to, **fields), key)


def _payload(request: HttpRequest) -> dict[str, Any]:
    payload = json.loads(request.body)
    assert isinstance(payload, dict)
    return payload


def _answer(body: Any, status: int = 200, **headers: str) -> HttpResponse:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return HttpResponse(status, {"content-type": "application/json", **names}, raw)


def _decoded(response: HttpResponse, capability: Capability = Capability.TEXT, **fields: Any) -> Reply:
    return _CODECS[capability].decode(response, factories.call(capability, **fields))


def _chat(content: Any = "Hi.", finish: str | None = "stop", **extra: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": content}
    return {
        "id": "c-1",
        "model": "acme-1",
        "choices": [{"message": message, "finish_reason": finish}],
        **extra,
    }


# --- encoding -----------------------------------------------------------------------------------------


def test_text_request() -> None:
    request = _encoded(
        history=(Turn("user", "Hi"), Turn("assistant", "Hello")),
        parameters={"temperature": 0.2, "max_tokens": 50, "response_format": {"type": "json_object"}},
        end_user="abc",
    )
    assert (request.method, request.url) == ("POST", "https://api.example.com/v1/chat/completions")
    assert dict(request.headers) == {"content-type": "application/json", "authorization": f"Bearer {KEY}"}
    assert _payload(request) == {
        "model": "acme-large",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello"},
            {"role": "user", "content": "Hello, stars."},
        ],
        "temperature": 0.2,
        "max_tokens": 50,
        "response_format": {"type": "json_object"},
    }
    assert KEY not in repr(request)
    assert "stars" not in repr(request)


def test_nothing_is_sent_that_nobody_set() -> None:
    assert set(_payload(_encoded(system=None))) == {"model", "messages"}


@pytest.mark.parametrize(
    ("base_url", "settings", "expected"),
    [
        ("https://api.openai.com/v1", {}, "max_completion_tokens"),
        ("https://eu.api.openai.com/v1", {}, "max_completion_tokens"),
        ("https://api.openai.com.evil.example/v1", {}, "max_tokens"),
        ("https://api.groq.com/openai/v1", {}, "max_tokens"),
        (
            "https://api.groq.com/openai/v1",
            {"max_tokens_field": "max_completion_tokens"},
            "max_completion_tokens",
        ),
        ("https://api.openai.com/v1", {"max_tokens_field": "max_tokens"}, "max_tokens"),
    ],
)
def test_token_limit_goes_by_the_providers_name(
    base_url: str, settings: dict[str, Any], expected: str
) -> None:
    owner = factories.provider(base_url, settings=settings)
    payload = _payload(_encoded(owner=owner, parameters={"max_tokens": 9}))
    assert {name: value for name, value in payload.items() if name.startswith("max")} == {expected: 9}


def test_end_user_is_sent_where_it_is_known_to_be_accepted() -> None:
    openai = factories.provider("https://api.openai.com/v1", organization="org-1")
    request = _encoded(owner=openai, end_user="abc")
    assert _payload(request)["safety_identifier"] == "abc"
    assert request.headers["openai-organization"] == "org-1"
    named = factories.provider(settings={"end_user_field": "user"})
    assert _payload(_encoded(owner=named, end_user="abc"))["user"] == "abc"


@pytest.mark.parametrize(
    ("auth_header", "expected"),
    [
        ("Authorization: Bearer", {"authorization": f"Bearer {KEY}"}),
        ("api-key", {"api-key": KEY}),
        ("none", {}),
        ("Authorization: Token", {"authorization": f"Token {KEY}"}),
        ("X-My-Key", {"x-my-key": KEY}),
    ],
)
def test_authentication_styles(auth_header: str, expected: dict[str, str]) -> None:
    owner = factories.provider(settings={"auth_header": auth_header})
    headers = dict(_encoded(owner=owner).headers)
    assert headers == {"content-type": "application/json", **expected}
    assert "authorization" not in _encoded(key=None).headers


def test_azure_style_provider() -> None:
    owner = factories.provider(
        "https://res.openai.azure.com/openai/deployments/d1/",
        settings={
            "auth_header": "api-key",
            "extra_query": {"api-version": "2026-01-01"},
            "extra_headers": {"X-Title": "Orrery"},
            "system_role": "developer",
        },
    )
    request = _encoded(owner=owner)
    assert request.url == (
        "https://res.openai.azure.com/openai/deployments/d1/chat/completions?api-version=2026-01-01"
    )
    assert request.headers["x-title"] == "Orrery"
    assert _payload(request)["messages"][0]["role"] == "developer"


@pytest.mark.parametrize(
    ("fields", "parameters", "match"),
    [
        ({"base_url": "ftp://x/v1"}, {}, "base_url"),
        ({"base_url": "https://"}, {}, "base_url"),
        ({"base_url": "https://[::1/v1"}, {}, "base_url"),
        ({"base_url": "https://user:secret@x/v1"}, {}, "api_key"),
        ({"settings": {"extra_headers": ["a"]}}, {}, "extra_headers"),
        ({"settings": {"extra_headers": {"A": "x\r\nB: y"}}}, {}, "extra_headers"),
        ({"settings": {"auth_header": 7}}, {}, "auth_header"),
        ({"settings": {"auth_header": "a b"}}, {}, "auth_header"),
        ({}, {"temprature": 1}, "'temprature' is not known.*temperature"),
        ({}, {"temperature": float("nan")}, "parameters"),
        ({}, {"stop": {1, 2}}, "parameters"),
    ],
)
def test_rows_that_no_request_can_be_made_of(
    fields: dict[str, Any], parameters: dict[str, Any], match: str
) -> None:
    with pytest.raises(ConfigurationError, match=match):
        _encoded(owner=factories.provider(**fields), parameters=parameters)


def test_a_key_that_no_header_can_carry_is_not_shown() -> None:
    with pytest.raises(ConfigurationError, match="Store it anew") as caught:
        _encoded(key=f"{KEY}\nX-Evil: 1")
    assert KEY not in str(caught.value)
    assert _encoded(key=f" {KEY}\n").headers["authorization"] == f"Bearer {KEY}"  # pasted with a line end


def test_speech_moderation_and_embedding_requests() -> None:
    speech = _encoded(Capability.SPEECH, voice="nova", parameters={"speed": 1.5})
    assert speech.url.endswith("/v1/audio/speech")
    assert _payload(speech) == {
        "model": "acme-large",
        "input": "Hello, stars.",
        "voice": "nova",
        "speed": 1.5,
    }
    mistral = _encoded(Capability.SPEECH, parameters={"voice_id": "v1", "response_format": "wav"})
    assert _payload(mistral)["voice_id"] == "v1"
    assert "voice" not in _payload(mistral)
    moderation = _encoded(Capability.MODERATION)
    assert moderation.url.endswith("/v1/moderations")
    assert _payload(moderation) == {"model": "acme-large", "input": "Hello, stars."}
    many = _encoded(Capability.EMBEDDING, texts=("a", "b"), parameters={"dimensions": 8})
    assert many.url.endswith("/v1/embeddings")
    assert _payload(many) == {"model": "acme-large", "input": ["a", "b"], "dimensions": 8}
    assert _payload(_encoded(Capability.EMBEDDING))["input"] == "Hello, stars."


def test_probe_asks_for_the_models() -> None:
    owner = factories.provider(settings={"models_path": "/key"})
    assert probe(factories.provider(), KEY).url == "https://api.example.com/v1/models"
    request = probe(owner, KEY)
    assert (request.method, request.url, request.body) == ("GET", "https://api.example.com/v1/key", b"")
    assert request.headers["authorization"] == f"Bearer {KEY}"


# --- decoding -----------------------------------------------------------------------------------------


def test_text_answer_with_every_count() -> None:
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 50,
        "prompt_tokens_details": {"cached_tokens": 40, "cache_write_tokens": 5},
        "completion_tokens_details": {"reasoning_tokens": 30},
    }
    reply = _decoded(_answer(_chat(usage=usage), x_request_id="req-1"))
    assert (reply.text, reply.finish_reason, reply.served_model) == ("Hi.", FinishReason.STOP, "acme-1")
    assert (reply.response_id, reply.request_id, reply.data) == ("c-1", "req-1", None)
    assert reply.usage == Usage(100, 50, 40, 5, 30, raw=usage)  # totals include both here


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ({}, None),
        ({"usage": None}, None),
        ({"usage": {"prompt_tokens": None, "completion_tokens": "9"}}, None),
        ({"usage": {"prompt_tokens": -1, "completion_tokens": True}}, None),
        ({"usage": {"prompt_tokens": 7.0, "completion_tokens": 2}}, (7, 2, None)),
        ({"usage": {"prompt_tokens": 7, "completion_tokens": 2, "prompt_cache_hit_tokens": 3}}, (7, 2, 3)),
        ({"x_groq": {"usage": {"prompt_tokens": 7, "completion_tokens": 2}}}, (7, 2, None)),
    ],
)
def test_usage_is_read_or_estimated_and_never_zero(
    extra: dict[str, Any], expected: tuple[int, int, int | None] | None
) -> None:
    usage = _decoded(_answer(_chat(**extra))).usage
    assert usage.estimated == (expected is None)
    if expected is None:
        assert (usage.input_tokens or 0) > 0
        assert (usage.output_tokens or 0) > 0
    else:
        assert (usage.input_tokens, usage.output_tokens, usage.cached_tokens) == expected


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (
            _chat(
                [
                    {"type": "thinking", "thinking": []},
                    {"type": "text", "text": "A"},
                    {"type": "text", "text": "B"},
                ]
            ),
            "AB",
        ),
        (_chat(["A", {"text": "B"}, 7]), "AB"),
        (_chat("A", None), "A"),
        (_chat("A", "brand_new_reason"), "A"),
        (b"\n\n  \n" + json.dumps(_chat("A")).encode(), "A"),
        (b": keep-alive\n\n: OPENROUTER PROCESSING\n\n" + json.dumps(_chat("A")).encode(), "A"),
        (b"\xef\xbb\xbf" + json.dumps(_chat("A", created=1.5, object="?")).encode(), "A"),
    ],
)
def test_vendor_deviations_in_a_good_answer(body: Any, text: str) -> None:
    assert _decoded(_answer(body)).text == text


@pytest.mark.parametrize(
    ("finish", "expected"),
    [
        ("length", FinishReason.LENGTH),
        ("tool_calls", FinishReason.TOOL),
        (None, FinishReason.STOP),
        ("model_length", FinishReason.LENGTH),
        ("abort", FinishReason.OTHER),
    ],
)
def test_finish_reasons_are_normalised_and_kept(finish: str | None, expected: FinishReason) -> None:
    reply = _decoded(_answer(_chat("A", finish)))
    assert (reply.finish_reason, reply.finish_reason_raw) == (expected, finish)


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ('{"a": 1}', {"a": 1}),
        ('```json\n{"a": 1}\n```', {"a": 1}),
        ("[1]", None),
        ('{"a": NaN}', None),
        ('{"a": 1e999}', None),
        ("{not json}", None),
        ("7", None),
    ],
)
def test_a_json_object_in_the_text_is_also_data(text: str, data: Any) -> None:
    reply = _decoded(_answer(_chat(text)))
    assert (reply.text, reply.data) == (text, data)


_REFUSED = _chat(None)
_REFUSED["choices"][0]["message"]["refusal"] = "I won't."


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (_chat("", "length"), TooLarge),
        (_chat("", "stop"), EmptyReply),
        (_chat(None, None), EmptyReply),
        (_chat("half", "content_filter"), ContentPolicy),
        (_REFUSED, ContentPolicy),
        (_chat("x", "insufficient_system_resource"), Overloaded),
        (_chat("x", "error"), ServerError),
        ({"choices": []}, ServerError),
        ({"choices": None}, ServerError),
        ({}, ServerError),
        (b"", ServerError),
        (b"<html><title>Gateway</title></html>", ServerError),
        (b"[1]", ServerError),
        (b'{"choices"', ServerError),
        (b"[" * 100_000, ServerError),
        ({"error": {"code": 502, "message": "upstream"}}, ServerError),
        ({"error": {"code": 429, "message": "slow"}}, RateLimited),
        ({"error": {"code": 402, "message": "credits"}}, QuotaExhausted),
        ({"error": {"code": "insufficient_quota", "message": "pay"}}, QuotaExhausted),
        ({"error": {"code": "rate_limit_exceeded", "message": "slow"}}, RateLimited),
        ({"error": {"type": "overloaded_error", "message": "busy"}}, Overloaded),
        ({"error": {"code": "context_length_exceeded", "message": "long"}}, TooLarge),
        ({"error": "something broke"}, ServerError),
        ({"choices": [{"error": {"code": 503, "message": "no route"}}]}, Overloaded),
    ],
)
def test_a_200_may_hold_a_failure(body: Any, expected: type[ProviderError]) -> None:
    with pytest.raises(ProviderError) as caught:
        _decoded(_answer(body))
    assert type(caught.value) is expected
    assert caught.value.message


def test_tokens_spent_on_reasoning_alone_are_still_counted() -> None:
    usage = {"prompt_tokens": 7, "completion_tokens": 500}
    with pytest.raises(TooLarge, match="max_tokens") as caught:
        _decoded(_answer(_chat("", "length", usage=usage)))
    assert caught.value.usage == Usage(7, 500, raw=usage)


@pytest.mark.parametrize(
    ("body", "content_type", "media_type"),
    [
        (b"RIFF....WAVE", "audio/mpeg", "audio/wav"),
        (b"ID3abc", "application/octet-stream", "audio/mpeg"),
        (b"\x00\x01", "audio/pcm; rate=24000", "audio/pcm"),
        (b"\x00\x01", "", "application/octet-stream"),
        (
            json.dumps({"audio_data": base64.b64encode(b"OggSxyz").decode()}).encode(),
            "application/json",
            "audio/ogg",
        ),
    ],
)
def test_speech_answers(body: bytes, content_type: str, media_type: str) -> None:
    reply = _decoded(_answer(body, content_type=content_type), Capability.SPEECH)
    assert reply.media_type == media_type
    assert reply.artifact == (b"OggSxyz" if media_type == "audio/ogg" else body)
    assert reply.usage == Usage(characters=len("Hello, stars."))


@pytest.mark.parametrize(
    ("body", "content_type", "expected"),
    [
        (b"", "audio/mpeg", ServerError),
        (b"<html>", "text/html", ServerError),
        (b'{"audio_data": "###"}', "application/json", ServerError),
        (b'{"error": {"code": 429, "message": "slow"}}', "application/json", RateLimited),
    ],
)
def test_speech_answers_without_audio(body: bytes, content_type: str, expected: type[ProviderError]) -> None:
    with pytest.raises(expected):
        _decoded(_answer(body, content_type=content_type), Capability.SPEECH)


def test_moderation_answers() -> None:
    result = {
        "flagged": True,
        "categories": {"hate/threatening": True},
        "category_scores": {"hate/threatening": 0.9},
    }
    reply = _decoded(_answer({"id": "m", "model": "mod-1", "results": [result]}), Capability.MODERATION)
    assert reply.flagged is True
    assert reply.data == {
        "categories": {"hate/threatening": True},
        "category_scores": {"hate/threatening": 0.9},
    }
    assert reply.usage.estimated
    clean = {"categories": {"hate": False}}
    assert _decoded(_answer({"results": [clean]}), Capability.MODERATION).flagged is False
    with pytest.raises(ServerError):
        _decoded(_answer({"results": []}), Capability.MODERATION)


def test_embedding_answers_in_order_in_both_encodings() -> None:
    packed = base64.b64encode(struct.pack("<2f", 0.5, -2)).decode()
    rows = [{"index": 1, "embedding": packed}, {"index": 0, "embedding": [1, 2.5]}]
    body = {"model": "e-1", "data": rows, "usage": {"prompt_tokens": 4, "total_tokens": 4}}
    reply = _decoded(_answer(body), Capability.EMBEDDING, texts=("a", "b"))
    assert reply.embeddings == ((1.0, 2.5), (0.5, -2.0))
    assert (reply.usage.input_tokens, reply.usage.output_tokens, reply.usage.estimated) == (4, None, False)


@pytest.mark.parametrize(
    "rows", [[], [{"embedding": []}], [{"embedding": ["x"]}], [{"embedding": "##"}], [{"embedding": [1]}] * 2]
)
def test_embedding_answers_that_are_none(rows: list[Any]) -> None:
    with pytest.raises(ServerError):
        _decoded(_answer({"data": rows}), Capability.EMBEDDING)


# --- classification -----------------------------------------------------------------------------------


def _error(message: str = "no", **members: Any) -> dict[str, Any]:
    return {"error": {"message": message, "type": None, "param": None, "code": None, **members}}


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        *((status, _error(), BadRequest) for status in (400, 405, 409, 411, 415, 418, 422, 431)),
        (413, _error(), TooLarge),
        (401, _error(code="invalid_api_key"), AuthFailed),
        (403, _error(code="unsupported_country_region_territory"), AuthFailed),
        (
            403,
            {"error": {"code": 403, "message": "no", "metadata": {"reasons": ["violence"]}}},
            ContentPolicy,
        ),
        (404, _error(code="model_not_found"), NotFound),
        (410, _error(), NotFound),
        (402, _error(), QuotaExhausted),
        (429, _error(type="insufficient_quota"), QuotaExhausted),
        *(
            (429, _error(code=code), QuotaExhausted)
            for code in (
                "credit_balance_exhausted",
                "organization_spend_limit_exceeded",
                "project_spend_limit_exceeded",
                "organization_usage_limit_exceeded",
                "insufficient_quota",
            )
        ),
        (429, _error(code="rate_limit_exceeded"), RateLimited),
        (429, _error(code="slow_down"), RateLimited),
        (503, _error(code="server_is_overloaded", type="service_unavailable_error"), Overloaded),
        *((status, _error(), Overloaded) for status in (425, 498, 503, 529)),
        *((status, _error(), ServerError) for status in (500, 501, 502, 504, 520, 522, 599)),
        *((status, _error(), TimedOut) for status in (408, 499)),
        (400, _error(code="context_length_exceeded"), TooLarge),
        (400, _error(code="string_above_max_length"), TooLarge),
        (
            400,
            {"object": "error", "message": "This model's maximum context length is 4096", "code": 400},
            TooLarge,
        ),
        *(
            (400, _error(code=code), ContentPolicy)
            for code in (
                "content_policy_violation",
                "moderation_blocked",
                "image_content_policy_violation",
                "content_filter",
                "invalid_prompt",
            )
        ),
        (400, _error(code="model_not_found"), NotFound),
        (400, _error(code="unsupported_value", param="temperature"), UnsupportedParameter),
        (400, _error(code="invalid_image_url"), BadRequest),
        (
            422,
            {"detail": [{"loc": ["body", "messages"], "msg": "field required", "type": "missing"}]},
            BadRequest,
        ),
        (422, {"detail": "bad"}, BadRequest),
        (429, {"message": "slow"}, RateLimited),
        (500, {"error": "text"}, ServerError),
        (502, b"<html><head><title>502 Bad Gateway</title></head></html>", ServerError),
        (503, b"upstream connect error", Overloaded),
        (500, b"", ServerError),
        (500, [{"error": {"message": "in a list"}}], ServerError),
        (400, b"\xff\xfe\x00", BadRequest),
    ],
)
def test_classification(status: int, body: Any, expected: type[ProviderError]) -> None:
    error = classify(factories.provider(), _answer(body, status))
    assert type(error) is expected
    assert error.status == status


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (_error("the reason"), "the reason"),
        ({"error": "the reason"}, "the reason"),
        ({"message": "the reason"}, "the reason"),
        ({"detail": "the reason"}, "the reason"),
        ({"detail": {"message": "the reason"}}, "the reason"),
        ({"detail": [{"loc": ["body", "voice"], "msg": "the reason"}]}, "voice: the reason"),
        ([{"error": {"message": "the reason"}}], "the reason"),
        (b"the reason", "the reason"),
        (b"<!doctype html><TITLE>the reason</TITLE>", "HTML page.*the reason"),
    ],
)
def test_every_shape_of_error_body_is_understood(body: Any, text: str) -> None:
    with pytest.raises(ProviderError, match=text):
        raise classify(factories.provider(), _answer(body, 400))


@pytest.mark.parametrize(
    ("status", "body", "parameter", "replacement"),
    [
        (
            400,
            _error(code="unsupported_parameter", param="max_tokens"),
            "max_tokens",
            "max_completion_tokens",
        ),
        (
            400,
            _error(
                "Unsupported parameter: 'max_tokens' is not supported with this model. "
                "Use 'max_completion_tokens' instead."
            ),
            "max_tokens",
            "max_completion_tokens",
        ),
        (400, _error(code="unsupported_value", param="temperature"), "temperature", None),
        (400, _error(code="unsupported_value", param="reasoning.reasoning_effort"), "reasoning_effort", None),
        (
            422,
            {
                "detail": [
                    {
                        "loc": ["body", "seed"],
                        "msg": "Extra inputs are not permitted",
                        "type": "extra_forbidden",
                    }
                ]
            },
            "seed",
            None,
        ),
    ],
)
def test_the_refused_parameter_is_named(
    status: int, body: Any, parameter: str, replacement: str | None
) -> None:
    error = classify(factories.provider(), _answer(body, status))
    assert isinstance(error, UnsupportedParameter)
    assert (error.parameter, error.replacement) == (parameter, replacement)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after": "-5"}, 0.0),
        ({"retry-after-ms": "250", "retry-after": "3"}, 0.25),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:30 GMT", "date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 30.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({}, None),
    ],
)
def test_the_wait_the_provider_asks_for(headers: dict[str, str], seconds: float | None) -> None:
    response = replace(_answer(_error(), 429), headers={**headers, "apim-request-id": "r-9"})
    error = classify(factories.provider(), response)
    assert (error.retry_after, error.request_id) == (seconds, "r-9")


@pytest.mark.parametrize(("value", "verdict"), [("true", True), ("false", False), ("maybe", None)])
def test_the_providers_own_verdict_on_retrying(value: str, verdict: bool | None) -> None:
    error = classify(factories.provider(), _answer(_error(), 409, x_should_retry=value))
    assert error.should_retry is verdict


def test_messages_are_short_printable_and_without_keys() -> None:
    message = f"Incorrect API key provided: sk-proj-****wxyz.\x00\x1b[31m {'x' * 9000}"
    error = classify(factories.provider(), _answer(_error(message), 401))
    assert len(error.message) <= 2000
    assert "wxyz" not in error.message
    assert error.message.isprintable()


def test_an_echoed_key_is_scrubbed_from_the_whole_answer() -> None:
    key = 'odd"key/4711'
    body = json.dumps({"a": key}).encode() + key.encode()
    response = scrubbed(HttpResponse(400, {"x-echo": key}, body), key)
    assert key.encode() not in response.body
    assert b"4711" not in response.body
    assert response.headers["x-echo"] == "[key]"


def test_aliases_lead_to_wire_protocols() -> None:
    assert ALIASES["openai"] == "openai_compatible"
    assert ALIASES["claude"] == "anthropic"


def test_an_unknown_protocol_is_a_matter_of_configuration() -> None:
    owner = factories.provider(protocol="morse")
    with pytest.raises(ConfigurationError, match="openai_compatible"):
        probe(owner, None)
