from __future__ import annotations

import json
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
from routing.providers import CODECS, classify, probe
from routing.providers.wire import HttpRequest, HttpResponse
from routing.values import Capability, FinishReason, Reply, Turn, Usage
from tests.routing import factories
from tests.routing.factories import KEY

_TEXT = CODECS["anthropic"][Capability.TEXT]


def _owner(base_url: str = "https://api.anthropic.com", **fields: Any) -> Any:
    return factories.provider(base_url, protocol="anthropic", **fields)


def _encoded(*, owner: Any = None, limit: int | None = None, **fields: Any) -> HttpRequest:
    to = factories.route(owner or _owner(), max_output_tokens=limit)
    return _TEXT.encode(factories.call(to=to, **fields), KEY)


def _payload(request: HttpRequest) -> Any:
    return json.loads(request.body)


def _decoded(body: Any, status: int = 200, **headers: str) -> Reply:
    return _TEXT.decode(_answer(body, status, **headers), factories.call(to=factories.route(_owner())))


def _answer(body: Any, status: int = 200, **headers: str) -> HttpResponse:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return HttpResponse(status, {name.replace("_", "-"): value for name, value in headers.items()}, raw)


def _message(*texts: str, stop: str | None = "end_turn", **extra: Any) -> dict[str, Any]:
    content: list[dict[str, Any]] = [{"type": "thinking", "thinking": "hm", "signature": "s"}]
    content += [{"type": "text", "text": text} for text in texts]
    whole = {"id": "msg_1", "type": "message", "model": "claude-x", "content": content}
    return {**whole, "stop_reason": stop, **extra}


def test_request() -> None:
    request = _encoded(
        history=(Turn("user", "Hi"), Turn("assistant", "Hello")), end_user="abc", parameters={"stop": "END"}
    )
    assert (request.method, request.url) == ("POST", "https://api.anthropic.com/v1/messages")
    assert dict(request.headers) == {
        "content-type": "application/json",
        "anthropic-version": "2026-10-21",
        "x-api-key": KEY,
    }
    assert _payload(request) == {
        "model": "acme-large",
        "max_tokens": 4096,
        "system": "Be brief.",
        "messages": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello"},
            {"role": "user", "content": "Hello, stars."},
        ],
        "stop_sequences": ["END"],
        "metadata": {"user_id": "abc"},
    }


@pytest.mark.parametrize(
    ("limit", "parameters", "expected"), [(None, {}, 4096), (900, {}, 900), (900, {"max_tokens": 5}, 5)]
)
def test_a_token_limit_is_always_sent(limit: int | None, parameters: dict[str, Any], expected: int) -> None:
    assert _payload(_encoded(limit=limit, parameters=parameters))["max_tokens"] == expected


def test_version_follows_the_sampling_parameters() -> None:
    assert _encoded(parameters={"temperature": 0.5}).headers["anthropic-version"] == "2023-06-01"
    pinned = _owner(api_version="2027-01-01")
    assert _encoded(owner=pinned).headers["anthropic-version"] == "2027-01-01"
    assert _encoded(owner=pinned, parameters={"top_k": 3}).headers["anthropic-version"] == "2023-06-01"


def test_one_assignment_may_serve_both_protocols() -> None:
    schema = {"type": "object"}
    parameters = {
        "seed": 7,
        "presence_penalty": 1,
        "service_tier": "flex",
        "reasoning_effort": "low",
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}},
    }
    payload = _payload(_encoded(parameters=parameters))
    assert payload["output_config"] == {"effort": "low", "format": {"type": "json_schema", "schema": schema}}
    assert not {"seed", "presence_penalty", "service_tier", "response_format"} & set(payload)
    with pytest.raises(ConfigurationError, match=r"'temprature' is not known.*temperature"):
        _encoded(parameters={"temprature": 1})


def test_base_url_and_authentication_variants() -> None:
    assert _encoded(owner=_owner("https://proxy.example/claude/v1/")).url == (
        "https://proxy.example/claude/v1/messages"
    )
    bearer = _encoded(owner=_owner(settings={"auth_header": "Authorization: Bearer"}))
    assert bearer.headers["authorization"] == f"Bearer {KEY}"
    assert "x-api-key" not in bearer.headers


def test_probe_asks_for_the_models() -> None:
    request = probe(_owner(), KEY)
    assert (request.method, request.url) == ("GET", "https://api.anthropic.com/v1/models?limit=1")
    assert request.headers["x-api-key"] == KEY
    assert request.headers["anthropic-version"] == "2026-10-21"


