"""The OpenAI wire protocol beside text: speech (`/audio/speech`), transcription (`/audio/transcriptions`),
pictures (`/images/generations`), moderation (`/moderations`) and embedding (`/embeddings`)."""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Mapping
from typing import Any

from routing.providers import endpoint, problems, replies
from routing.providers.openai_compatible import (
    AUTH,
    body_of,
    classify,
    cost_of,
    headers_of,
    is_batch_rate,
    post,
    renamed,
    usage_of,
)
from routing.providers.parameters import accepted
from routing.providers.wire import HttpRequest, HttpResponse
from routing.values import Call, Media, Reply, Usage

_SPEECH_PARAMETERS = frozenset({"response_format", "speed", "instructions", "language", "voice_id"})
_TRANSCRIPTION_PARAMETERS = frozenset(
    {
        *("language", "prompt", "temperature", "response_format", "timestamp_granularities", "include"),
        "chunking_strategy",
    }
)
_IMAGE_PARAMETERS = frozenset(
    {
        *("size", "quality", "style", "background", "moderation", "output_format", "output_compression"),
        "response_format",
    }
)
_EMBEDDING_PARAMETERS = frozenset({"dimensions", "output_dimension", "encoding_format"})

_TOLD = ("language", "duration", "segments", "words")  # of a transcript, beside its text
_SILENCE = Media(b"", "application/octet-stream")


class Speech:
    """`POST /audio/speech`: audio bytes, or Mistral's JSON with base64 in it. Billed by characters."""

    def encode(self, call: Call, key: str | None) -> HttpRequest:
        provider = call.route.provider
        payload: dict[str, Any] = {"model": call.route.model.model_id, "input": call.user}
        payload |= renamed(accepted(call, _SPEECH_PARAMETERS), provider)
        if call.voice is not None and "voice_id" not in payload:
            payload[endpoint.setting(provider, "voice_field", "voice")] = call.voice
        return post(provider, key, "audio/speech", payload)

    def decode(self, response: HttpResponse, call: Call) -> Reply:
        if response.status >= 400:
            raise classify(response)
        content_type = response.headers.get("content-type", "")
        audio = response.body
        if "json" in content_type.lower():
            audio, content_type = replies.decoded(response, body_of(response).get("audio_data")), ""
        media_type = replies.audio_type(audio, content_type)
        if not audio or media_type is None:
            raise problems.unreadable(response, f"it holds no audio (content type {content_type!r})")
        return Reply(
            usage=Usage(characters=len(call.user)),
            artifact=audio,
            media_type=media_type,
            request_id=problems.request_id(response.headers),
        )


class Transcription:
    """`POST /audio/transcriptions`. The rendered user template is a hint of style and of names, if it says
    anything. Billed by tokens or by the second; where the answer does not say, a WAV file's length counts."""

    def encode(self, call: Call, key: str | None) -> HttpRequest:
        provider = call.route.provider
        fields: dict[str, Any] = {"model": call.route.model.model_id}
        if call.user.strip():
            fields["prompt"] = call.user
        fields |= renamed(accepted(call, _TRANSCRIPTION_PARAMETERS), provider)
        return endpoint.upload(
            provider,
            key,
            "audio/transcriptions",
            fields,
            call.audio or _SILENCE,
            auth=AUTH,
            headers=headers_of(provider),
        )

    def decode(self, response: HttpResponse, call: Call) -> Reply:
        if response.status >= 400:
            raise classify(response)
        if "json" not in response.headers.get("content-type", "json").lower():
            plain = response.body.decode("utf-8-sig", "replace").strip()
            return self._reply(response, call, plain, {})
        body = body_of(response)
        text = body.get("text")
        if not isinstance(text, str):
            raise problems.unreadable(response, "it holds no text")
        return self._reply(response, call, text.strip(), body)

    @staticmethod
    def _reply(response: HttpResponse, call: Call, text: str, body: Mapping[str, Any]) -> Reply:
        told = {name: body[name] for name in _TOLD if body.get(name) is not None}
        return Reply(
            usage=_heard(body, call, text),
            text=text,
            data=told or None,
            request_id=problems.request_id(response.headers),
        )


