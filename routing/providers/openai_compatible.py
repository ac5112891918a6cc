"""The OpenAI wire protocol as OpenAI and a dozen compatible vendors speak it.

Text (`/chat/completions`), speech (`/audio/speech`), moderation (`/moderations`), embedding (`/embeddings`).
Settings of a provider beside those in `endpoint`: `max_tokens_field` (auto | max_tokens |
max_completion_tokens), `system_role` (system | developer), `models_path`, `end_user_field` (where a
pseudonym of the end user goes; only OpenAI itself gets one by default, some vendors refuse the member).
"""

from __future__ import annotations

import base64
import binascii
import math
import struct
from collections.abc import Mapping
from typing import Any

from routing.errors import (
    ContentPolicy,
    NotFound,
    Overloaded,
    ProviderError,
    QuotaExhausted,
    ServerError,
    TooLarge,
)
from routing.providers import endpoint, problems, replies
from routing.providers.parameters import accepted
from routing.providers.problems import Problem
from routing.providers.wire import HttpRequest, HttpResponse
from routing.values import Call, FinishReason, Provider, Reply, Usage

_AUTH = "Authorization: Bearer"

_CHAT_PARAMETERS = frozenset(
    {
        *("max_tokens", "max_completion_tokens", "temperature", "top_p", "top_k", "presence_penalty"),
        *("frequency_penalty", "stop", "seed", "random_seed", "response_format", "reasoning_effort"),
        *("verbosity", "service_tier", "store", "metadata", "logit_bias", "prompt_cache_key"),
        "prompt_cache_options",
    }
)
_SPEECH_PARAMETERS = frozenset({"response_format", "speed", "instructions", "language", "voice_id"})
_EMBEDDING_PARAMETERS = frozenset({"dimensions", "output_dimension", "encoding_format"})
_NONE_PORTABLE: frozenset[str] = frozenset()

_FINISH = {
    None: FinishReason.STOP,  # some vendors leave it out of a complete answer
    "stop": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "model_length": FinishReason.LENGTH,
    "content_filter": FinishReason.CONTENT_FILTER,
    "tool_calls": FinishReason.TOOL,
    "function_call": FinishReason.TOOL,
}
_FAILED_FINISH: Mapping[str, type[ProviderError]] = {
    "error": ServerError,
    "insufficient_system_resource": Overloaded,
}

_BILLING = frozenset(
    {
        *("insufficient_quota", "credit_balance_exhausted", "organization_spend_limit_exceeded"),
        *("project_spend_limit_exceeded", "organization_usage_limit_exceeded", "billing_hard_limit_reached"),
    }
)
_POLICY = frozenset(
    {
        *("content_policy_violation", "moderation_blocked", "image_content_policy_violation"),
        *("content_filter", "invalid_prompt"),
    }
)
_TOO_LONG = frozenset({"context_length_exceeded", "string_above_max_length"})
_NO_MODEL = frozenset({"model_not_found", "unsupported_model", "invalid_model", "model_not_supported"})
_TOO_LONG_TEXT = (
    *("maximum context length", "context length", "context window", "too many tokens", "prompt is too long"),
    *("input is too long", "max_model_len"),
)
# Machine words of errors that come inside a 200, where no status speaks.
_STATUS_OF = {
    "invalid_api_key": 401,
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "invalid_request_error": 400,
    "rate_limit_exceeded": 429,
    "rate_limit_error": 429,
    "server_is_overloaded": 503,
    "service_unavailable_error": 503,
    "overloaded_error": 503,
}


class Text:
    """`POST /chat/completions`."""

    def encode(self, call: Call, key: str | None) -> HttpRequest:
        provider = call.route.provider
        payload = {"model": call.route.model.model_id, "messages": _messages(call)}
        payload |= _limited(accepted(call, _CHAT_PARAMETERS), provider)
        field = endpoint.setting(
            provider, "end_user_field", "safety_identifier" if _is_openai(provider) else ""
        )
        if field and call.end_user:
            payload[field] = call.end_user
        return _post(provider, key, "chat/completions", payload)

    def decode(self, response: HttpResponse, call: Call) -> Reply:
        body = _body(response)
        choices = body.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, Mapping):
            raise problems.unreadable(response, "it holds no choices")
        if choice.get("error"):
            raise _classified(problems.read(response, {"error": choice["error"]}))
        message = choice.get("message")
        message = message if isinstance(message, Mapping) else {}
        raw_finish = replies.word(choice.get("finish_reason"))
        failed = _FAILED_FINISH.get(raw_finish or "")
        if failed is not None:
            raise failed(f"The answer broke off: finish reason {raw_finish!r}.", status=response.status)
        return replies.text_reply(
            response,
            call,
            text=replies.text_of(message.get("content")),
            usage=_usage(body),
            finish=_FINISH.get(raw_finish, FinishReason.OTHER),
            raw_finish=raw_finish,
            body=body,
            refusal=replies.word(message.get("refusal")),
        )


