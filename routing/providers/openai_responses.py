"""The other way to say the same to OpenAI: text and vision by `/responses`, for models of `api_style`
`responses`. Nothing is stored there, and nothing runs in the background."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from routing.providers import problems, replies
from routing.providers.openai_compatible import (
    body_of,
    classified,
    cost_of,
    data_url,
    end_user,
    is_batch_rate,
    post,
)
from routing.providers.parameters import accepted, member
from routing.providers.wire import HttpRequest, HttpResponse
from routing.values import Call, FinishReason, Reply, Usage

_PARAMETERS = frozenset(
    {
        *("max_tokens", "max_completion_tokens", "max_output_tokens", "temperature", "top_p", "store"),
        *("response_format", "reasoning_effort", "verbosity", "service_tier", "metadata", "image_detail"),
        *("prompt_cache_key", "prompt_cache_options", "reasoning", "text", "truncation"),
    }
)
_LIMITS = ("max_output_tokens", "max_completion_tokens", "max_tokens")
_INCOMPLETE = {
    "max_output_tokens": FinishReason.LENGTH,
    "content_filter": FinishReason.CONTENT_FILTER,
}


class Text:
    """`POST /responses`, with or without pictures."""

    def encode(self, call: Call, key: str | None) -> HttpRequest:
        parameters = _translated(accepted(call, _PARAMETERS))
        detail = parameters.pop("image_detail", None)
        payload: dict[str, Any] = {
            "model": call.route.model.model_id,
            "input": [
                *({"role": turn.role, "content": turn.content} for turn in call.history),
                {"role": "user", "content": _content(call, detail)},
            ],
            "store": False,
            **parameters,
        }
        if call.system:
            payload["instructions"] = call.system
        payload |= end_user(call)
        return post(call.route.provider, key, "responses", payload)

    def decode(self, response: HttpResponse, call: Call) -> Reply:
        body = body_of(response)
        status = body.get("status")
        if status == "failed":
            raise classified(problems.read(response, body))
        output = body.get("output")
        if status not in ("completed", "incomplete", None) or not isinstance(output, list):
            raise problems.unreadable(response, f"it is not complete (status {status!r})")
        reason = (
            replies.word(member(body, "incomplete_details", "reason")) if status == "incomplete" else None
        )
        chunks = [chunk for item in output for chunk in _chunks(item)]
        refusals = [chunk.get("refusal") for chunk in chunks if chunk.get("type") == "refusal"]
        return replies.text_reply(
            response,
            call,
            text=replies.text_of([chunk for chunk in chunks if chunk.get("type") == "output_text"]),
            usage=_usage(body),
            finish=_finish(reason, output),
            raw_finish=reason or replies.word(status),
            body=body,
            refusal=str(refusals[0]) if refusals else None,
        )


def _content(call: Call, detail: Any) -> str | list[dict[str, Any]]:
    if not call.images:
        return call.user
    extra = {} if detail is None else {"detail": detail}
    text = [{"type": "input_text", "text": call.user}] if call.user.strip() else []
    return [
        *text,
        *({"type": "input_image", "image_url": data_url(image), **extra} for image in call.images),
    ]


def _translated(parameters: dict[str, Any]) -> dict[str, Any]:
    """The names of `/chat/completions` as this endpoint has them."""
    limits = [parameters.pop(name, None) for name in _LIMITS]
    limit = next((limit for limit in limits if limit is not None), None)
    if limit is not None:
        parameters["max_output_tokens"] = limit
    effort = parameters.pop("reasoning_effort", None)
    if effort is not None:
        parameters["reasoning"] = {"effort": effort, **_mapping(parameters.get("reasoning"))}
    text = {"verbosity": parameters.pop("verbosity", None), "format": _format(parameters)}
    wanted = {name: value for name, value in text.items() if value is not None}
    if wanted:
        parameters["text"] = {**wanted, **_mapping(parameters.get("text"))}
    return parameters


def _format(parameters: dict[str, Any]) -> Any:
    """`response_format`, whose schema lies one level higher here."""
    wanted = parameters.pop("response_format", None)
    described = wanted.get("json_schema") if isinstance(wanted, Mapping) else None
    return {"type": "json_schema", **described} if isinstance(described, Mapping) else wanted


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _chunks(item: Any) -> list[Mapping[str, Any]]:
    content = item.get("content") if isinstance(item, Mapping) and item.get("type") == "message" else None
    return [chunk for chunk in content if isinstance(chunk, Mapping)] if isinstance(content, list) else []


def _finish(reason: str | None, output: list[Any]) -> FinishReason:
    if reason is not None:
        return _INCOMPLETE.get(reason, FinishReason.OTHER)
    calls = any(isinstance(item, Mapping) and item.get("type") == "function_call" for item in output)
    return FinishReason.TOOL if calls else FinishReason.STOP


def _usage(body: Mapping[str, Any]) -> Usage:
    """Cached and reasoning tokens are part of the totals."""
    raw = body.get("usage")
    return Usage(
        input_tokens=replies.count(raw, "input_tokens"),
        output_tokens=replies.count(raw, "output_tokens"),
        cached_tokens=replies.count(raw, "input_tokens_details", "cached_tokens"),
        cache_write_tokens=replies.count(raw, "input_tokens_details", "cache_write_tokens"),
        reasoning_tokens=replies.count(raw, "output_tokens_details", "reasoning_tokens"),
        raw=raw if isinstance(raw, Mapping) else None,
        batch_rate=is_batch_rate(body),
        cost_usd=cost_of(raw),
    )
