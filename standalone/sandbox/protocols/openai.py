"""OpenAI's protocol under ``/openai/v1``: who may call, which route it is, and how a refusal looks."""

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from standalone.sandbox.batches import BatchDesk
from standalone.sandbox.faults import Fault
from standalone.sandbox.forms import read_form
from standalone.sandbox.protocols.openai_audio import transcription
from standalone.sandbox.protocols.openai_batches import OpenAIBatches
from standalone.sandbox.protocols.openai_chat import chat_completion
from standalone.sandbox.protocols.openai_images import image_generation
from standalone.sandbox.protocols.openai_media import embeddings, moderation, speech
from standalone.sandbox.protocols.openai_responses import create_response
from standalone.sandbox.values import Answer, Call, Refusal, fresh_id, json_answer

_NO_KEY = (
    "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer "
    "auth (i.e. Authorization: Bearer YOUR_KEY). You can obtain an API key from "
    "https://platform.openai.com/account/api-keys."
)
_BAD_KEY = (
    "Incorrect API key provided: ba***ey. "
    "You can find your API key at https://platform.openai.com/account/api-keys."
)
_BAD_JSON = (
    "We could not parse the JSON body of your request. (HINT: This likely means you aren't using your HTTP "
    "library correctly. The OpenAI API expects a JSON payload, but what was sent was not valid JSON.)"
)

# Of a fault: type, code, message. PROTOCOLS: only these carry codes of their own.
_FAILURES: Mapping[int, tuple[str, str | None, str]] = {
    400: ("invalid_request_error", None, "The request could not be processed."),
    401: ("invalid_request_error", "invalid_api_key", _BAD_KEY),
    402: ("insufficient_quota", "insufficient_quota", "Payment is required to continue."),
    403: (
        "request_forbidden",
        "unsupported_country_region_territory",
        "Country, region, or territory not supported",
    ),
    404: (
        "invalid_request_error",
        "model_not_found",
        "The model does not exist or you do not have access to it.",
    ),
    408: ("server_error", None, "The request timed out."),
    409: ("invalid_request_error", None, "The request conflicts with another one."),
    413: ("invalid_request_error", None, "The request is too large."),
    422: ("invalid_request_error", None, "The request was well formed but could not be followed."),
    429: ("requests", "rate_limit_exceeded", "Rate limit reached for requests. Please try again later."),
    503: (
        "service_unavailable_error",
        "server_is_overloaded",
        "The server is currently overloaded with other requests. Sorry about that! Please retry later.",
    ),
}
_SERVER_ERROR = (
    "server_error",
    None,
    "The server had an error while processing your request. Sorry about that!",
)
_BILLING_CODES = frozenset(
    (
        "insufficient_quota",
        "credit_balance_exhausted",
        "organization_spend_limit_exceeded",
        "project_spend_limit_exceeded",
        "organization_usage_limit_exceeded",
    )
)
_BILLING_MESSAGE = "You exceeded your current quota, please check your plan and billing details."

_VERSION_HEADERS = ((b"openai-version", b"2020-10-01"), (b"openai-organization", b"sandbox"))
_WITHIN_LIMITS = (
    (b"x-ratelimit-limit-requests", b"10000"),
    (b"x-ratelimit-remaining-requests", b"9999"),
    (b"x-ratelimit-reset-requests", b"6ms"),
    (b"x-ratelimit-limit-tokens", b"2000000"),
    (b"x-ratelimit-remaining-tokens", b"1999000"),
    (b"x-ratelimit-reset-tokens", b"30ms"),
)

_MODEL_IDS = (
    *("gpt-6.2-sol", "gpt-6.1-terra", "gpt-6-luna", "gpt-5.4-mini", "gpt-4o", "gpt-4o-mini"),
    *(
        "text-embedding-3-small",
        "text-embedding-3-large",
        "omni-moderation-latest",
        "gpt-4o-mini-tts",
        "tts-1",
        "gpt-transcribe",
        "whisper-1",
        "gpt-image-2",
    ),
)

_Route = Callable[[Call, Mapping[str, Any]], Awaitable[Answer]]
_ROUTES: Mapping[str, _Route] = {
    "/v1/chat/completions": chat_completion,
    "/v1/embeddings": embeddings,
    "/v1/moderations": moderation,
    "/v1/audio/speech": speech,
    "/v1/images/generations": image_generation,
    "/v1/responses": create_response,
}
_UPLOADS: Mapping[str, Callable[[Call], Awaitable[Answer]]] = {"/v1/audio/transcriptions": transcription}


