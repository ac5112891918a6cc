"""Text as it is written: how each protocol is asked for it, and how its events fold into one answer.

    encode ─▶ request ─▶ asked(request) ─▶ events ─▶ Folding.add ─▶ what to tell
                                              └────▶ Folding.whole ─▶ the body as if it came at once ─▶ decode

So there is one reading of usage, refusals and finish reasons, whichever way an answer comes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from routing.errors import ConnectionFailed
from routing.providers.replies import parse
from routing.providers.wire import HttpRequest
from routing.sse import ServerEvent
from routing.values import Route

CONTENT_TYPE = "text/event-stream"


class Folding(Protocol):
    """The events of one answer, put together."""

    def add(self, event: ServerEvent) -> str:
        """Take an event; the text that it adds to the answer."""

    def whole(self) -> bytes:
        """The body as if it had come at once. Raises ConnectionFailed where the stream broke off."""


@dataclass(frozen=True, slots=True)
class Stream:
    """How a protocol streams text."""

    asked: Callable[[HttpRequest, Route], HttpRequest]
    folding: Callable[[], Folding]


def stream_of(route: Route) -> Stream | None:
    """How the route's protocol streams text; None where it does not, or the model cannot."""
    if not route.model.supports_streaming:
        return None
    if route.provider.protocol == "openai_compatible" and route.model.api_style == "responses":
        return _RESPONSES
    return _STREAMS.get(route.provider.protocol)


class _Chat:
    """`chat.completion.chunk`: deltas, a finish reason, then perhaps a chunk with usage alone."""

    def __init__(self) -> None:
        self._head: dict[str, Any] = {}
        self._message: dict[str, str] = {}
        self._finish: Any = None
        self._error: Any = None
        self._is_done = False

    def add(self, event: ServerEvent) -> str:
        if event.data.strip() == "[DONE]":
            self._is_done = True
            return ""
        chunk = _object(event.data)
        gateway = chunk.get("x_groq")
        self._error = self._error or chunk.get("error") or _object(gateway).get("error")
        self._head |= {
            name: chunk[name]
            for name in ("id", "model", "usage", "x_groq", "service_tier")
            if chunk.get(name)
        }
        choices = chunk.get("choices")
        choice = _object(choices[0]) if isinstance(choices, list) and choices else {}
        self._error = self._error or choice.get("error")
        self._finish = choice.get("finish_reason") or self._finish
        delta = _object(choice.get("delta"))
        for name in ("content", "refusal"):
            if isinstance(delta.get(name), str):
                self._message[name] = self._message.get(name, "") + delta[name]
        text = delta.get("content")
        return text if isinstance(text, str) else ""

    def whole(self) -> bytes:
        if self._error is not None:
            return _bytes({"error": self._error})
        if self._finish is None and not self._is_done:
            raise _broken_off()
        choice = {
            "index": 0,
            "message": {"role": "assistant", **self._message},
            "finish_reason": self._finish,
        }
        return _bytes({**self._head, "object": "chat.completion", "choices": [choice]})


class _Responses:
    """Named events; the last one carries the whole response."""

    def __init__(self) -> None:
        self._body: Mapping[str, Any] | None = None

    def add(self, event: ServerEvent) -> str:
        found = _object(event.data)
        kind = found.get("type") or event.name
        if kind == "response.output_text.delta":
            delta = found.get("delta")
            return delta if isinstance(delta, str) else ""
        if kind in ("response.completed", "response.incomplete", "response.failed"):
            self._body = _object(found.get("response"))
        elif kind == "error":
            self._body = {"error": found.get("error") or found}
        return ""

    def whole(self) -> bytes:
        if self._body is None:
            raise _broken_off()
        return _bytes(self._body)


