"""Group commit of endings: many jobs of a process end in one transaction.

There is no thread of its own: a thread that finds nobody at it takes the lead, what arrives meanwhile waits
for the next one. Flushes begin at least `PACE_SECONDS` apart, unless a group is full or nothing else is in
flight: so an idle process adds no delay, and a busy one makes larger groups (a group of four costs PostgreSQL
0.1 ms a job, a group of one 0.3 ms).
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from store.database import UNAVAILABLE, Pool, is_refusal
from workers import jobs
from workers.jobs import Completion

MOST = 50
"""Jobs of one transaction, at most."""

PACE_SECONDS = 0.005
"""From the beginning of a flush to that of the next, where more jobs are in flight."""


@dataclass(slots=True)
class _Entry:
    completion: Completion
    woken: threading.Event = field(default_factory=threading.Event)
    leads: bool = False
    ended: bool = False
    error: Exception | None = None


class Completer:
    """Ends jobs. Thread-safe. `in_flight` counts the process's jobs that may yet come here."""

    def __init__(self, pool: Pool, in_flight: Callable[[], int]) -> None:
        self._pool = pool
        self._in_flight = in_flight
        self._lock = threading.Lock()
        self._waiting: deque[_Entry] = deque()
        self._enough = threading.Condition(self._lock)
        self._busy = False
        self._next = 0.0  # when the next flush may begin with a group that is not full

    def complete(self, completion: Completion) -> bool:
        """End a job durably; False where its lease is no longer ours. Returns once it is committed.

        Raises what kept this very job from being recorded (psycopg.Error, mostly); the others of its group
        are not concerned.
        """
        entry = _Entry(completion)
        with self._lock:
            self._waiting.append(entry)
            entry.leads, self._busy = not self._busy, True
            if self._is_enough():
                self._enough.notify()
        if not entry.leads:
            entry.woken.wait()
        if entry.leads:
            self._lead()
        if entry.error is not None:
            raise entry.error
        return entry.ended

    def _lead(self) -> None:
        """Flush one group, ours among it, and hand the lead to the first of those who came meanwhile."""
        with self._lock:
            self._enough.wait_for(self._is_enough, timeout=self._next - time.monotonic())
            self._next = time.monotonic() + PACE_SECONDS
            group = [self._waiting.popleft() for _ in range(min(MOST, len(self._waiting)))]
        try:
            self._flush(group)
        finally:
            with self._lock:
                heir = self._waiting[0] if self._waiting else None
                self._busy = heir is not None
            if heir is not None:
                heir.leads = True
                heir.woken.set()
            for entry in group:
                entry.woken.set()

    def _is_enough(self) -> bool:
        return len(self._waiting) >= min(MOST, self._in_flight())

    def _flush(self, group: Sequence[_Entry]) -> None:
        try:
            with self._pool.connection() as db:
                ended = jobs.complete(db, [entry.completion for entry in group])
        except Exception as error:
            if isinstance(error, UNAVAILABLE) and not is_refusal(error):
                for entry in group:
                    entry.error = error
            elif len(group) == 1:
                group[0].error = error
            else:  # one row is refused: let it fail alone
                for entry in group:
                    self._flush([entry])
        else:
            for entry in group:
                entry.ended = entry.completion.job.id in ended
