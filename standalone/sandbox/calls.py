"""The log of provider calls: totals over all of them, and the last thousand one by one."""

import time
from collections import Counter, deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

_KEPT = 1000


@dataclass(slots=True)
class Entry:
    """One call. ``status`` None: the connection ended before an answer; 500 until something else is known."""

    number: int
    protocol: str
    path: str
    fault: str | None
    at: float = field(default_factory=time.time)
    model: str | None = None
    key: str | None = None
    status: int | None = 500
    milliseconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        return {
            "id": self.number,
            "at": datetime.fromtimestamp(self.at, UTC).isoformat().replace("+00:00", "Z"),
            "protocol": self.protocol,
            "path": self.path,
            "model": self.model,
            "status": self.status,
            "key": self.key,
            "ms": round(self.milliseconds, 3),
            "fault": self.fault,
        }


class CallLog:
    """Used by one event loop; a call is in it from its end on, also a failed or an abandoned one."""

    def __init__(self) -> None:
        self._last_number = 0
        self._in_flight = 0
        self._clear()

    def _clear(self) -> None:
        self._count = 0
        self._batch_lines = 0
        self._by_protocol: Counter[str] = Counter()
        self._by_model: Counter[str] = Counter()
        self._entries: deque[Entry] = deque(maxlen=_KEPT)
        self._max_in_flight = self._in_flight

    def enter(self, protocol: str, path: str, fault: str | None) -> Entry:
        self._in_flight += 1
        self._max_in_flight = max(self._max_in_flight, self._in_flight)
        return Entry(0, protocol, path, fault)

    def leave(self, entry: Entry, *, milliseconds: float) -> None:
        self._in_flight -= 1
        self._count += 1
        self._last_number += 1
        # Numbered at the end, so that `since` never skips a slow call that began earlier.
        entry.number = self._last_number
        entry.key = _masked(entry.key)
        entry.milliseconds = milliseconds
        self._by_protocol[entry.protocol] += 1
        if entry.model is not None:
            self._by_model[entry.model] += 1
        self._entries.append(entry)

    def answer_line(self) -> None:
        """Count a line of a batch as answered. It is no call."""
        self._batch_lines += 1

    def reset(self) -> None:
        """Forget all calls. Numbers go on rising, so that a ``since`` taken before stays valid."""
        self._clear()

    def as_json(self, since: int = 0, limit: int = _KEPT) -> dict[str, Any]:
        """Totals, and the last ``limit`` of the kept calls whose id is above ``since``, oldest first."""
        chosen = [entry for entry in self._entries if entry.number > since]
        return {
            "count": self._count,
            "batch_lines": self._batch_lines,
            "by_protocol": dict(self._by_protocol),
            "by_model": dict(self._by_model),
            "in_flight": self._in_flight,
            "max_in_flight": self._max_in_flight,
            "calls": [entry.as_json() for entry in chosen[max(0, len(chosen) - limit) :]],
        }


def _masked(key: str | None) -> str | None:
    """The last four characters; of a key that is no longer than that, nothing."""
    if key is None:
        return None
    return "…" + (key[-4:] if len(key) > 4 else "")
