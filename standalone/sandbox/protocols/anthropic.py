"""Anthropic's protocol under ``/anthropic/v1``: who may call, which route it is, and how a refusal looks."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import parse_qs

from standalone.sandbox.batches import BatchDesk
from standalone.sandbox.faults import Fault
from standalone.sandbox.protocols.anthropic_batches import AnthropicBatches
from standalone.sandbox.protocols.anthropic_messages import count_message_tokens, create_message
from standalone.sandbox.values import Answer, Call, Refusal, fresh_id, json_answer

VERSIONS = ("2026-10-21", "2023-06-01")

# Of each status: type, message.
_FAILURES: Mapping[int, tuple[str, str]] = {
    400: ("invalid_request_error", "The request could not be processed."),
    401: ("authentication_error", "invalid x-api-key"),
    402: ("billing_error", "There is an issue with your billing or payment information."),
    403: ("permission_error", "Your API key does not have permission to use the specified resource."),
    404: ("not_found_error", "Not Found"),
    409: ("conflict_error", "The request conflicts with the current state of the resource."),
    413: ("request_too_large", "Request exceeds the maximum size"),
    429: ("rate_limit_error", "This request would exceed your organization's rate limit."),
    500: ("api_error", "Internal server error"),
    504: ("timeout_error", "The request timed out."),
    529: ("overloaded_error", "Overloaded"),
}
_SPEND_LIMIT = "enforced_spend_limit_reached"

_WITHIN_LIMITS = (
    (b"anthropic-organization-id", b"sandbox"),
    (b"anthropic-ratelimit-requests-limit", b"4000"),
    (b"anthropic-ratelimit-requests-remaining", b"3999"),
    (b"anthropic-ratelimit-requests-reset", b"2026-12-01T00:00:00Z"),
    (b"anthropic-ratelimit-tokens-limit", b"2400000"),
    (b"anthropic-ratelimit-tokens-remaining", b"2399000"),
    (b"anthropic-ratelimit-tokens-reset", b"2026-12-01T00:00:00Z"),
)

_MODEL_IDS = (
    *("claude-opus-5-5", "claude-sonnet-5-5", "claude-haiku-5-5", "claude-fable-5-2", "claude-opus-5"),
    *("claude-sonnet-5", "claude-opus-4-8", "claude-opus-4-6", "claude-sonnet-4-6", "claude-haiku-4-5"),
)

_Route = Callable[[Call, Mapping[str, Any], str], Awaitable[Answer]]
_ROUTES: Mapping[str, _Route] = {
    "/v1/messages": create_message,
    "/v1/messages/count_tokens": count_message_tokens,
}


class Anthropic:
    def __init__(self, desk: BatchDesk) -> None:
        self._batches = AnthropicBatches(desk, self._answer_line)

    def key(self, call: Call) -> str | None:
        return call.header(b"x-api-key") or call.bearer()

    def model(self, call: Call) -> str | None:
        return call.model

    async def answer(self, call: Call) -> Answer:
        self._authenticate(call)
        version = _version(call)
        if call.too_large:
            raise Refusal(413, _FAILURES[413][1])
        batched = self._batches.serves(call)
        answer = await (self._batches.answer(call, version) if batched else _route(call, version))
        headers = ((b"request-id", fresh_id("req_").encode()), *_WITHIN_LIMITS, *answer.headers)
        return Answer(answer.status, answer.media_type, answer.chunks, headers, answer.streamed)

    def _authenticate(self, call: Call) -> None:
        key = self.key(call)
        if key is None:
            raise Refusal(401, "x-api-key header is required")
        if key == "bad-key":
            raise Refusal(401, "invalid x-api-key")

    async def _answer_line(
        self, call: Call, body: Mapping[str, Any], version: str, fault: Fault | None
    ) -> Answer:
        """What a live call of ``call``'s client would be answered."""
        try:
            if fault:
                raise self.failure(fault.status, fault.code, fault.retry_after)
            return await create_message(call, body, version)
        except Refusal as refusal:
            return self.refuse(refusal, call)

    def refuse(self, refusal: Refusal, call: Call) -> Answer:
        request_id = fresh_id("req_")
        error: dict[str, Any] = {
            "type": refusal.kind or _failure(refusal.status)[0],
            "message": refusal.message,
        }
        if refusal.code is not None:
            error["details"] = {"error_code": refusal.code}
        document = {"type": "error", "error": error, "request_id": request_id}
        headers = ((b"request-id", request_id.encode()), *refusal.headers)
        return json_answer(document, headers, refusal.status)

    def failure(self, status: int, code: str | None, retry_after: float | None) -> Refusal:
        kind, message = _failure(status)
        if code == "insufficient_quota":
            code, message = _SPEND_LIMIT, "You have reached your specified API usage limits."
        headers = () if retry_after is None else ((b"retry-after", b"%g" % retry_after),)
        return Refusal(status, message, kind, code=code, headers=headers)


def _failure(status: int) -> tuple[str, str]:
    if status in _FAILURES:
        return _FAILURES[status]
    # 503 is not in the vendor's list; its proxies use it for what 529 means.
    return _FAILURES[529 if status == 503 else 500 if status >= 500 else 400]


def _version(call: Call) -> str:
    version = call.header(b"anthropic-version")
    if version is None:
        raise Refusal(400, "anthropic-version: header is required")
    if version not in VERSIONS:
        raise Refusal(400, f'anthropic-version: "{version}" is not a valid version')
    return version


async def _route(call: Call, version: str) -> Answer:
    route = _ROUTES.get(call.path)
    if route is not None and call.method == "POST":
        if call.document is None:
            raise Refusal(400, "The request body is not valid JSON: expected value at line 1 column 1")
        if not isinstance(call.document, dict):
            raise Refusal(400, "Input should be a valid dictionary or object to extract fields from")
        return await route(call, call.document, version)
    if call.method == "GET" and call.path == "/v1/models":
        return _models(call)
    if call.method == "GET" and call.path.startswith("/v1/models/"):
        return json_answer(_model(call.path.removeprefix("/v1/models/")))
    if route is not None or call.path == "/v1/models":
        raise Refusal(405, "Method Not Allowed", "invalid_request_error")
    raise Refusal(404, "Not Found")


def _models(call: Call) -> Answer:
    query = parse_qs(call.query)
    limit, after = query.get("limit", ["20"])[-1], query.get("after_id", [""])[-1]
    if not limit.isascii() or not limit.isdigit() or not 1 <= int(limit) <= 1000:
        raise Refusal(400, "limit: Input should be between 1 and 1000")
    rest = _MODEL_IDS[_MODEL_IDS.index(after) + 1 :] if after in _MODEL_IDS else _MODEL_IDS
    page = [_model(name) for name in rest[: int(limit)]]
    document = {
        "data": page,
        "has_more": len(rest) > len(page),
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
    }
    return json_answer(document)


def _model(name: str) -> dict[str, Any]:
    supported = {"supported": True}
    return {
        "type": "model",
        "id": name,
        "display_name": name.replace("-", " ").title(),
        "created_at": "2026-01-01T00:00:00Z",
        "lifecycle": "active",
        "deprecated_at": None,
        "retires_at": None,
        "max_input_tokens": 1_000_000,
        "max_tokens": 64_000,
        "capabilities": {"image_input": supported, "structured_outputs": supported},
    }
