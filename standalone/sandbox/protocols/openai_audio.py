"""OpenAI's ``/v1/audio/transcriptions``."""

import asyncio
from collections.abc import Mapping
from typing import Any

from standalone.sandbox.forms import Form, read_form
from standalone.sandbox.protocols import openai_fields as fields
from standalone.sandbox.speech.transcript import hear, seconds_of
from standalone.sandbox.tokens import count_tokens
from standalone.sandbox.values import Answer, Call, json_answer

_FORMATS = ("json", "text", "srt", "verbose_json", "vtt")
_KINDS = ("flac", "mp3", "mp4", "mpeg", "mpga", "m4a", "ogg", "wav", "webm")
_TOKENS_PER_SECOND = 10


async def transcription(call: Call) -> Answer:
    form = read_form(call)
    if form is None:
        message = "Could not parse multipart form: the Content-Type has no boundary."
        raise fields.refuse(None, None, message)
    model = fields.required_model(form.fields)
    _check_file(form)
    wanted = fields.choice(form.fields, "response_format", _FORMATS) or "json"
    text = await asyncio.to_thread(hear, form.file, model)
    seconds = seconds_of(form.file)
    if wanted in ("text", "srt", "vtt"):
        return Answer(200, b"text/plain; charset=utf-8", (_as_text(wanted, text, seconds).encode(),))
    document: dict[str, Any] = {"text": text, "usage": _usage(model, text, seconds)}
    if wanted == "verbose_json":
        segment = {"id": 0, "start": 0.0, "end": seconds, "text": text}
        document |= {"task": "transcribe", "language": "english", "duration": seconds, "segments": [segment]}
    return json_answer(document)


def _check_file(form: Form) -> None:
    if form.filename is None:
        raise fields.refuse("file", "missing_required_parameter", "Missing required parameter: 'file'.")
    if form.filename.rpartition(".")[2].lower() not in _KINDS:
        message = f"Invalid file format. Supported formats: {list(_KINDS)}"
        raise fields.refuse("file", "unsupported_value", message)
    if not form.file:
        raise fields.refuse("file", None, "Audio file is too short. Minimum audio length is 0.1 seconds.")


def _usage(model: str, text: str, seconds: float) -> Mapping[str, Any]:
    """The older models are billed by the second, the others by tokens."""
    if model.startswith("whisper"):
        return {"type": "duration", "seconds": max(1, round(seconds))}
    heard, written = max(1, round(seconds * _TOKENS_PER_SECOND)), count_tokens(text)
    return {
        "type": "tokens",
        "input_tokens": heard,
        "input_token_details": {"text_tokens": 0, "audio_tokens": heard},
        "output_tokens": written,
        "total_tokens": heard + written,
    }


def _as_text(wanted: str, text: str, seconds: float) -> str:
    if wanted == "text":
        return text + "\n"
    comma = "," if wanted == "srt" else "."
    span = f"00:00:00{comma}000 --> {_clock(seconds, comma)}"
    return f"1\n{span}\n{text}\n\n" if wanted == "srt" else f"WEBVTT\n\n{span}\n{text}\n\n"


def _clock(seconds: float, comma: str) -> str:
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    whole = int(rest)
    return f"{hours:02}:{minutes:02}:{whole:02}{comma}{int((rest - whole) * 1000):03}"
