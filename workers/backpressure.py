"""How many unfinished jobs a feature may have: beyond its `max_queued`, enqueueing is refused for the moment.

The cap protects the database from a caller who enqueues faster than workers work. It is soft: each process
counts at most once a second and adds what it enqueued itself since, so several processes together may exceed
it by what they accept within that second.
"""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass

from routing.values import Feature
from store.database import Pool
from workers import jobs

_BELIEVED_SECONDS = 1.0
_COUNTING_SHARE = 0.05  # of the time may go into counting, which may read the whole live table


class QueueFull(Exception):
    """The feature has as many unfinished jobs as it may. `retry_after` in whole seconds."""

    def __init__(self, feature: Feature, *, retry_after: int) -> None:
        super().__init__(
            f"Feature {feature.name!r} has its {feature.max_queued} unfinished jobs, the most that its "
            "max_queued allows. Try again later, or raise it."
        )
        self.retry_after = retry_after


class Backpressure:
    """The counts of one process. Thread-safe."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._lock = threading.Lock()
        self._counts: dict[str, _Count] = {}

    def reserve(self, feature: Feature, jobs_more: int = 1) -> None:
        """Count `jobs_more` as enqueued. Raises QueueFull, and counts none, where they do not fit."""
        if feature.max_queued is None:
            return
        with self._lock:
            count = self._counts.get(feature.name)
            now = time.monotonic()
            if count is None or now >= count.until or count.cap != feature.max_queued:
                count = self._counts[feature.name] = self._counted(feature, feature.max_queued)
            if count.jobs + jobs_more > feature.max_queued:
                raise QueueFull(feature, retry_after=max(1, math.ceil(count.until - now)))
            count.jobs += jobs_more

    def give_back(self, feature: Feature) -> None:
        """One that was reserved is not enqueued after all."""
        with self._lock:
            if feature.name in self._counts:
                self._counts[feature.name].jobs -= 1

    def _counted(self, feature: Feature, cap: int) -> _Count:
        began = time.monotonic()
        with self._pool.connection() as db:
            unfinished = jobs.count_unfinished(db, feature.name, most=cap + 1)
        now = time.monotonic()
        return _Count(unfinished, cap, until=now + max(_BELIEVED_SECONDS, (now - began) / _COUNTING_SHARE))


@dataclass(slots=True)
class _Count:
    jobs: int
    cap: int
    until: float
