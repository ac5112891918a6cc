"""OpenAI's ``/v1/embeddings``, ``/v1/moderations`` and ``/v1/audio/speech``."""

import asyncio
import base64
import sys
from array import array
from collections.abc import Mapping
from typing import Any

from standalone.sandbox.embeddings import embed
from standalone.sandbox.moderation import CATEGORIES, judge
from standalone.sandbox.protocols import openai_fields as fields
from standalone.sandbox.speech import SpeechUnavailable, as_pcm, as_wav, speak
from standalone.sandbox.speech.transcript import with_text
from standalone.sandbox.speech.voices import VOICES, Voice, custom_voice
from standalone.sandbox.tokens import count_tokens
from standalone.sandbox.values import Answer, Call, Refusal, fresh_id, json_answer

_EMBEDDING_FIELDS = frozenset(("model", "input", "dimensions", "encoding_format", "user"))
_MODERATION_FIELDS = frozenset(("model", "input"))
_SPEECH_FIELDS = frozenset(
    ("model", "input", "voice", "response_format", "speed", "instructions", "stream_format")
)
_MAX_INPUTS = 2048
_MAX_CHARACTERS = 4096
_DIMENSIONS = {"text-embedding-3-large": 3072}
_DEFAULT_DIMENSIONS = 1536
_FORMATS = ("wav", "pcm")


async def embeddings(_: Call, body: fields.Body) -> Answer:
    model = fields.required_model(body)
    inputs = _embedding_inputs(fields.required(body, "input"))
    fields.reject_unknown(body, _EMBEDDING_FIELDS)
    native = _DIMENSIONS.get(model, _DEFAULT_DIMENSIONS)
    dimensions = fields.integer(body, "dimensions", 1, native) or native
    as_base64 = fields.choice(body, "encoding_format", ("float", "base64")) == "base64"
    data = []
    for index, text in enumerate(inputs):
        vector = embed(text, dimensions)
        encoded = _base64(vector) if as_base64 else vector.tolist()
        data.append({"object": "embedding", "index": index, "embedding": encoded})
        if index % 16 == 15:
            await asyncio.sleep(0)  # a list of 2,048 texts must not hold up everybody else's calls
    tokens = sum(map(count_tokens, inputs))
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return json_answer({"object": "list", "model": model, "data": data, "usage": usage})


def _embedding_inputs(value: object) -> list[str]:
    """One text per vector. A list of numbers is one input that was tokenised by the client."""
    inputs = [value] if isinstance(value, str) or _is_tokens(value) else value
    if not isinstance(inputs, list):
        raise fields.wrong_type("input", "a string or an array", value)
    if not inputs:
        raise fields.refuse("input", "empty_array", "Invalid 'input': expected a non-empty array.")
    if len(inputs) > _MAX_INPUTS:
        message = f"Invalid 'input': array too long. Expected an array with maximum length {_MAX_INPUTS}."
        raise fields.refuse("input", "array_above_max_length", message)
    return [_embedding_text(one, index) for index, one in enumerate(inputs)]


def _embedding_text(value: object, index: int) -> str:
    if _is_tokens(value):
        return " ".join(map(str, value))  # type: ignore[call-overload]  # a list, as just checked
    if not isinstance(value, str):
        raise fields.wrong_type(f"input[{index}]", "a string or an array of integers", value)
    if not value:
        message = f"Invalid 'input[{index}]': input cannot be an empty string."
        raise fields.refuse("input", "empty_string", message)
    return value


def _is_tokens(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(type(one) is int for one in value)


def _base64(vector: "array[float]") -> str:
    """Little-endian float32, whatever this machine's order is."""
    values = vector[:]
    if sys.byteorder == "big":
        values.byteswap()
    return base64.b64encode(values.tobytes()).decode()


async def moderation(_: Call, body: fields.Body) -> Answer:
    model = body.get("model", "omni-moderation-latest")
    if not isinstance(model, str):
        raise fields.wrong_type("model", "a string", model)
    groups = _moderation_groups(fields.required(body, "input"))
    fields.reject_unknown(body, _MODERATION_FIELDS)
    results = [_moderation_result(text, images) for text, images in groups]
    return json_answer({"id": fresh_id("modr-"), "model": model, "results": results})


def _moderation_result(text: str, images: int) -> dict[str, Any]:
    verdict = judge(text)
    applied = ["text", "image"] if images else ["text"]
    return {
        "flagged": verdict.flagged,
        "categories": {name: name in verdict.hits for name in CATEGORIES},
        "category_scores": verdict.scores,
        "category_applied_input_types": dict.fromkeys(CATEGORIES, applied),
    }


def _moderation_groups(value: object) -> list[tuple[str, int]]:
    """(text, number of pictures) per result: each string is judged alone, a list of parts as one message."""
    if isinstance(value, str):
        return [(value, 0)]
    if not isinstance(value, list) or not value:
        raise fields.wrong_type("input", "a string or a non-empty array", value)
    if all(isinstance(one, str) for one in value):
        return [(one, 0) for one in value]
    texts, images = [], 0
    for index, part in enumerate(value):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind == "image_url" and isinstance(part.get("image_url"), dict):
            images += 1
        else:
            raise fields.invalid_value(f"input[{index}].type", kind, ("text", "image_url"))
    return [("\n".join(texts), images)]


async def speech(_: Call, body: fields.Body) -> Answer:
    """Speak the text. The default format is wav, not OpenAI's mp3: no compressed format is offered here."""
    fields.required_model(body)
    text = fields.required(body, "input")
    if not isinstance(text, str):
        raise fields.wrong_type("input", "a string", text)
    _check_length(text)
    voice = _voice(fields.required(body, "voice"))
    fields.reject_unknown(body, _SPEECH_FIELDS)
    wanted = fields.choice(body, "response_format", _FORMATS) or "wav"
    fields.choice(body, "stream_format", ("audio",))
    speed = fields.number(body, "speed", 0.25, 4.0) or 1.0
    try:
        # Synthesis takes milliseconds to tenths of a second: elsewhere than on the loop that serves
        # everybody.
        recording = await asyncio.to_thread(speak, text, voice, speed)
        if wanted == "pcm":
            return Answer(200, b"audio/pcm", (await asyncio.to_thread(as_pcm, recording),))
        spoken = with_text(await asyncio.to_thread(as_wav, recording), text)
        return Answer(200, b"audio/wav", (spoken,))
    except SpeechUnavailable as error:
        raise Refusal(500, str(error), "server_error") from error


def _check_length(text: str) -> None:
    if not text.strip():
        message = "Invalid 'input': string too short. Expected a string with minimum length 1."
        raise fields.refuse("input", "string_below_min_length", message)
    if len(text) > _MAX_CHARACTERS:
        message = (
            f"Invalid 'input': string too long. Expected a string with maximum length {_MAX_CHARACTERS}, "
            f"but got a string with length {len(text)} instead."
        )
        raise fields.refuse("input", "string_above_max_length", message)


def _voice(value: object) -> Voice:
    if isinstance(value, Mapping) and isinstance(value.get("id"), str):
        return custom_voice(value["id"])
    if isinstance(value, str) and value in VOICES:
        return VOICES[value]
    raise fields.invalid_value("voice", value, tuple(VOICES))