class Speech:
    """`POST /audio/speech`: audio bytes, or Mistral's JSON with base64 in it. Billed by characters."""

    def encode(self, call: Call, key: str | None) -> HttpRequest:
        payload: dict[str, Any] = {"model": call.route.model.model_id, "input": call.user}
        payload |= accepted(call, _SPEECH_PARAMETERS, portable=_NONE_PORTABLE)
        if call.voice is not None and "voice_id" not in payload:
            payload["voice"] = call.voice
        return _post(call.route.provider, key, "audio/speech", payload)

    def decode(self, response: HttpResponse, call: Call) -> Reply:
        if response.status >= 400:
            raise classify(response)
        content_type = response.headers.get("content-type", "")
        audio = response.body
        if "json" in content_type.lower():
            audio, content_type = _audio_data(response), ""
        media_type = replies.audio_type(audio, content_type)
        if not audio or media_type is None:
            raise problems.unreadable(response, f"it holds no audio (content type {content_type!r})")
        return Reply(
            usage=Usage(characters=len(call.user)),
            audio=audio,
            media_type=media_type,
            request_id=problems.request_id(response.headers),
        )


class Moderation:
    """`POST /moderations`. The answer carries no usage, so tokens are estimated; OpenAI bills none."""

    def encode(self, call: Call, key: str | None) -> HttpRequest:
        accepted(call, frozenset(), portable=_NONE_PORTABLE)
        payload = {"model": call.route.model.model_id, "input": call.user}
        return _post(call.route.provider, key, "moderations", payload)

    def decode(self, response: HttpResponse, call: Call) -> Reply:
        body = _body(response)
        results = body.get("results")
        verdict = results[0] if isinstance(results, list) and results else None
        if not isinstance(verdict, Mapping) or not isinstance(verdict.get("categories"), Mapping):
            raise problems.unreadable(response, "it holds no moderation result")
        categories = {str(name): bool(hit) for name, hit in verdict["categories"].items()}
        flagged = verdict.get("flagged")  # Mistral leaves it to the reader of its categories
        scores = verdict.get("category_scores")
        return Reply(
            usage=replies.filled(_usage(body), call, None),
            flagged=flagged if isinstance(flagged, bool) else any(categories.values()),
            data={"categories": categories, "category_scores": scores if isinstance(scores, Mapping) else {}},
            served_model=replies.word(body.get("model")),
            response_id=replies.word(body.get("id")),
            request_id=problems.request_id(response.headers),
        )


class Embedding:
    """`POST /embeddings`, one vector per text, in the order of the texts."""

    def encode(self, call: Call, key: str | None) -> HttpRequest:
        payload: dict[str, Any] = {"model": call.route.model.model_id, "input": list(call.texts) or call.user}
        payload |= accepted(call, _EMBEDDING_PARAMETERS, portable=_NONE_PORTABLE)
        return _post(call.route.provider, key, "embeddings", payload)

    def decode(self, response: HttpResponse, call: Call) -> Reply:
        body = _body(response)
        rows = body.get("data")
        rows = [row for row in rows if isinstance(row, Mapping)] if isinstance(rows, list) else []
        rows.sort(key=lambda row: replies.count(row, "index") or 0)
        vectors = tuple(_vector(row.get("embedding")) for row in rows)
        wanted = len(call.texts) or 1
        if len(vectors) != wanted or not all(vectors):
            raise problems.unreadable(response, f"it does not hold {wanted} embedding(s)")
        return Reply(
            usage=replies.filled(_usage(body), call, None),
            embeddings=vectors,
            served_model=replies.word(body.get("model")),
            response_id=replies.word(body.get("id")),
            request_id=problems.request_id(response.headers),
        )


def probe(provider: Provider, key: str | None) -> HttpRequest:
    """`GET /models`: free, and 401 for a bad key."""
    path = endpoint.setting(provider, "models_path", "models")
    return endpoint.get(provider, key, path, auth=_AUTH, headers=_headers(provider))


def classify(response: HttpResponse) -> ProviderError:
    """The error an answer of status 4xx or 5xx stands for."""
    return _classified(problems.read(response))


def _classified(problem: Problem) -> ProviderError:
    return problems.unsupported(problem) or problems.error(_class(problem), problem)


