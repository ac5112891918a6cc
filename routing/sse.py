"""Server-sent events, as they come in: bytes in any pieces → events.

Providers differ in what the WHATWG grammar leaves open: line ends are LF, CRLF or CR, and the last event may
lack its blank line where the connection just ends.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event; `name` is "message" where it has none."""

    name: str
    data: str


class EventReader:
    """Reads one stream."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._rest: list[str] = []  # of a line; joined once it ends, lest a long one be copied for each piece
        self._name = ""
        self._data: list[str] = []

    def feed(self, piece: bytes) -> Iterator[ServerEvent]:
        """The events that are complete with `piece`."""
        yield from self._lines(self._decoder.decode(piece))

    def end(self) -> Iterator[ServerEvent]:
        """What the end of the stream completes."""
        yield from self._lines(self._decoder.decode(b"", final=True) + "\n\n")

    def _lines(self, text: str) -> Iterator[ServerEvent]:
        self._rest.append(text)
        if "\n" not in text and "\r" not in text and not self._rest[0].endswith("\r"):
            return
        whole = "".join(self._rest)
        held = "\r" if whole.endswith("\r") else ""  # a line feed may follow
        whole = whole.removesuffix("\r")
        *lines, last = whole.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        self._rest = [last + held]
        for line in lines:
            event = self._line(line)
            if event is not None:
                yield event

    def _line(self, line: str) -> ServerEvent | None:
        if not line:
            event = ServerEvent(self._name or "message", "\n".join(self._data)) if self._data else None
            self._name, self._data = "", []
            return event
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
        elif field == "event":
            self._name = value
        return None
