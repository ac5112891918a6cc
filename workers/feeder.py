"""Postgres backlog → doorbells, and silent workers' jobs → backlog.

Runs in every worker process; a row in the database lets one of them do each turn. It keeps a bounded window
of doorbells per lane in Redis and never holds a row lock while it talks to Redis. Whatever Redis forgets is
rung for again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from psycopg import Connection
from psycopg.rows import DictRow

from store.database import UNAVAILABLE, Pool
from workers import alerts, jobs
from workers.doorbells import LANES, Doorbells

logger = logging.getLogger(__name__)

_ENSURE_PARTITIONS = "SELECT ensure_partitions((now() AT TIME ZONE 'UTC')::date - 1, 15)"

_EMPTY_AGAIN_SECONDS = (
    5.0  # nothing waits in Redis: a doorbell this old was lost with its Redis or its worker
)
_AGAIN_SECONDS = 60.0  # something waits: the queue is long, or the doorbell was lost
_HOUSE_SECONDS = 3600.0
_RESCUE_SHARE = 0.05  # of the time may go into scans for silent workers' jobs


class Feeder:
    """The feeder of one process.

    Args:
        window: doorbells kept per lane.
        lease_seconds: how long a worker may be silent.
        pause_seconds: between two turns.
        on_suspects: called, from the feeder's thread, while jobs wait to run alone, or soon may, with the
            number of those that do.
    """

    def __init__(
        self,
        pool: Pool,
        doorbells: Doorbells,
        *,
        window: int,
        lease_seconds: float,
        pause_seconds: float,
        on_suspects: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._pool = pool
        self._doorbells = doorbells
        self._window = window
        self._lease_seconds = lease_seconds
        self._pause_seconds = pause_seconds
        self._on_suspects = on_suspects
        self._next_rescue = 0.0
        self._next_house = 0.0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._feed_on, name="feeder", daemon=True)

    def start(self) -> None:
        """Begin to feed."""
        self._thread.start()

    def stop(self) -> None:
        """End after the turn that is under way."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def turn(self) -> None:
        """Rescue and ring once, unless another process has just done so."""
        with self._pool.connection() as db:
            # A little less than the pause, or a process alone would find itself too early each other time.
            if not jobs.take_turn(db, pause_seconds=self._pause_seconds * 0.9):
                return
            self._rescue(db)
            jobs.come_due(db)
            for lane in LANES:
                self._fill(db, lane)
            self._keep_house(db)

    def _keep_house(self, db: Connection[DictRow]) -> None:
        """Once an hour: partitions ahead, old idempotency keys away."""
        if time.monotonic() >= self._next_house:
            db.execute(_ENSURE_PARTITIONS)
            jobs.forget_keys(db)
            self._next_house = time.monotonic() + _HOUSE_SECONDS

    def _rescue(self, db: Connection[DictRow]) -> None:
        """Look for expired leases. The scan reads the whole live table, since no index may hold a column that
        claims and heartbeats change; the longer it takes, the rarer it is."""
        began = time.monotonic()
        if began < self._next_rescue:
            return
        back, poison = jobs.rescue(db, lease_seconds=self._lease_seconds)
        if back:
            logger.warning("%d jobs of silent workers went back to the queue, to run alone.", len(back))
        for job_id in poison:
            logger.error("Job %s took down its process each time it ran alone: failed as poison.", job_id)
        alerts.raise_all(db, map(alerts.poisonous, poison))
        waiting, running = jobs.count_suspects(db)
        if waiting:
            self._on_suspects(running)
        elif jobs.any_late(db, lease_seconds=self._lease_seconds):
            self._on_suspects(0)  # there may be some soon, and a process takes a second to start
        now = time.monotonic()
        self._next_rescue = now + min((now - began) / _RESCUE_SHARE, self._lease_seconds / 2)

    def _fill(self, db: Connection[DictRow], lane: str) -> None:
        waiting = self._doorbells.waiting(lane)
        if waiting is None or waiting >= self._window:
            return
        again = _AGAIN_SECONDS if waiting else _EMPTY_AGAIN_SECONDS
        due = jobs.take_unrung(db, lane, room=self._window - waiting, again_seconds=again)
        if not self._doorbells.ring(lane, due):
            jobs.unring(db, [job_id for job_id, _ in due])

    def _feed_on(self) -> None:
        woke = time.time()
        while not self._stopped.wait(self._pause_seconds):
            slept, woke = time.time() - woke, time.time()
            if abs(slept) > self._lease_seconds / 2:
                # This process was suspended, or its machine, or the clock was set: others may have been, too.
                self._next_rescue = time.monotonic() + self._lease_seconds
            try:
                self.turn()
            except UNAVAILABLE as error:
                # Nobody could prolong a lease meanwhile, so nobody is called dead until one has passed.
                self._next_rescue = time.monotonic() + self._lease_seconds
                logger.warning("The feeder waits, the database does not answer: %s", error)
            except Exception:
                logger.exception("The feeder's turn failed; the next one is in %g s.", self._pause_seconds)
