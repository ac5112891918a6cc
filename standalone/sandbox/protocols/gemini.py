"""Google's Gemini protocol under ``/gemini/{version}``: who may call, which route it is, how a refusal
looks."""

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import parse_qs, unquote

from standalone.sandbox.batches import BatchDesk
from standalone.sandbox.faults import Fault
from standalone.sandbox.protocols.gemini_batches import CREATE, GeminiBatches
from standalone.sandbox.protocols.gemini_content import count_content_tokens, fragments, generate
from standalone.sandbox.protocols.gemini_embeddings import embed_content, embed_contents
from standalone.sandbox.protocols.gemini_fields import invalid
from standalone.sandbox.values import Answer, Call, Refusal, json_answer

_PATH = re.compile(r"/(v1beta|v1alpha|v1)/models/([^/:]+):(\w+)")
_LIST = re.compile(r"/(v1beta|v1alpha|v1)/models(?:/([^/:]+))?")

_STATUS_WORDS: Mapping[int, str] = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    402: "RESOURCE_EXHAUSTED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_MESSAGES: Mapping[int, str] = {
    400: "Request contains an invalid argument.",
    403: "The caller does not have permission",
    404: "Requested entity was not found.",
    429: "You exceeded your current quota, please check your plan and billing details.",
    500: "An internal error has occurred. Please retry or report it.",
    503: "The model is overloaded. Please try again later.",
    504: "The request timed out. Please try again.",
}
_BAD_KEY = "API key not valid. Please pass a valid API key."
_NO_KEY = "Method doesn't allow unregistered callers (callers without established identity)."
_TYPE = "type.googleapis.com/google.rpc."

_MODEL_IDS = (
    *("gemini-3.8-flash", "gemini-3.5-flash-lite", "gemini-3.8-flash-tts", "gemini-3.1-flash-image"),
    *("gemini-embedding-001", "gemini-embedding-2"),
)

_STREAMING = "streamGenerateContent"
_Route = Callable[[str, Mapping[str, Any]], Awaitable[Answer]]
_ROUTES: Mapping[str, _Route] = {
    "generateContent": generate,
    "countTokens": count_content_tokens,
    "embedContent": embed_content,
    "batchEmbedContents": embed_contents,
}


class Gemini:
    def __init__(self, desk: BatchDesk) -> None:
        self._batches = GeminiBatches(desk, self._answer_line)

    def key(self, call: Call) -> str | None:
        return call.header(b"x-goog-api-key") or parse_qs(call.query).get("key", [None])[-1]

    def model(self, call: Call) -> str | None:
        found = _PATH.fullmatch(call.path)
        return unquote(found[2]) if found else None

    async def answer(self, call: Call) -> Answer:
        key = self.key(call)
        if key is None:
            raise Refusal(403, _NO_KEY)
        if key == "bad-key":
            raise Refusal(400, _BAD_KEY, code="API_KEY_INVALID")
        if call.too_large:
            raise invalid("Request payload size exceeds the limit: 33554432 bytes.")
        if self._batches.serves(call):
            return await self._batches.answer(call)
        found = _PATH.fullmatch(call.path)
        if found is not None and call.method == "POST":
            streams = found[3] == _STREAMING
            route = generate if streams else _ROUTES.get(found[3])
            if route is None and found[3] != CREATE:
                raise Refusal(404, _MESSAGES[404])
            if not isinstance(call.document, dict):
                raise invalid("Invalid JSON payload received. Unexpected token.")
            if route is None:
                return await self._batches.create(call, unquote(found[2]), call.document)
            answer = await route(unquote(found[2]), call.document)
            as_events = parse_qs(call.query).get("alt") == ["sse"]
            return fragments(answer, as_events=as_events) if streams else answer
        listed = _LIST.fullmatch(call.path)
        if listed is None or call.method != "GET":
            raise Refusal(404, _MESSAGES[404])
        if listed[2] is not None:
            return json_answer(_model(listed[2]))
        return json_answer({"models": [_model(name) for name in _MODEL_IDS]})

    async def _answer_line(
        self, call: Call, model: str, body: Mapping[str, Any], fault: Fault | None
    ) -> Answer:
        """What a live call of ``call``'s client would be answered."""
        try:
            if fault:
                raise self.failure(fault.status, fault.code, fault.retry_after)
            return await generate(model, body)
        except Refusal as refusal:
            return self.refuse(refusal, call)

    def refuse(self, refusal: Refusal, call: Call) -> Answer:
        error: dict[str, Any] = {
            "code": refusal.status,
            "message": refusal.message,
            "status": refusal.kind or _status_word(refusal.status),
        }
        details = _details(refusal)
        if details:
            error["details"] = details
        return json_answer({"error": error}, (), refusal.status)

    def failure(self, status: int, code: str | None, retry_after: float | None) -> Refusal:
        message = _MESSAGES.get(status, _MESSAGES[500 if status >= 500 else 400])
        if code == "insufficient_quota":
            code = "PerDay"
        wait = None if retry_after is None else f"{retry_after:g}s"
        return Refusal(status, message, code=code, param=wait)


def _status_word(status: int) -> str:
    return _STATUS_WORDS.get(status, "INTERNAL" if status >= 500 else "INVALID_ARGUMENT")


def _details(refusal: Refusal) -> list[dict[str, Any]]:
    """What stands in ``details``; there is no ``retry-after`` header here, ``param`` carries the wait."""
    details: list[dict[str, Any]] = []
    if refusal.status == 429:
        period = "PerDay" if refusal.code == "PerDay" else "PerMinute"
        violation = {
            "quotaMetric": "generativelanguage.googleapis.com/generate_content_requests",
            "quotaId": f"GenerateRequests{period}PerProjectPerModel",
        }
        details.append({"@type": f"{_TYPE}QuotaFailure", "violations": [violation]})
    elif refusal.code is not None:
        reason = {"reason": refusal.code, "domain": "googleapis.com"}
        details.append({"@type": f"{_TYPE}ErrorInfo", **reason})
    if refusal.param is not None:
        details.append({"@type": f"{_TYPE}RetryInfo", "retryDelay": refusal.param})
    return details


def _model(name: str) -> dict[str, Any]:
    return {
        "name": f"models/{name}",
        "version": "001",
        "displayName": name.replace("-", " ").title(),
        "description": "Lives on this machine.",
        "inputTokenLimit": 1_048_576,
        "outputTokenLimit": 65_536,
        "supportedGenerationMethods": ["generateContent", "countTokens", "embedContent"],
    }