class Image:
    """`POST /images/generations`: base64, or the address of the picture, which is still to be fetched."""

    def encode(self, call: Call, key: str | None) -> HttpRequest:
        provider = call.route.provider
        payload: dict[str, Any] = {"model": call.route.model.model_id, "prompt": call.user}
        payload |= renamed(accepted(call, _IMAGE_PARAMETERS), provider)
        return post(provider, key, "images/generations", payload)

    def decode(self, response: HttpResponse, call: Call) -> Reply:
        body = body_of(response)
        pictures = body.get("data")
        picture = pictures[0] if isinstance(pictures, list) and pictures else None
        if not isinstance(pictures, list) or not isinstance(picture, Mapping):
            raise problems.unreadable(response, "it holds no picture")
        said = picture.get("revised_prompt")
        reply = Reply(
            usage=_drawn(body, len(pictures)),
            data={"revised_prompt": said} if isinstance(said, str) else None,
            served_model=replies.word(body.get("model")),
            request_id=problems.request_id(response.headers),
        )
        return replies.with_picture(reply, response, picture.get("b64_json"), picture.get("url"))


class Moderation:
    """`POST /moderations`. The answer carries no usage, so tokens are estimated; OpenAI bills none."""

    def encode(self, call: Call, key: str | None) -> HttpRequest:
        accepted(call, frozenset())
        payload = {"model": call.route.model.model_id, "input": call.user}
        return post(call.route.provider, key, "moderations", payload)

    def decode(self, response: HttpResponse, call: Call) -> Reply:
        body = body_of(response)
        results = body.get("results")
        verdict = results[0] if isinstance(results, list) and results else None
        if not isinstance(verdict, Mapping) or not isinstance(verdict.get("categories"), Mapping):
            raise problems.unreadable(response, "it holds no moderation result")
        categories = {str(name): bool(hit) for name, hit in verdict["categories"].items()}
        flagged = verdict.get("flagged")  # Mistral leaves it to the reader of its categories
        scores = verdict.get("category_scores")
        return Reply(
            usage=replies.filled(usage_of(body), call, None),
            flagged=flagged if isinstance(flagged, bool) else any(categories.values()),
            data={"categories": categories, "category_scores": scores if isinstance(scores, Mapping) else {}},
            served_model=replies.word(body.get("model")),
            response_id=replies.word(body.get("id")),
            request_id=problems.request_id(response.headers),
        )


class Embedding:
    """`POST /embeddings`, one vector per text, in the order of the texts."""

    def encode(self, call: Call, key: str | None) -> HttpRequest:
        provider = call.route.provider
        payload: dict[str, Any] = {"model": call.route.model.model_id, "input": list(call.texts) or call.user}
        payload |= renamed(accepted(call, _EMBEDDING_PARAMETERS), provider)
        return post(provider, key, "embeddings", payload)

    def decode(self, response: HttpResponse, call: Call) -> Reply:
        body = body_of(response)
        rows = body.get("data")
        rows = [row for row in rows if isinstance(row, Mapping)] if isinstance(rows, list) else []
        rows.sort(key=lambda row: replies.count(row, "index") or 0)
        vectors = tuple(_vector(row.get("embedding")) for row in rows)
        return replies.embedding_reply(response, call, vectors, usage_of(body), body)


def _heard(body: Mapping[str, Any], call: Call, text: str) -> Usage:
    """What a transcription consumed: tokens, or seconds of sound."""
    raw = body.get("usage")
    seconds = replies.number(raw, "seconds")
    if seconds is None:
        seconds = replies.number(body, "duration")
    entered, left = replies.count(raw, "input_tokens"), replies.count(raw, "output_tokens")
    if seconds is None and entered is None:
        return replies.heard(call, text)
    return Usage(
        input_tokens=entered,
        output_tokens=left,
        seconds=seconds,
        raw=raw if isinstance(raw, Mapping) else None,
        cost_usd=cost_of(raw),
    )


def _drawn(body: Mapping[str, Any], images: int) -> Usage:
    raw = body.get("usage")
    return Usage(
        input_tokens=replies.count(raw, "input_tokens"),
        output_tokens=replies.count(raw, "output_tokens"),
        cached_tokens=replies.count(raw, "input_tokens_details", "cached_tokens"),
        images=images,
        raw=raw if isinstance(raw, Mapping) else None,
        batch_rate=is_batch_rate(body),
        cost_usd=cost_of(raw),
    )


def _vector(value: Any) -> tuple[float, ...]:
    """A list of numbers, or base64 of little-endian float32; () where it is neither."""
    if isinstance(value, str):
        try:
            packed = base64.b64decode(value, validate=True)
            value = list(struct.unpack(f"<{len(packed) // 4}f", packed))
        except (binascii.Error, struct.error):
            return ()
    return replies.vector(value)
