"""The Gemini protocol of Google's Developer API: text and vision (`:generateContent`). The base URL is the
host, `api_version` the first part of the path (`v1beta` by default). Its other capabilities are in
`gemini_media`."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from routing.errors import (
    AuthFailed,
    ContentPolicy,
    EmptyReply,
    NotFound,
    ProviderError,
    QuotaExhausted,
    RateLimited,
    TimedOut,
    TooLarge,
)
from routing.providers import endpoint, problems, replies
from routing.providers.parameters import accepted, member, wanted_schema
from routing.providers.problems import Problem
from routing.providers.wire import HttpRequest, HttpResponse
from routing.values import Call, FinishReason, Media, Provider, Reply, Usage

AUTH = "x-goog-api-key"
_VERSION = "v1beta"

# Our names → theirs, in `generationConfig`.
_CONFIG = {
    "max_tokens": "maxOutputTokens",
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "stop": "stopSequences",
    "seed": "seed",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
    "thinking_config": "thinkingConfig",
    "media_resolution": "mediaResolution",
}
_BESIDE = {
    "safety_settings": "safetySettings",
    "service_tier": "serviceTier",
    "cached_content": "cachedContent",
}
_PARAMETERS = frozenset({*_CONFIG, *_BESIDE, "response_format", "reasoning_effort"})
_TIERS = ("standard", "flex", "priority")  # other protocols' tiers have other names
_LEVELS = {"none": "MINIMAL", "max": "XHIGH"}  # efforts that are levels of another name
_OURS = {
    **{theirs: ours for ours, theirs in _CONFIG.items()},
    "thinkingLevel": "reasoning_effort",
    "thinkingConfig": "reasoning_effort",
    "responseMimeType": "response_format",
    "serviceTier": "service_tier",
}
_CAMEL = re.compile(r"\b[a-z]+(?:[A-Z][a-z]+)+\b|\btop[PK]\b")

_FINISH: Mapping[str | None, FinishReason] = {
    None: FinishReason.STOP,
    "STOP": FinishReason.STOP,
    "MAX_TOKENS": FinishReason.LENGTH,
    **dict.fromkeys(
        (
            *("SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "LANGUAGE", "IMAGE_SAFETY"),
            *("IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION", "MODEL_ARMOR", "ESCALATION"),
        ),
        FinishReason.CONTENT_FILTER,
    ),
}
_TOO_LONG = ("exceeds the maximum number of tokens", "token count exceeds", "request payload size exceeds")
_RETRY_INFO = "google.rpc.RetryInfo"


class Text:
    """`:generateContent`, with or without pictures."""

    def encode(self, call: Call, key: str | None) -> HttpRequest:
        parameters = accepted(call, _PARAMETERS)
        payload: dict[str, Any] = {
            "contents": [
                *({"role": _role(turn.role), "parts": [{"text": turn.content}]} for turn in call.history),
                {"role": "user", "parts": _parts(call)},
            ]
        }
        if call.system:
            payload["systemInstruction"] = {"parts": [{"text": call.system}]}
        config = _config(parameters)
        if config:
            payload["generationConfig"] = config
        payload |= {theirs: parameters[ours] for ours, theirs in _BESIDE.items() if ours in parameters}
        if payload.get("serviceTier") not in _TIERS:
            payload.pop("serviceTier", None)
        return post(call, key, "generateContent", payload)

    def decode(self, response: HttpResponse, call: Call) -> Reply:
        answer = Candidate.of(response)
        finish = answer.finish
        if any("functionCall" in part for part in answer.parts):
            finish = FinishReason.TOOL
        reply = replies.text_reply(
            response,
            call,
            text=answer.text,
            usage=answer.usage,
            finish=finish,
            raw_finish=answer.raw_finish,
            body={"model": answer.body.get("modelVersion"), "id": answer.body.get("responseId")},
        )
        return replace(reply, request_id=reply.request_id or reply.response_id)


class Candidate:
    """The first candidate of an answer of `:generateContent`, read.

    Raises the error that the answer stands for; ContentPolicy where the prompt was blocked.
    """

    def __init__(self, response: HttpResponse, body: Mapping[str, Any], first: Mapping[str, Any]) -> None:
        content = first.get("content")
        parts = content.get("parts") if isinstance(content, Mapping) else None
        self.response = response
        self.body = body
        self.parts = [part for part in parts if isinstance(part, Mapping)] if isinstance(parts, list) else []
        self.raw_finish = replies.word(first.get("finishReason"))
        self.finish = _FINISH.get(self.raw_finish, FinishReason.OTHER)
        self.usage = usage_of(body)

    @classmethod
    def of(cls, response: HttpResponse) -> Candidate:
        """What `response` holds."""
        body = body_of(response)
        candidates = body.get("candidates")
        first = candidates[0] if isinstance(candidates, list) and candidates else None
        if isinstance(first, Mapping):
            return cls(response, body, first)
        blocked = replies.word(member(body, "promptFeedback", "blockReason"))
        if blocked is None:
            raise problems.unreadable(response, "it holds no candidates")
        message = member(body, "promptFeedback", "blockReasonMessage")
        said = f": {message}" if isinstance(message, str) else ""
        raise ContentPolicy(
            problems.brief(f"The prompt was blocked ({blocked}){said}"),
            status=response.status,
            request_id=replies.word(body.get("responseId")),
            usage=usage_of(body),
        )

    @property
    def text(self) -> str:
        """The text without the model's thoughts."""
        texts = (part.get("text") for part in self.parts if part.get("thought") is not True)
        return "".join(text for text in texts if isinstance(text, str))

    def media(self) -> list[Media]:
        """The parts that are bytes."""
        inline = [part.get("inlineData") for part in self.parts if part.get("thought") is not True]
        return [
            Media(replies.decoded(self.response, data.get("data")), str(data.get("mimeType", "")))
            for data in inline
            if isinstance(data, Mapping)
        ]

    def missing(self, what: str) -> ProviderError:
        """The error of an answer that should hold `what` and does not."""
        refused = self.finish is FinishReason.CONTENT_FILTER
        kind: type[ProviderError] = ContentPolicy if refused else EmptyReply
        said = f" It says: {self.text[:500]}" if self.text.strip() else ""
        return kind(
            problems.brief(f"The answer holds no {what} (finish reason {self.raw_finish!r}).{said}"),
            status=self.response.status,
            request_id=replies.word(self.body.get("responseId")),
            usage=self.usage,
        )


