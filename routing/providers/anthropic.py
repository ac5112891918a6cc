"""The Anthropic Messages protocol: text and vision (`POST /v1/messages`). The base URL is the host."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from routing.errors import ContentPolicy, ProviderError, QuotaExhausted, TimedOut, TooLarge
from routing.providers import endpoint, problems, replies
from routing.providers.parameters import accepted, member, wanted_schema
from routing.providers.problems import Problem
from routing.providers.wire import HttpRequest, HttpResponse
from routing.values import Call, FinishReason, Provider, Reply, Usage

AUTH = "x-api-key"
_VERSION = "2026-10-21"
_SAMPLING_VERSION = "2023-06-01"  # the last that takes sampling parameters; still served
_SAMPLING = frozenset({"temperature", "top_p", "top_k"})
_DEFAULT_LIMIT = 4096  # tokens; the protocol demands a limit

_PARAMETERS = frozenset(
    {
        *("max_tokens", "stop", "stop_sequences", "service_tier", "speed", "inference_geo", "thinking"),
        *("output_config", "cache_control", "reasoning_effort", "response_format"),
        *_SAMPLING,
    }
)
_SERVICE_TIERS = ("auto", "standard_only")  # other protocols' tiers have other names

_FINISH = {
    "end_turn": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "max_tokens": FinishReason.LENGTH,
    "model_context_window_exceeded": FinishReason.LENGTH,
    "refusal": FinishReason.CONTENT_FILTER,
    "tool_use": FinishReason.TOOL,
    None: FinishReason.STOP,
}
STATUS_OF = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "conflict_error": 409,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}


class Text:
    """`POST /v1/messages`, with or without pictures, which come before the text."""

    def encode(self, call: Call, key: str | None) -> HttpRequest:
        provider, model = call.route.provider, call.route.model
        parameters = _translated(accepted(call, _PARAMETERS))
        payload: dict[str, Any] = {
            "model": model.model_id,
            "max_tokens": model.max_output_tokens or _DEFAULT_LIMIT,
            "messages": [
                *({"role": turn.role, "content": turn.content} for turn in call.history),
                {"role": "user", "content": _content(call)},
            ],
            **parameters,
        }
        if call.system:
            payload["system"] = call.system
        if call.end_user:
            payload["metadata"] = {"user_id": call.end_user}
        headers = headers_of(provider, sampling=bool(_SAMPLING & set(parameters)))
        return endpoint.post(host(provider), key, "v1/messages", payload, auth=AUTH, headers=headers)

    def decode(self, response: HttpResponse, call: Call) -> Reply:
        if response.status >= 400:
            raise classify(response)
        body = replies.json_object(response)
        if body.get("type") == "error" or body.get("error"):
            raise classify(response)
        content = body.get("content")
        if not isinstance(content, list):
            raise problems.unreadable(response, "it holds no content")
        raw_finish = replies.word(body.get("stop_reason"))
        return replies.text_reply(
            response,
            call,
            text=replies.text_of(content),
            usage=_usage(body.get("usage")),
            finish=_FINISH.get(raw_finish, FinishReason.OTHER),
            raw_finish=raw_finish,
            body=body,
            refusal=_refusal(body) if raw_finish == "refusal" else None,
        )


def probe(provider: Provider, key: str | None) -> HttpRequest:
    """`GET /v1/models`: free, and 401 for a bad key."""
    return get(provider, key, endpoint.setting(provider, "models_path", "v1/models?limit=1"))


def get(provider: Provider, key: str | None, path: str) -> HttpRequest:
    """A GET of `path` at the host."""
    return endpoint.get(host(provider), key, path, auth=AUTH, headers=headers_of(provider))


def classify(response: HttpResponse) -> ProviderError:
    """The error an answer stands for; inside a 200 its `error.type` takes the place of the status."""
    problem = problems.read(response)
    return problems.unsupported(problem) or problems.error(_class(problem), problem)


def _class(problem: Problem) -> type[ProviderError]:
    status = problem.status if problem.status >= 400 else STATUS_OF.get(problem.kind, 500)
    message = problem.message.lower()
    if status == 504:
        return TimedOut
    if status == 429 and _capped(problem):
        return QuotaExhausted
    if status == 400 and ("usage limit" in message or "credit balance" in message):
        return QuotaExhausted
    if status == 400 and ("prompt is too long" in message or "context limit" in message):
        return TooLarge
    if status == 400 and "content filtering policy" in message:
        return ContentPolicy
    return problems.by_status(status)


def _capped(problem: Problem) -> bool:
    """A 429 of the monthly cap: it says so, or names no time to come back. A ramp limit passes by itself."""
    code = member(problem.details or {}, "details", "error_code")
    if code == "ramp_limit_exceeded":
        return False
    return code == "enforced_spend_limit_reached" or (problem.retry_after is None and problem.status == 429)


def host(provider: Provider) -> Provider:
    """Tolerates a base URL with the `/v1` that other protocols want."""
    return replace(provider, base_url=provider.base_url.rstrip("/").removesuffix("/v1"))


def headers_of(provider: Provider, *, sampling: bool = False) -> dict[str, str]:
    """The protocol's own headers, for a call with or without sampling parameters."""
    version = _SAMPLING_VERSION if sampling else provider.api_version or _VERSION
    return {"anthropic-version": version}


def _content(call: Call) -> str | list[dict[str, Any]]:
    if not call.images:
        return call.user
    pictures = [
        {
            "type": "image",
            "source": {
                "type": "base64",
                "media_type": image.media_type,
                "data": base64.b64encode(image.body).decode(),
            },
        }
        for image in call.images
    ]
    text = [{"type": "text", "text": call.user}] if call.user.strip() else []
    return [*pictures, *text]


def _translated(parameters: dict[str, Any]) -> dict[str, Any]:
    """Other protocols' names for what this one has under its own, so that one assignment serves both."""
    stop = parameters.pop("stop", None)
    if stop is not None:
        parameters.setdefault("stop_sequences", [stop] if isinstance(stop, str) else stop)
    if parameters.get("service_tier") not in _SERVICE_TIERS:
        parameters.pop("service_tier", None)
    wanted = {"effort": parameters.pop("reasoning_effort", None)}
    schema = wanted_schema(parameters)
    parameters.pop("response_format", None)
    if schema is not None:
        wanted["format"] = {"type": "json_schema", "schema": schema}
    configured = parameters.pop("output_config", None)
    output = {name: value for name, value in wanted.items() if value is not None}
    output |= configured if isinstance(configured, Mapping) else {}
    return {**parameters, "output_config": output} if output else parameters


def _usage(raw: Any) -> Usage:
    """Cached tokens are not part of `input_tokens` here, thinking is part of `output_tokens`."""
    fresh = replies.count(raw, "input_tokens")
    read = replies.count(raw, "cache_read_input_tokens")
    written = replies.count(raw, "cache_creation_input_tokens")
    return Usage(
        input_tokens=None if fresh is None else fresh + (read or 0) + (written or 0),
        output_tokens=replies.count(raw, "output_tokens"),
        cached_tokens=read,
        cache_write_tokens=written,
        reasoning_tokens=replies.count(raw, "output_tokens_details", "thinking_tokens"),
        raw=raw if isinstance(raw, Mapping) else None,
        batch_rate=isinstance(raw, Mapping) and raw.get("service_tier") == "batch",
    )


def _refusal(body: Mapping[str, Any]) -> str:
    parts = (member(body, "stop_details", "category"), member(body, "stop_details", "explanation"))
    return ": ".join(part for part in parts if isinstance(part, str)) or "refusal"