def test_answer_counts_cached_tokens_into_the_total() -> None:
    usage = {
        "input_tokens": 10,
        "cache_read_input_tokens": 100,
        "cache_creation_input_tokens": 50,
        "output_tokens": 30,
        "output_tokens_details": {"thinking_tokens": 20},
    }
    reply = _decoded(_message("A", "B", usage=usage), request_id="req_1")
    assert (reply.text, reply.finish_reason, reply.request_id) == ("AB", FinishReason.STOP, "req_1")
    assert (reply.served_model, reply.response_id) == ("claude-x", "msg_1")
    assert reply.usage == Usage(160, 30, 100, 50, 20, raw=usage)


@pytest.mark.parametrize("usage", [None, {}, {"input_tokens": None, "output_tokens": "x"}, []])
def test_missing_usage_is_estimated(usage: Any) -> None:
    counted = _decoded(_message("A", usage=usage)).usage
    assert counted.estimated
    assert (counted.input_tokens or 0) > 0
    assert (counted.output_tokens or 0) > 0


@pytest.mark.parametrize(
    ("stop", "expected"),
    [
        ("end_turn", FinishReason.STOP),
        ("stop_sequence", FinishReason.STOP),
        ("max_tokens", FinishReason.LENGTH),
        ("model_context_window_exceeded", FinishReason.LENGTH),
        ("tool_use", FinishReason.TOOL),
        ("pause_turn", FinishReason.OTHER),
        ("brand_new", FinishReason.OTHER),
    ],
)
def test_finish_reasons(stop: str, expected: FinishReason) -> None:
    assert _decoded(_message("A", stop=stop)).finish_reason is expected


def _fault(kind: str, message: str = "no", **details: Any) -> dict[str, Any]:
    error = {"type": kind, "message": message} | ({"details": details} if details else {})
    return {"type": "error", "error": error, "request_id": "req_9"}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (_message("half", stop="refusal", stop_details={"category": "cyber"}), ContentPolicy),
        (_message(stop="max_tokens"), TooLarge),
        (_message(), EmptyReply),
        ({"content": None}, ServerError),
        (b"nonsense", ServerError),
        (_fault("overloaded_error"), Overloaded),
        (_fault("rate_limit_error"), RateLimited),
        (_fault("authentication_error"), AuthFailed),
        (_fault("brand_new_error"), ServerError),
    ],
)
def test_a_200_may_hold_a_failure(body: Any, expected: type[ProviderError]) -> None:
    with pytest.raises(ProviderError) as caught:
        _decoded(body)
    assert type(caught.value) is expected


@pytest.mark.parametrize(
    ("status", "body", "headers", "expected"),
    [
        (400, _fault("invalid_request_error"), {}, BadRequest),
        (400, _fault("invalid_request_error", "You have reached your API usage limits."), {}, QuotaExhausted),
        (400, _fault("invalid_request_error", "prompt is too long: 9 tokens"), {}, TooLarge),
        (400, _fault("invalid_request_error", "blocked by content filtering policy"), {}, ContentPolicy),
        (401, _fault("authentication_error"), {}, AuthFailed),
        (402, _fault("billing_error"), {}, QuotaExhausted),
        (403, _fault("permission_error"), {}, AuthFailed),
        (404, _fault("not_found_error"), {}, NotFound),
        (409, _fault("conflict_error"), {}, BadRequest),
        (413, _fault("request_too_large"), {}, TooLarge),
        (429, _fault("rate_limit_error"), {"retry_after": "7"}, RateLimited),
        (429, _fault("rate_limit_error"), {}, QuotaExhausted),
        (
            429,
            _fault("rate_limit_error", error_code="enforced_spend_limit_reached"),
            {"retry_after": "7"},
            QuotaExhausted,
        ),
        (429, _fault("rate_limit_error", error_code="ramp_limit_exceeded"), {}, RateLimited),
        (500, _fault("api_error"), {}, ServerError),
        (504, _fault("timeout_error"), {}, TimedOut),
        (529, _fault("overloaded_error"), {}, Overloaded),
        (502, b"<html>", {}, ServerError),
    ],
)
def test_classification(
    status: int, body: Any, headers: dict[str, str], expected: type[ProviderError]
) -> None:
    error = classify(_owner(), _answer(body, status, **headers))
    assert type(error) is expected
    if isinstance(body, dict):
        assert error.request_id == "req_9"


@pytest.mark.parametrize(
    ("message", "parameter"),
    [
        ("temperature: Extra inputs are not permitted", "temperature"),
        ("`top_p` is deprecated for this model.", "top_p"),
        ("top_k: Extra inputs are not permitted", "top_k"),
    ],
)
def test_the_refused_parameter_is_named(message: str, parameter: str) -> None:
    error = classify(_owner(), _answer(_fault("invalid_request_error", message), 400))
    assert isinstance(error, UnsupportedParameter)
    assert error.parameter == parameter


def test_a_refusal_names_its_category() -> None:
    body = _message(stop="refusal", stop_details={"category": "cyber", "explanation": "No."})
    with pytest.raises(ContentPolicy, match="cyber: No"):
        _decoded(body)
