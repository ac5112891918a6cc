"""The OpenAI wire protocol as OpenAI and a dozen compatible vendors speak it: text and vision, by
`/chat/completions`. Its other endpoints are in `openai_media` and `openai_responses`.

Settings of a provider beside those in `endpoint`:
    max_tokens_field: auto | max_tokens | max_completion_tokens.
    system_role: system | developer.
    structured_output: json_schema | json_object | none, what of `response_format` the vendor knows.
    parameter_names: the vendor's names for parameters, such as {"seed": "random_seed"}.
    models_path: what is asked to test a key.
    end_user_field: where a pseudonym of the end user goes. Only OpenAI itself gets one by default, some
        vendors refuse the member.
    voice_field: where a voice's name goes, by default `voice`.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from decimal import Decimal
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
from routing.providers.parameters import accepted, wanted_schema
from routing.providers.problems import Problem
from routing.providers.wire import HttpRequest, HttpResponse
from routing.values import Call, FinishReason, Media, Provider, Reply, Usage

AUTH = "Authorization: Bearer"
_MOST_DOLLARS = 1_000_000  # of one call; more is no price

_CHAT_PARAMETERS = frozenset(
    {
        *("max_tokens", "max_completion_tokens", "temperature", "top_p", "top_k", "presence_penalty"),
        *("frequency_penalty", "stop", "seed", "random_seed", "response_format", "reasoning_effort"),
        *("verbosity", "service_tier", "store", "metadata", "logit_bias", "prompt_cache_key"),
        *("prompt_cache_options", "image_detail"),
    }
)
_BATCH_TIERS = ("flex", "batch")  # billed as a batch

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
    """`POST /chat/completions`, with or without pictures."""

    def encode(self, call: Call, key: str | None) -> HttpRequest:
        provider = call.route.provider
        payload = {"model": call.route.model.model_id, "messages": _messages(call)}
        parameters = accepted(call, _CHAT_PARAMETERS)
        parameters.pop("image_detail", None)
        payload |= renamed(_formatted(_limited(parameters, provider), provider), provider)
        payload |= end_user(call)
        return post(provider, key, "chat/completions", payload)

    def decode(self, response: HttpResponse, call: Call) -> Reply:
        body = body_of(response)
        choices = body.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, Mapping):
            raise problems.unreadable(response, "it holds no choices")
        if choice.get("error"):
            raise classified(problems.read(response, {"error": choice["error"]}))
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
            usage=usage_of(body),
            finish=_FINISH.get(raw_finish, FinishReason.OTHER),
            raw_finish=raw_finish,
            body=body,
            refusal=replies.word(message.get("refusal")),
        )


def probe(provider: Provider, key: str | None) -> HttpRequest:
    """`GET /models`: free, and 401 for a bad key."""
    path = endpoint.setting(provider, "models_path", "models")
    return endpoint.get(provider, key, path, auth=AUTH, headers=headers_of(provider))


def classify(response: HttpResponse) -> ProviderError:
    """The error an answer of status 4xx or 5xx stands for."""
    return classified(problems.read(response))


def classified(problem: Problem) -> ProviderError:
    """The error that an error answer, once read, stands for."""
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


# --- what the protocol's endpoints have in common -----------------------------------------------------


def body_of(response: HttpResponse) -> Mapping[str, Any]:
    """The answer's object. Raises the error it stands for, also where gateways put one into a 200."""
    if response.status >= 400:
        raise classify(response)
    body = replies.json_object(response)
    if body.get("error"):
        raise classified(problems.read(response, body))
    return body


def post(provider: Provider, key: str | None, path: str, payload: Mapping[str, Any]) -> HttpRequest:
    """A JSON POST as this protocol sends it."""
    return endpoint.post(provider, key, path, payload, auth=AUTH, headers=headers_of(provider))


def headers_of(provider: Provider) -> dict[str, str]:
    """The protocol's own headers."""
    return {"openai-organization": provider.organization} if provider.organization else {}


def renamed(parameters: Mapping[str, Any], provider: Provider) -> dict[str, Any]:
    """The parameters under the names that the vendor has for them."""
    names = endpoint.texts(provider, "parameter_names")
    return {names.get(name, name): value for name, value in parameters.items()}


def end_user(call: Call) -> dict[str, Any]:
    """The member that holds the end user's pseudonym, where the vendor takes one."""
    provider = call.route.provider
    field = endpoint.setting(provider, "end_user_field", "safety_identifier" if is_openai(provider) else "")
    return {field: call.end_user} if field and call.end_user else {}


def data_url(image: Media) -> str:
    """A picture as an address that holds it."""
    return f"data:{image.media_type};base64,{base64.b64encode(image.body).decode()}"


def cost_of(raw: Any) -> Decimal | None:
    """The dollars that a gateway says it took, as `usage.cost`."""
    cost = raw.get("cost") if isinstance(raw, Mapping) else None
    if isinstance(cost, bool) or not isinstance(cost, int | float) or not 0 <= cost < _MOST_DOLLARS:
        return None
    return Decimal(str(cost))


def usage_of(body: Mapping[str, Any]) -> Usage:
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
        batch_rate=is_batch_rate(body),
        cost_usd=cost_of(raw),
    )


def is_batch_rate(body: Mapping[str, Any]) -> bool:
    """Whether the tier that served the call is billed as a batch."""
    return body.get("service_tier") in _BATCH_TIERS


def is_openai(provider: Provider) -> bool:
    """Whether the provider is OpenAI itself."""
    host = endpoint.hostname(provider)
    return host == "api.openai.com" or host.endswith(".api.openai.com")


def _messages(call: Call) -> list[dict[str, Any]]:
    role = endpoint.setting(call.route.provider, "system_role", "system")
    system = [{"role": role, "content": call.system}] if call.system else []
    history = [{"role": turn.role, "content": turn.content} for turn in call.history]
    return [*system, *history, {"role": "user", "content": _content(call)}]


def _content(call: Call) -> str | list[dict[str, Any]]:
    if not call.images:
        return call.user
    detail = call.parameters.get("image_detail")
    extra = {} if detail is None else {"detail": detail}
    text = [{"type": "text", "text": call.user}] if call.user.strip() else []
    pictures = [
        {"type": "image_url", "image_url": {"url": data_url(image), **extra}} for image in call.images
    ]
    return [*text, *pictures]


def _limited(parameters: dict[str, Any], provider: Provider) -> dict[str, Any]:
    """`max_tokens` under the name this provider wants: reasoning models refuse the old one, most compatible
    vendors do not know the new one. A `max_completion_tokens` set by name stays as it is."""
    limit = parameters.pop("max_tokens", None)
    field = endpoint.setting(provider, "max_tokens_field", "auto")
    if field == "auto":
        field = "max_completion_tokens" if is_openai(provider) else "max_tokens"
    if limit is None or "max_completion_tokens" in parameters:
        return parameters
    return {**parameters, field: limit}


def _formatted(parameters: dict[str, Any], provider: Provider) -> dict[str, Any]:
    """A wanted schema, as far as the vendor can be told of it."""
    known = endpoint.setting(provider, "structured_output", "json_schema")
    if known == "json_schema" or wanted_schema(parameters) is None:
        return parameters
    rest = {name: value for name, value in parameters.items() if name != "response_format"}
    return {**rest, "response_format": {"type": "json_object"}} if known == "json_object" else rest
