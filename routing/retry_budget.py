"""How many retries a provider gets: a fifth of the calls, so that retries never multiply an outage."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import UUID

_WINDOW = 60.0  # seconds
_FLOOR = 3  # retries a window holds however few the calls


@dataclass(slots=True)
class _Recent:
    calls: deque[float] = field(default_factory=deque)
    retries: deque[float] = field(default_factory=deque)


class RetryBudget:
    """Retries on the same route, per provider and process: at most `ratio` of the calls of the last minute,
    three at least. Calls of a failover do not spend it. Thread-safe."""

    def __init__(self, *, ratio: float = 0.2, clock: Callable[[], float] = time.monotonic) -> None:
        self._ratio = ratio
        self._clock = clock
        self._lock = threading.Lock()
        self._recent: dict[UUID, _Recent] = {}

    def called(self, provider_id: UUID) -> None:
        """A call was made."""
        with self._lock:
            self._current(provider_id).calls.append(self._clock())

    def take(self, provider_id: UUID) -> bool:
        """Spend one retry; False where none is left."""
        with self._lock:
            recent = self._current(provider_id)
            if len(recent.retries) >= max(_FLOOR, self._ratio * len(recent.calls)):
                return False
            recent.retries.append(self._clock())
            return True

    def _current(self, provider_id: UUID) -> _Recent:
        recent = self._recent.setdefault(provider_id, _Recent())
        horizon = self._clock() - _WINDOW
        for times in (recent.calls, recent.retries):
            while times and times[0] <= horizon:
                times.popleft()
        return recent
