"""Doorbells that follow an enqueue at once, as far as a lane's window has room; the feeder rings the rest."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

from store.database import UNAVAILABLE, Pool
from workers.doorbells import Doorbells
from workers.jobs import take_unrung, unring

_ROOM_SECONDS = 0.1  # how long a count of waiting doorbells is believed
_AGAIN_SECONDS = 60.0  # a doorbell this old was lost: the feeder's own patience while others wait


@dataclass(slots=True)
class _Room:
    until: float
    left: int


class Window:
    """The lanes' windows, as one process sees them. Thread-safe.

    Args:
        size: doorbells that may wait in a lane.
    """

    def __init__(self, pool: Pool, doorbells: Doorbells, size: int) -> None:
        self._pool = pool
        self._doorbells = doorbells
        self._size = size
        self._room: dict[str, _Room] = {}

    def has_room(self, lane: str) -> bool:
        """Whether a doorbell may be rung; it is counted at once."""
        room = self._room.get(lane)
        now = time.monotonic()
        if room is None or now > room.until:
            waiting = self._doorbells.waiting(lane)
            room = _Room(now + _ROOM_SECONDS, 0 if waiting is None else self._size - waiting)
            self._room[lane] = room
        room.left -= 1
        return room.left >= 0

    def ring(self, lane: str, job_id: UUID, capability: str) -> None:
        """Ring for a job that was stored as rung."""
        if not self._doorbells.ring(lane, [(job_id, capability)]):
            self._unring([job_id])

    def fill(self, lane: str) -> None:
        """Ring for due jobs until the window is full, as the feeder would at its next turn. Best effort."""
        waiting = self._doorbells.waiting(lane)
        if waiting is None or waiting >= self._size:
            return
        with suppress(UNAVAILABLE), self._pool.connection() as db:
            due = take_unrung(db, lane, room=self._size - waiting, again_seconds=_AGAIN_SECONDS)
            if not self._doorbells.ring(lane, due):
                unring(db, [job_id for job_id, _ in due])

    def _unring(self, ids: Sequence[UUID]) -> None:
        """Best effort: the job is stored, and a doorbell that never rang is found missing anyway."""
        with suppress(UNAVAILABLE), self._pool.connection() as db:
            unring(db, ids)
