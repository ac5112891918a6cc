"""Reading successful answers: tolerant of everything but the answer itself missing."""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NoReturn

from routing import estimate, media
from routing.errors import ContentPolicy, EmptyReply, TooLarge
from routing.providers.problems import brief, request_id, unreadable
from routing.providers.wire import HttpResponse
from routing.values import Call, FinishReason, Reply, Usage

_FENCE = re.compile(r"\A```[\w-]*\n(.*)\n```\Z", re.DOTALL)


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


def number(source: Any, name: str) -> float | None:
    """A non-negative number under `name`, also where it is written as a text, or None."""
    value = source.get(name) if isinstance(source, Mapping) else None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if 0 <= found < 2**53 else None


def vector(value: Any) -> tuple[float, ...]:
    """A list of finite numbers; () where it is none."""
    numbers = value if isinstance(value, list) else []
    try:
        found = tuple(float(one) for one in numbers)
    except (TypeError, ValueError, OverflowError):
        return ()
    return found if all(map(math.isfinite, found)) else ()


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
        data=_object(text),
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
    known = media.audio_type(audio)
    if known is not None:
        return known
    declared = content_type.partition(";")[0].strip().lower()
    if declared.startswith("audio/"):
        return declared
    return None if declared.startswith(("text/", "application/json")) else "application/octet-stream"


def json_value(text: str) -> Any:
    """The JSON value that a whole text is, also with a code fence around it; None where it is none."""
    stripped = text.strip()
    fenced = _FENCE.match(stripped)
    return parse(fenced.group(1).strip() if fenced else stripped)


def decoded(response: HttpResponse, text: Any) -> bytes:
    """The bytes of a member that holds base64. Raises ServerError where it does not."""
    try:
        return base64.b64decode(text if isinstance(text, str) else "", validate=True)
    except (binascii.Error, ValueError):
        raise unreadable(response, "what should be base64 in it is none") from None


def heard(call: Call, text: str) -> Usage:
    """What transcribing the call's recording consumed, where the provider does not say: a WAV file's length,
    and the tokens of the text."""
    seconds = media.wav_seconds(call.audio.body) if call.audio else None
    return Usage(output_tokens=estimate.tokens(text), seconds=seconds, estimated=True)


def with_picture(reply: Reply, response: HttpResponse, encoded: Any, url: Any) -> Reply:
    """`reply` with the picture that is `encoded` in base64, or that lies at `url`.

    Raises ServerError where there is neither.
    """
    if isinstance(url, str) and url.startswith("data:"):
        encoded, url = url.partition(",")[2], None
    if not encoded and isinstance(url, str) and url.startswith(("http://", "https://")):
        return replace(reply, artifact_url=url)
    body = decoded(response, encoded)
    media_type = media.image_type(body)
    if media_type is None:
        raise unreadable(response, "it holds no picture")
    return replace(reply, artifact=body, media_type=media_type)


def embedding_reply(
    response: HttpResponse,
    call: Call,
    vectors: tuple[tuple[float, ...], ...],
    usage: Usage,
    body: Mapping[str, Any],
) -> Reply:
    """One vector for each text of the call. Raises ServerError where some are missing."""
    wanted = len(call.texts) or 1
    if len(vectors) != wanted or not all(vectors):
        raise unreadable(response, f"it does not hold {wanted} embedding(s)")
    return Reply(
        usage=filled(usage, call, None),
        embeddings=vectors,
        served_model=word(body.get("model")),
        response_id=word(body.get("id")),
        request_id=request_id(response.headers),
    )


def _object(text: str) -> Mapping[str, Any] | None:
    value = json_value(text) if text.lstrip()[:1] in ("{", "`") else None
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
