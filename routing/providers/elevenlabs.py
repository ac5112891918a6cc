"""The ElevenLabs protocol: speech (`/v1/text-to-speech/{voice}`) and transcription (`/v1/speech-to-text`).
The base URL is the host."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote, urlencode

from routing import media
from routing.errors import (
    AuthFailed,
    BadRequest,
    ConfigurationError,
    NotFound,
    Overloaded,
    ProviderError,
    QuotaExhausted,
    RateLimited,
    TooLarge,
)
from routing.providers import endpoint, problems, replies
from routing.providers.parameters import accepted
from routing.providers.problems import Problem
from routing.providers.wire import HttpRequest, HttpResponse
from routing.values import Call, Media, Provider, Reply, Usage

_AUTH = "xi-api-key"

_SETTINGS = frozenset({"stability", "similarity_boost", "style", "use_speaker_boost", "speed"})
_IN_QUERY = frozenset({"output_format", "enable_logging"})
_IN_BODY = frozenset(
    {
        *("language_code", "seed", "previous_text", "next_text", "apply_text_normalization"),
        "pronunciation_dictionary_locators",
    }
)
_SPEECH_PARAMETERS = frozenset(
    {*_SETTINGS, *_IN_QUERY, *_IN_BODY, "voice_settings", "response_format", "language"}
)
_TRANSCRIPTION_PARAMETERS = frozenset(
    {
        *("language", "language_code", "diarize", "num_speakers", "tag_audio_events", "temperature"),
        "timestamps_granularity",
    }
)
# Formats by the names of other protocols, in qualities that every plan of the vendor's may use.
_FORMATS = {"wav": "wav_24000", "mp3": "mp3_44100_128", "pcm": "pcm_24000", "opus": "opus_48000_64"}
_FORMAT = re.compile(r"(mp3|opus|pcm|wav|ulaw|alaw)_(\d+)")
_MEDIA_TYPES = {"mp3": "audio/mpeg", "opus": "audio/ogg", "wav": "audio/wav", "pcm": "audio/wav"}
_SILENCE = Media(b"", "application/octet-stream")
_TOLD = ("language_code", "language_probability", "words")  # of a transcript, beside its text

_CLASSES: Mapping[str, type[ProviderError]] = {
    "text_too_long": TooLarge,
    "max_character_limit_exceeded": TooLarge,
    "request_too_large": TooLarge,
    "quota_exceeded": QuotaExhausted,
    "insufficient_credits": QuotaExhausted,
    "voice_not_found": NotFound,
    "model_not_found": NotFound,
    "unsupported_model": NotFound,
    "invalid_api_key": AuthFailed,
    "missing_api_key": AuthFailed,
    "subscription_required": AuthFailed,
    "feature_not_available": AuthFailed,
    "voice_access_denied": AuthFailed,
    "model_access_denied": AuthFailed,
    "rate_limit_exceeded": RateLimited,
    "concurrent_limit_exceeded": RateLimited,
    "too_many_concurrent_requests": RateLimited,
    "system_busy": Overloaded,
    "service_unavailable": Overloaded,
    "maintenance": Overloaded,
    "conflict": BadRequest,
    "already_running": BadRequest,
}


class Speech:
    """`POST /v1/text-to-speech/{voice}`. Billed by the character; the cost that the vendor counts, in its
    credits, is kept with the raw usage. Bare samples become a WAV file."""

    def encode(self, call: Call, key: str | None) -> HttpRequest:
        parameters = accepted(call, _SPEECH_PARAMETERS)
        provider = call.route.provider
        if not call.voice:
            raise ConfigurationError(
                f"Provider {provider.slug!r} needs a voice for model {call.route.model.model_id!r}. Put the "
                "id of one as `voice` into its default_parameters or the assignment's parameters."
            )
        output_format = _format(parameters)
        query = {name: parameters[name] for name in _IN_QUERY if name in parameters}
        if output_format is not None:
            query["output_format"] = output_format
        given = parameters.get("voice_settings")
        voice = {name: value for name, value in parameters.items() if name in _SETTINGS}
        voice |= given if isinstance(given, Mapping) else {}
        payload: dict[str, Any] = {"text": call.user, "model_id": call.route.model.model_id}
        if "language" in parameters:
            payload["language_code"] = parameters["language"]
        payload |= {name: value for name, value in parameters.items() if name in _IN_BODY}
        if voice:
            payload["voice_settings"] = voice
        path = f"v1/text-to-speech/{quote(call.voice, safe='')}?{urlencode(query)}"
        return endpoint.post(_host(provider), key, path, payload, auth=_AUTH)

    def decode(self, response: HttpResponse, call: Call) -> Reply:
        if response.status >= 400:
            raise classify(response)
        container, rate = _made(_format(call.parameters))
        declared = response.headers.get("content-type", "")
        sound = response.body
        if "json" in declared.lower() or declared.startswith("text/") or not sound:
            raise problems.unreadable(response, f"it holds no audio (content type {declared!r})")
        media_type = media.audio_type(sound)
        if media_type is None and container == "pcm":
            sound = media.wav(sound, rate)
        credits = response.headers.get("character-cost")
        return Reply(
            usage=Usage(
                characters=len(call.user), raw=None if credits is None else {"character-cost": credits[:20]}
            ),
            artifact=sound,
            media_type=media_type or _MEDIA_TYPES.get(container) or replies.audio_type(sound, declared),
            request_id=problems.request_id(response.headers),
        )


class Transcription:
    """`POST /v1/speech-to-text`. Billed by the second of sound."""

    def encode(self, call: Call, key: str | None) -> HttpRequest:
        parameters = accepted(call, _TRANSCRIPTION_PARAMETERS)
        language = parameters.pop("language", None)
        fields: dict[str, Any] = {"model_id": call.route.model.model_id}
        if language is not None:
            fields["language_code"] = language
        provider = _host(call.route.provider)
        return endpoint.upload(
            provider, key, "v1/speech-to-text", {**fields, **parameters}, call.audio or _SILENCE, auth=_AUTH
        )

    def decode(self, response: HttpResponse, call: Call) -> Reply:
        if response.status >= 400:
            raise classify(response)
        body = replies.json_object(response)
        text = body.get("text")
        if not isinstance(text, str):
            raise problems.unreadable(response, "it holds no text")
        seconds = replies.number(body, "audio_duration_secs")
        told = {name: body[name] for name in _TOLD if body.get(name) is not None}
        return Reply(
            usage=replies.heard(call, text) if seconds is None else Usage(seconds=seconds),
            text=text.strip(),
            data=told or None,
            request_id=problems.request_id(response.headers),
        )


def probe(provider: Provider, key: str | None) -> HttpRequest:
    """`GET /v1/user`: free, and 401 for a bad key, but also for a good one that may only speak."""
    return endpoint.get(
        _host(provider), key, endpoint.setting(provider, "models_path", "v1/user"), auth=_AUTH
    )


def second_probe(provider: Provider, key: str | None) -> HttpRequest:
    """`GET /v1/models`: what a key may see that may only speak."""
    return endpoint.get(_host(provider), key, "v1/models", auth=_AUTH)


def classify(response: HttpResponse) -> ProviderError:
    """The error an answer of status 4xx or 5xx stands for. Older answers keep its code in `status`."""
    problem = problems.read(response)
    facts = problem.details or {}
    code = problem.code or replies.word(facts.get("status")) or ""
    named = replace(problem, code=code)
    return problems.error(_class(named), named)


def _class(problem: Problem) -> type[ProviderError]:
    if problem.status >= 500 and problem.status != 503:
        return problems.by_status(problem.status)
    return _CLASSES.get(problem.code) or problems.by_status(problem.status)


def _format(parameters: Mapping[str, Any]) -> str | None:
    """The wanted `output_format`, where need be by the name that other protocols have for it."""
    wanted = parameters.get("output_format") or parameters.get("response_format")
    return None if wanted is None else _FORMATS.get(str(wanted), str(wanted))


def _made(output_format: str | None) -> tuple[str, int]:
    """Container and rate of a format such as `pcm_24000`."""
    found = _FORMAT.match(output_format or "")
    return (found.group(1), int(found.group(2))) if found else ("", 0)


def _host(provider: Provider) -> Provider:
    """Tolerates a base URL with the `/v1` that other protocols want."""
    return replace(provider, base_url=provider.base_url.rstrip("/").removesuffix("/v1"))