def probe(provider: Provider, key: str | None) -> HttpRequest:
    """`GET models`: free, and 400 with the reason API_KEY_INVALID for a bad key."""
    path = endpoint.setting(provider, "models_path", f"{version_of(provider)}/models?pageSize=50")
    return endpoint.get(host(provider), key, path, auth=AUTH)


def classify(response: HttpResponse) -> ProviderError:
    """The error an answer of status 4xx or 5xx stands for."""
    return _classified(problems.read(response))


def body_of(response: HttpResponse) -> Mapping[str, Any]:
    """The answer's object. Raises the error it stands for."""
    if response.status >= 400:
        raise classify(response)
    body = replies.json_object(response)
    if body.get("error"):
        raise _classified(problems.read(response, body))
    return body


def post(call: Call, key: str | None, verb: str, payload: Mapping[str, Any]) -> HttpRequest:
    """A JSON POST of `verb` to the call's model."""
    provider = call.route.provider
    path = f"{version_of(provider)}/{model_name(call)}:{verb}"
    return endpoint.post(host(provider), key, path, payload, auth=AUTH)


def model_name(call: Call) -> str:
    """The model as paths name it."""
    return f"models/{quote(call.route.model.model_id.removeprefix('models/'), safe='')}"


def inline(media: Media) -> dict[str, Any]:
    """A picture or a recording as a part of a message."""
    return {"inlineData": {"mimeType": media.media_type, "data": base64.b64encode(media.body).decode()}}