class _Messages:
    """Anthropic's: a message that starts, blocks with deltas, cumulative usage, `message_stop`."""

    def __init__(self) -> None:
        self._message: dict[str, Any] = {}
        self._text: list[str] = []
        self._error: Mapping[str, Any] | None = None
        self._is_done = False

    def add(self, event: ServerEvent) -> str:
        found = _object(event.data)
        kind = found.get("type") or event.name
        if kind == "message_start":
            self._message = dict(_object(found.get("message")))
        elif kind == "content_block_delta":
            delta = _object(found.get("delta"))
            text = delta.get("text") if delta.get("type") == "text_delta" else None
            if isinstance(text, str):
                self._text.append(text)
                return text
        elif kind == "message_delta":
            self._message |= _object(found.get("delta"))
            usage = {**_object(self._message.get("usage")), **_object(found.get("usage"))}
            self._message["usage"] = usage
        elif kind == "message_stop":
            self._is_done = True
        elif kind == "error":
            self._error = found
        return ""

    def whole(self) -> bytes:
        if self._error is not None:
            return _bytes(self._error)
        if not self._is_done:
            raise _broken_off()
        content = [{"type": "text", "text": "".join(self._text)}]
        return _bytes({**self._message, "content": content})


class _Fragments:
    """Gemini's: each event is a response with a part of the text; the last one has the finish reason."""

    def __init__(self) -> None:
        self._head: dict[str, Any] = {}
        self._candidate: dict[str, Any] = {}
        self._parts: list[Any] = []
        self._error: Any = None

    def add(self, event: ServerEvent) -> str:
        fragment = _object(event.data)
        self._error = self._error or fragment.get("error")
        self._head |= {name: value for name, value in fragment.items() if name != "candidates"}
        candidates = fragment.get("candidates")
        candidate = _object(candidates[0]) if isinstance(candidates, list) and candidates else {}
        self._candidate |= {name: value for name, value in candidate.items() if name != "content"}
        parts = _object(candidate.get("content")).get("parts")
        added = [part for part in parts if isinstance(part, Mapping)] if isinstance(parts, list) else []
        self._parts += added
        texts = (part.get("text") for part in added if not part.get("thought"))
        return "".join(text for text in texts if isinstance(text, str))

    def whole(self) -> bytes:
        if self._error is not None:
            return _bytes({"error": self._error})
        if not self._candidate.get("finishReason") and "promptFeedback" not in self._head:
            raise _broken_off()
        content = {"role": "model", "parts": self._parts}
        candidates = [{**self._candidate, "content": content}] if self._candidate else []
        return _bytes({**self._head, "candidates": candidates})


def _ask_chat(request: HttpRequest, route: Route) -> HttpRequest:
    wanted: dict[str, Any] = {"stream": True}
    if route.provider.settings.get("supports_stream_usage", True):
        wanted["stream_options"] = {"include_usage": True}
    return _asking(request, wanted)


def _ask(request: HttpRequest, route: Route) -> HttpRequest:
    return _asking(request, {"stream": True})


def _ask_gemini(request: HttpRequest, route: Route) -> HttpRequest:
    path, _, query = request.url.partition("?")
    address = path.replace(":generateContent", ":streamGenerateContent")
    return _asking(replace(request, url=f"{address}?{'&'.join(filter(None, (query, 'alt=sse')))}"), {})


def _asking(request: HttpRequest, members: Mapping[str, Any]) -> HttpRequest:
    """The request with members added. Uncompressed: a compressor may hold back what it has."""
    headers = {**request.headers, "accept": CONTENT_TYPE, "accept-encoding": "identity"}
    body = _bytes({**json.loads(request.body), **members}) if members else request.body
    return replace(request, headers=headers, body=body)


_RESPONSES = Stream(_ask, _Responses)
_STREAMS: Mapping[str, Stream] = {
    "openai_compatible": Stream(_ask_chat, _Chat),
    "anthropic": Stream(_ask, _Messages),
    "gemini": Stream(_ask_gemini, _Fragments),
}


def _object(value: Any) -> Mapping[str, Any]:
    found = parse(value) if isinstance(value, str) else value
    return found if isinstance(found, Mapping) else {}


def _bytes(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def _broken_off() -> ConnectionFailed:
    return ConnectionFailed("The stream of the answer ended before its end.")
