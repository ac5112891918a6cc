"""Reading successful answers: tolerant of everything but the answer itself missing."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NoReturn

from routing import estimate
from routing.errors import ContentPolicy, EmptyReply, TooLarge
from routing.providers.problems import brief, request_id, unreadable
from routing.providers.wire import HttpResponse
from routing.values import Call, FinishReason, Reply, Usage

_FENCE = re.compile(r"\A```[\w-]*\n(.*)\n```\Z", re.DOTALL)
_AUDIO_MAGIC = (
    (b"RIFF", "audio/wav"),
    (b"ID3", "audio/mpeg"),
    (b"\xff\xfb", "audio/mpeg"),
    (b"\xff\xf3", "audio/mpeg"),
    (b"OggS", "audio/ogg"),
    (b"fLaC", "audio/flac"),
)


def json_object(response: HttpResponse) -> Mapping[str, Any]:
    """The JSON object in the body, behind any keep-alive blank and `:` comment lines.

    Raises ServerError where there is none.
    """
    text = response.body.decode("utf-8-sig", "replace").strip()
    while text.startswith(":"):
        text = text.partition("\n")[2].strip()
    value = parse(text)
    if not isinstance(value, Mapping):
        raise unreadable(response, f"its body is no JSON object: {text[:200] or 'it is empty'}")
    return value


def parse(text: str) -> Any:
    """The JSON value of `text`, None where it is none. Numbers must be finite: a database refuses others."""
    try:
        return _DECODER.decode(text)
    except (ValueError, RecursionError):
        return None


def text_of(content: Any) -> str:
    """The text of a `content` member: a string, or a list of chunks of which the text ones count."""
    if isinstance(content, str):
        return content
    chunks = content if isinstance(content, list) else []
    texts = (_chunk(chunk) for chunk in chunks)
    return "".join(texts)


def count(source: Any, *path: str) -> int | None:
    """A non-negative whole number at `path`, or None."""
    value = source
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**53:
        return None
    return int(value)


def word(value: Any) -> str | None:
    """A short text, or None."""
    return value[:200] if isinstance(value, str) and value else None


def text_reply(
    response: HttpResponse,
    call: Call,
    *,
    text: str,
    usage: Usage,
    finish: FinishReason,
    raw_finish: str | None,
    body: Mapping[str, Any],
    refusal: str | None = None,
) -> Reply:
    """A text answer, with missing usage estimated.

    Raises ContentPolicy for a refusal, TooLarge where the answer's token limit was spent before any text
    came (on reasoning; the same call would end the same way, a backup may do better), EmptyReply for an
    answer that is empty for no reason.
    """
    usage = filled(usage, call, text)
    status, support_id = response.status, request_id(response.headers)
    if refusal is not None or finish is FinishReason.CONTENT_FILTER:
        reason = brief(f"The model refused to answer: {refusal or raw_finish}")
        raise ContentPolicy(reason, status=status, request_id=support_id, usage=usage)
    if not text.strip():
        if finish is FinishReason.LENGTH:
            raise TooLarge(
                "The answer's token limit was spent before any text was written (on reasoning). Raise "
                "max_tokens or lower reasoning_effort.",
                status=status,
                request_id=support_id,
                usage=usage,
            )
        reason = f"The answer holds no text (finish reason {raw_finish!r})."
        raise EmptyReply(reason, status=status, request_id=support_id, usage=usage)
    return Reply(
        usage=usage,
        text=text,
        data=_data(text),
        finish_reason=finish,
        finish_reason_raw=raw_finish,
        served_model=word(body.get("model")),
        response_id=word(body.get("id")),
        request_id=support_id,
    )


def filled(usage: Usage, call: Call, text: str | None) -> Usage:
    """`usage` with estimates where the provider did not say; `text` None = nothing was to be written."""
    missing_output = usage.output_tokens is None and text is not None
    if usage.input_tokens is not None and not missing_output:
        return usage
    entered = estimate.prompt_tokens(call) if usage.input_tokens is None else usage.input_tokens
    written = estimate.tokens(text or "") if missing_output else usage.output_tokens
    return replace(usage, input_tokens=entered, output_tokens=written, estimated=True)


def audio_type(audio: bytes, content_type: str) -> str | None:
    """Media type of `audio`: what its first bytes say, else the header; None where it is no audio."""
    for magic, media_type in _AUDIO_MAGIC:
        if audio.startswith(magic):
            return media_type
    declared = content_type.partition(";")[0].strip().lower()
    if declared.startswith("audio/"):
        return declared
    return None if declared.startswith(("text/", "application/json")) else "application/octet-stream"


def _data(text: str) -> Mapping[str, Any] | None:
    stripped = text.strip()
    fenced = _FENCE.match(stripped)
    written = fenced.group(1).strip() if fenced else stripped
    value = parse(written) if written.startswith("{") else None
    return value if isinstance(value, Mapping) else None


def _chunk(chunk: Any) -> str:
    if isinstance(chunk, Mapping) and chunk.get("type", "text") in ("text", "output_text"):
        text = chunk.get("text")
        return text if isinstance(text, str) else ""
    return chunk if isinstance(chunk, str) else ""


def _finite(digits: str) -> float:
    number = float(digits)
    return number if math.isfinite(number) else _refuse(digits)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


_DECODER = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite)