def _class(problem: Problem) -> type[ProviderError]:
    words, status = problem.words, problem.status
    if status < 400:  # an error inside a 200
        status = next((_STATUS_OF[word] for word in words if word in _STATUS_OF), 500)
        status = 429 if words & _BILLING else 400 if words & (_POLICY | _TOO_LONG | _NO_MODEL) else status
    if status >= 500:
        return problems.by_status(status)
    if words & _BILLING:
        return QuotaExhausted
    if words & _POLICY or (status == 403 and _moderated(problem)):
        return ContentPolicy
    if status in (400, 413, 422) and (words & _TOO_LONG or _says(problem, _TOO_LONG_TEXT)):
        return TooLarge
    return NotFound if words & _NO_MODEL else problems.by_status(status)


def _moderated(problem: Problem) -> bool:
    """OpenRouter's 403 for a prompt that its guardrails stopped."""
    metadata = (problem.details or {}).get("metadata")
    return isinstance(metadata, Mapping) and bool({"reasons", "flagged_input"} & set(metadata))


def _says(problem: Problem, phrases: tuple[str, ...]) -> bool:
    message = problem.message.lower()
    return any(phrase in message for phrase in phrases)


def _body(response: HttpResponse) -> Mapping[str, Any]:
    """The answer's object. Raises the error it stands for, also where gateways put one into a 200."""
    if response.status >= 400:
        raise classify(response)
    body = replies.json_object(response)
    if body.get("error"):
        raise _classified(problems.read(response, body))
    return body


def _post(provider: Provider, key: str | None, path: str, payload: Mapping[str, Any]) -> HttpRequest:
    return endpoint.post(provider, key, path, payload, auth=_AUTH, headers=_headers(provider))


def _headers(provider: Provider) -> dict[str, str]:
    return {"openai-organization": provider.organization} if provider.organization else {}


def _is_openai(provider: Provider) -> bool:
    host = endpoint.hostname(provider)
    return host == "api.openai.com" or host.endswith(".api.openai.com")


def _messages(call: Call) -> list[dict[str, str]]:
    role = endpoint.setting(call.route.provider, "system_role", "system")
    system = [{"role": role, "content": call.system}] if call.system else []
    history = [{"role": turn.role, "content": turn.content} for turn in call.history]
    return [*system, *history, {"role": "user", "content": call.user}]


def _limited(parameters: dict[str, Any], provider: Provider) -> dict[str, Any]:
    """`max_tokens` under the name this provider wants: reasoning models refuse the old one, most compatible
    vendors do not know the new one. A `max_completion_tokens` set by name stays as it is."""
    limit = parameters.pop("max_tokens", None)
    field = endpoint.setting(provider, "max_tokens_field", "auto")
    if field == "auto":
        field = "max_completion_tokens" if _is_openai(provider) else "max_tokens"
    if limit is None or "max_completion_tokens" in parameters:
        return parameters
    return {**parameters, field: limit}


def _usage(body: Mapping[str, Any]) -> Usage:
    """Cached and reasoning tokens are part of the totals here."""
    gateway = body.get("x_groq")
    raw = body.get("usage") or (gateway.get("usage") if isinstance(gateway, Mapping) else None)
    cached = replies.count(raw, "prompt_tokens_details", "cached_tokens")
    return Usage(
        input_tokens=replies.count(raw, "prompt_tokens"),
        output_tokens=replies.count(raw, "completion_tokens"),
        cached_tokens=replies.count(raw, "prompt_cache_hit_tokens") if cached is None else cached,
        cache_write_tokens=replies.count(raw, "prompt_tokens_details", "cache_write_tokens"),
        reasoning_tokens=replies.count(raw, "completion_tokens_details", "reasoning_tokens"),
        raw=raw if isinstance(raw, Mapping) else None,
    )


def _audio_data(response: HttpResponse) -> bytes:
    data = _body(response).get("audio_data")
    try:
        return base64.b64decode(data if isinstance(data, str) else "", validate=True)
    except binascii.Error:
        raise problems.unreadable(response, "its audio_data is no base64") from None


def _vector(value: Any) -> tuple[float, ...]:
    """A list of numbers, or base64 of little-endian float32; () where it is neither."""
    if isinstance(value, str):
        try:
            packed = base64.b64decode(value, validate=True)
            value = list(struct.unpack(f"<{len(packed) // 4}f", packed))
        except (binascii.Error, struct.error):
            return ()
    numbers = value if isinstance(value, list) else []
    try:
        vector = tuple(float(number) for number in numbers)
    except (TypeError, ValueError, OverflowError):
        return ()
    return vector if all(map(math.isfinite, vector)) else ()
