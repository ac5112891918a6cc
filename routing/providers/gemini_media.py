"""The Gemini protocol beside text: speech, transcription and pictures are answers of `:generateContent`,
embedding has calls of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from routing import media
from routing.providers import problems, replies
from routing.providers.gemini import Candidate, body_of, inline, model_name, post, usage_of
from routing.providers.parameters import accepted
from routing.providers.wire import HttpRequest, HttpResponse
from routing.values import Call, Media, Reply

_SPEECH_PARAMETERS = frozenset({"style", "language", "speech_config"})
_TRANSCRIPTION_PARAMETERS = frozenset({"temperature", "max_tokens"})
_IMAGE_PARAMETERS = frozenset({"size", "aspect_ratio", "image_size"})
_EMBEDDING_PARAMETERS = frozenset({"dimensions", "task_type", "title"})

# The protocol has no call for it: this sentence is the call, where the assignment's prompt says nothing.
_TRANSCRIBE = "Write down word for word what is said in this recording, and nothing else."
_SILENCE = Media(b"", "audio/wav")

_PCM_RATE = 24_000
_RATE = re.compile(r"rate=(\d{4,6})")
_SIZE = re.compile(r"(\d+)x(\d+)")
_RATIOS = ("1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "21:9")
_PIXELS = ((1536, None), (2560, "2K"), (10**9, "4K"))  # the longer side, up to which a size of theirs does


class Speech:
    """Text read aloud; always a WAV file, whatever the model sends. `style` says how, where a model asks."""

    def encode(self, call: Call, key: str | None) -> HttpRequest:
        parameters = accepted(call, _SPEECH_PARAMETERS)
        part: dict[str, Any] = {"text": call.user}
        if "style" in parameters:
            part["speechMetadata"] = {"style": parameters["style"]}
        speech: dict[str, Any] = {}
        if "language" in parameters:
            speech["languageCode"] = parameters["language"]
        if call.voice is not None:
            speech["voiceConfig"] = {"prebuiltVoiceConfig": {"voiceName": call.voice}}
        given = parameters.get("speech_config")
        speech |= given if isinstance(given, Mapping) else {}
        config: dict[str, Any] = {"responseModalities": ["AUDIO"]}
        if speech:
            config["speechConfig"] = speech
        contents = [{"role": "user", "parts": [part]}]
        return post(call, key, "generateContent", {"contents": contents, "generationConfig": config})

    def decode(self, response: HttpResponse, call: Call) -> Reply:
        answer = Candidate.of(response)
        pieces = answer.media()
        sound = b"".join(piece.body for piece in pieces)
        if not sound:
            raise answer.missing("audio")
        media_type = media.audio_type(sound)
        if media_type is None:
            sound, media_type = media.wav(sound, _rate(pieces[0].media_type)), "audio/wav"
        usage = replies.filled(replace(answer.usage, characters=len(call.user)), call, None)
        return replace(_reply(answer), usage=usage, artifact=sound, media_type=media_type)


class Transcription:
    """What a recording says. The rendered user template asks for it, if it says anything."""

    def encode(self, call: Call, key: str | None) -> HttpRequest:
        parameters = accepted(call, _TRANSCRIPTION_PARAMETERS)
        parts = [{"text": call.user if call.user.strip() else _TRANSCRIBE}, inline(call.audio or _SILENCE)]
        payload: dict[str, Any] = {"contents": [{"role": "user", "parts": parts}]}
        if call.system:
            payload["systemInstruction"] = {"parts": [{"text": call.system}]}
        names = {"temperature": "temperature", "max_tokens": "maxOutputTokens"}
        config = {names[name]: value for name, value in parameters.items()}
        if config:
            payload["generationConfig"] = config
        return post(call, key, "generateContent", payload)

    def decode(self, response: HttpResponse, call: Call) -> Reply:
        answer = Candidate.of(response)
        if not answer.text.strip() and answer.raw_finish not in (None, "STOP"):
            raise answer.missing("text")
        usage = replies.filled(answer.usage, call, answer.text)
        seconds = media.wav_seconds(call.audio.body) if call.audio else None
        return replace(_reply(answer), usage=replace(usage, seconds=seconds), text=answer.text.strip())


class Image:
    """A picture. A `size` in pixels becomes the nearest shape and resolution that the protocol knows."""

    def encode(self, call: Call, key: str | None) -> HttpRequest:
        parameters = accepted(call, _IMAGE_PARAMETERS)
        shape = _shape(str(parameters.get("size", "")))
        shape |= {
            theirs: parameters[ours]
            for ours, theirs in (("aspect_ratio", "aspectRatio"), ("image_size", "imageSize"))
            if ours in parameters
        }
        config: dict[str, Any] = {"responseModalities": ["TEXT", "IMAGE"]}
        if shape:
            config["imageConfig"] = shape
        contents = [{"role": "user", "parts": [{"text": call.user}]}]
        return post(call, key, "generateContent", {"contents": contents, "generationConfig": config})

    def decode(self, response: HttpResponse, call: Call) -> Reply:
        answer = Candidate.of(response)
        pictures = [piece for piece in answer.media() if media.image_type(piece.body)]
        if not pictures:
            raise answer.missing("picture")
        usage = replace(replies.filled(answer.usage, call, None), images=len(pictures))
        body = pictures[-1].body  # those before it are drafts
        return replace(_reply(answer), usage=usage, artifact=body, media_type=media.image_type(body))


class Embedding:
    """`:embedContent`, or `:batchEmbedContents` for several texts: one vector per text."""

    def encode(self, call: Call, key: str | None) -> HttpRequest:
        parameters = accepted(call, _EMBEDDING_PARAMETERS)
        names = {"dimensions": "outputDimensionality", "task_type": "taskType", "title": "title"}
        wanted = {names[name]: value for name, value in parameters.items()}
        requests = [
            {"model": model_name(call), "content": {"parts": [{"text": text}]}, **wanted}
            for text in call.texts or (call.user,)
        ]
        if call.texts:
            return post(call, key, "batchEmbedContents", {"requests": requests})
        return post(call, key, "embedContent", requests[0])

    def decode(self, response: HttpResponse, call: Call) -> Reply:
        body = body_of(response)
        rows = body.get("embeddings") if call.texts else [body.get("embedding")]
        vectors = tuple(
            replies.vector(row.get("values")) if isinstance(row, Mapping) else ()
            for row in (rows if isinstance(rows, list) else [])
        )
        return replies.embedding_reply(response, call, vectors, usage_of(body), body)


def _reply(answer: Candidate) -> Reply:
    response_id = replies.word(answer.body.get("responseId"))
    return Reply(
        usage=answer.usage,
        finish_reason=answer.finish,
        finish_reason_raw=answer.raw_finish,
        served_model=replies.word(answer.body.get("modelVersion")),
        response_id=response_id,
        request_id=problems.request_id(answer.response.headers) or response_id,
    )


def _rate(media_type: str) -> int:
    found = _RATE.search(media_type)
    return int(found.group(1)) if found else _PCM_RATE


def _shape(size: str) -> dict[str, Any]:
    """`imageConfig` for a size such as 1536x1024; {} where it names none."""
    found = _SIZE.fullmatch(size)
    width, height = (int(found.group(1)), int(found.group(2))) if found else (0, 0)
    if not width or not height:
        return {}
    ratio = min(_RATIOS, key=lambda one: abs(width / height - _quotient(one)))
    resolution = next(name for most, name in _PIXELS if max(width, height) <= most)
    return {"aspectRatio": ratio} | ({} if resolution is None else {"imageSize": resolution})


def _quotient(ratio: str) -> float:
    width, height = ratio.split(":")
    return int(width) / int(height)