class OpenAI:
    def __init__(self, desk: BatchDesk) -> None:
        self._batches = OpenAIBatches(desk, self._answer_line)

    def key(self, call: Call) -> str | None:
        return call.bearer()

    def model(self, call: Call) -> str | None:
        if call.path in _UPLOADS:
            form = read_form(call)
            return form.fields.get("model") if form else None
        return call.model

    async def answer(self, call: Call) -> Answer:
        _authenticate(call)
        if call.too_large:
            raise Refusal(413, "The request is too large: 32 MB is the limit.", "invalid_request_error")
        answer = await self._route(call)
        return Answer(
            answer.status,
            answer.media_type,
            answer.chunks,
            (*_common_headers(call), *_WITHIN_LIMITS, *answer.headers),
            answer.streamed,
        )

    async def _route(self, call: Call) -> Answer:
        if self._batches.serves(call):
            return await self._batches.answer(call)
        upload = _UPLOADS.get(call.path)
        if upload is not None and call.method == "POST":
            return await upload(call)
        route = _ROUTES.get(call.path)
        if route is not None and call.method == "POST":
            if not isinstance(call.document, dict):
                raise Refusal(400, _BAD_JSON, "invalid_request_error")
            return await route(call, call.document)
        if call.method == "GET" and call.path == "/v1/models":
            return json_answer({"object": "list", "data": [_model(name) for name in _MODEL_IDS]})
        if call.method == "GET" and call.path.startswith("/v1/models/"):
            return json_answer(_model(call.path.removeprefix("/v1/models/")))
        if route is not None or upload is not None or call.path == "/v1/models":
            message = f"Not allowed to {call.method} on {call.path}."
            raise Refusal(405, message, "invalid_request_error", code="method_not_supported")
        raise Refusal(404, f"Invalid URL ({call.method} {call.path})", "invalid_request_error")

    async def _answer_line(
        self, call: Call, endpoint: str, body: Mapping[str, Any], fault: Fault | None
    ) -> Answer:
        """What a live call of ``call``'s client would be answered."""
        try:
            if fault:
                raise self.failure(fault.status, fault.code, fault.retry_after)
            return await _ROUTES[endpoint](call, body)
        except Refusal as refusal:
            return self.refuse(refusal, call)

    def refuse(self, refusal: Refusal, call: Call) -> Answer:
        error = {
            "message": refusal.message,
            "type": refusal.kind or _failure(refusal.status)[0],
            "param": refusal.param,
            "code": refusal.code,
        }
        return json_answer({"error": error}, (*_common_headers(call), *refusal.headers), refusal.status)

    def failure(self, status: int, code: str | None, retry_after: float | None) -> Refusal:
        kind, usual_code, message = _failure(status)
        if code in _BILLING_CODES:
            kind, message = "insufficient_quota", _BILLING_MESSAGE
        headers: list[tuple[bytes, bytes]] = []
        if status == 429:
            reset = b"%gs" % (1 if retry_after is None else retry_after)
            headers += [(b"x-ratelimit-limit-requests", b"10000"), (b"x-ratelimit-remaining-requests", b"0")]
            headers.append((b"x-ratelimit-reset-requests", reset))
        if retry_after is not None:
            headers.append((b"retry-after", b"%g" % retry_after))
        return Refusal(status, message, kind, code=code or usual_code, headers=tuple(headers))


def _failure(status: int) -> tuple[str, str | None, str]:
    return _FAILURES.get(status, _SERVER_ERROR if status >= 500 else _FAILURES[400])


def _authenticate(call: Call) -> None:
    key = call.bearer()
    if key is None:
        raise Refusal(401, _NO_KEY, "invalid_request_error")
    if key == "bad-key":
        raise Refusal(401, _BAD_KEY, "invalid_request_error", code="invalid_api_key")


def _common_headers(call: Call) -> tuple[tuple[bytes, bytes], ...]:
    spent = b"%d" % max(1, (time.perf_counter() - call.started) * 1000)
    return (
        (b"x-request-id", fresh_id("req_").encode()),
        (b"openai-processing-ms", spent),
        *_VERSION_HEADERS,
    )


def _model(name: str) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": 1767225600,
        "owned_by": "sandbox",
        "shutdown_date": None,
    }