def usage_of(body: Mapping[str, Any]) -> Usage:
    """Cached tokens are part of the prompt's here, thoughts are not part of the candidates'."""
    raw = body.get("usageMetadata")
    entered = replies.count(raw, "promptTokenCount")
    written = replies.count(raw, "candidatesTokenCount")
    thought = replies.count(raw, "thoughtsTokenCount")
    return Usage(
        input_tokens=None
        if entered is None
        else entered + (replies.count(raw, "toolUsePromptTokenCount") or 0),
        output_tokens=None if written is None and thought is None else (written or 0) + (thought or 0),
        cached_tokens=replies.count(raw, "cachedContentTokenCount"),
        reasoning_tokens=thought,
        raw=raw if isinstance(raw, Mapping) else None,
    )


def _role(role: str) -> str:
    return "model" if role == "assistant" else role


def _parts(call: Call) -> list[dict[str, Any]]:
    text = [{"text": call.user}] if call.user.strip() or not call.images else []
    return [*text, *map(inline, call.images)]


def _config(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """`generationConfig`, with what other protocols have under other names."""
    config = {theirs: parameters[ours] for ours, theirs in _CONFIG.items() if ours in parameters}
    if isinstance(config.get("stopSequences"), str):
        config["stopSequences"] = [config["stopSequences"]]
    effort = parameters.get("reasoning_effort")
    if effort is not None:
        config.setdefault("thinkingConfig", {"thinkingLevel": _LEVELS.get(str(effort), str(effort).upper())})
    wanted = member(parameters, "response_format", "type")
    if wanted in ("json_object", "json_schema"):
        config["responseMimeType"] = "application/json"
    schema = wanted_schema(parameters)
    if schema is not None:
        config["responseJsonSchema"] = schema
    return config


def version_of(provider: Provider) -> str:
    """The version, as the first part of a path."""
    return quote(provider.api_version or _VERSION, safe="")


def host(provider: Provider) -> Provider:
    """Tolerates a base URL that ends in the version."""
    return replace(provider, base_url=provider.base_url.rstrip("/").removesuffix(f"/{version_of(provider)}"))


def _classified(problem: Problem) -> ProviderError:
    facts = problem.details or {}
    status_word = replies.word(facts.get("status")) or ""
    named = replace(
        problem,
        code=status_word,
        retry_after=_retry_delay(facts) if problem.retry_after is None else problem.retry_after,
    )
    ours = replace(named, message=_CAMEL.sub(lambda found: _OURS.get(found[0], found[0]), named.message))
    return problems.unsupported(ours) or problems.error(_class(named, facts), named)


def _class(problem: Problem, facts: Mapping[str, Any]) -> type[ProviderError]:
    status, message = problem.status, problem.message.lower()
    details = _details(facts)
    if status == 400 and ("API_KEY_INVALID" in _reasons(details) or "api key not valid" in message):
        return AuthFailed
    if status == 400 and problem.code == "FAILED_PRECONDITION":
        return QuotaExhausted
    if status == 400 and any(phrase in message for phrase in _TOO_LONG):
        return TooLarge
    if status == 404:
        return NotFound
    if status == 429:
        return QuotaExhausted if _is_daily(details) else RateLimited
    return TimedOut if status == 504 else problems.by_status(status)


def _details(facts: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    details = facts.get("details")
    return [one for one in details if isinstance(one, Mapping)] if isinstance(details, list) else []


def _reasons(details: list[Mapping[str, Any]]) -> set[str]:
    return {str(one.get("reason")) for one in details}


def _is_daily(details: list[Mapping[str, Any]]) -> bool:
    """Whether the quota of a day is used up: waiting a minute helps nothing."""
    violations = (one.get("violations") for one in details)
    return any(
        "PerDay" in str(violation.get("quotaId", ""))
        for found in violations
        if isinstance(found, list)
        for violation in found
        if isinstance(violation, Mapping)
    )


def _retry_delay(facts: Mapping[str, Any]) -> float | None:
    """Seconds of a RetryInfo, which writes them as `34s` or `0.5s`."""
    for one in _details(facts):
        if str(one.get("@type", "")).endswith(_RETRY_INFO):
            return problems.seconds(str(one.get("retryDelay", "")).removesuffix("s"))
    return None
