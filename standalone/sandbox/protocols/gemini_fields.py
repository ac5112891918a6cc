"""How Google checks a request's fields, and the message it makes of them."""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from standalone.sandbox.prose.prompt import Prompt
from standalone.sandbox.values import Refusal

Body = Mapping[str, Any]


@dataclass(frozen=True)
class Contents:
    """What was sent: the prompt, and the bytes of its recordings."""

    prompt: Prompt
    audio: tuple[bytes, ...] = field(default=(), repr=False)


def invalid(message: str) -> Refusal:
    return Refusal(400, message)


def reject_unknown(body: Body, known: frozenset[str], where: str = "") -> None:
    for name in body:
        if name not in known:
            place = f" at '{where}'" if where else ""
            problem = f'Unknown name "{name}"{place}: Cannot find field.'
            raise invalid(f"Invalid JSON payload received. {problem}")


def mapping(body: Body, name: str) -> Body:
    """The object under a name; an absent one is empty."""
    value = body.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise invalid(f"Invalid value at '{name}': a message was expected.")
    return value


def number(body: Body, name: str, low: float, high: float) -> float | None:
    """A number within bounds, or None if it is absent."""
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise invalid(f"Invalid value at 'generation_config.{name}' (TYPE_FLOAT), \"{value}\"")
    if not low <= value <= high:
        raise invalid(f"Unable to submit request because it has a {name} value of {value}: {low} to {high}.")
    return value


def read_contents(body: Body) -> Contents:
    contents = body.get("contents")
    if not isinstance(contents, list) or not contents:
        raise invalid("* GenerateContentRequest.contents: contents is not specified")
    system, _, _ = _parts(mapping(body, "systemInstruction"), "system_instruction", required=False)
    turns: list[tuple[str, str]] = []
    images = 0
    audio: list[bytes] = []
    for index, content in enumerate(contents):
        if not isinstance(content, dict):
            raise invalid(f"Invalid value at 'contents[{index}]'.")
        role = content.get("role", "user")
        if role not in ("user", "model"):
            raise invalid("Please use a valid role: user, model.")
        text, pictures, recordings = _parts(content, f"contents[{index}]")
        turns.append(("assistant" if role == "model" else "user", text))
        images += pictures
        audio += recordings
    return Contents(Prompt(system, tuple(turns), images), tuple(audio))


def _parts(content: Body, where: str, *, required: bool = True) -> tuple[str, int, list[bytes]]:
    """Text, number of pictures, and recordings."""
    parts = content.get("parts")
    if not isinstance(parts, list) or not parts:
        if required:
            raise invalid(f"* GenerateContentRequest.{where}.parts: contents.parts must not be empty.")
        return "", 0, []
    texts: list[str] = []
    images, recordings = 0, []
    for part in parts:
        if isinstance(part, dict) and isinstance(part.get("text"), str):
            texts.append(part["text"])
            continue
        data = part.get("inlineData") if isinstance(part, dict) else None
        if not isinstance(data, dict):
            raise invalid(f"* GenerateContentRequest.{where}.parts: required oneof field 'data' must be set")
        media_type, decoded = _inline(data)
        if media_type.startswith("audio/"):
            recordings.append(decoded)
        else:
            images += 1
    return "\n".join(texts), images, recordings


def _inline(data: Body) -> tuple[str, bytes]:
    media_type = data.get("mimeType")
    if not isinstance(media_type, str) or not media_type.startswith(("image/", "audio/", "application/")):
        raise invalid(f"Unsupported MIME type: {media_type}")
    try:
        return media_type, base64.b64decode(data.get("data") or "", validate=True)
    except (binascii.Error, ValueError, TypeError):
        raise invalid("Invalid value at 'data' (TYPE_BYTES), Base64 decoding failed.") from None
