"""The clerk of a worker process: everything about it that is written down beside its jobs.

    each second    breakers that changed; the calls since the last count, if it is this process's turn
    each beat      that the process lives
    now and then   alerts about lanes nobody serves, models that retire, and days that cost more than usual;
                   what is too old goes

It is a thread of its own, so that a long count holds up neither doorbells nor heartbeats, and nothing that
goes wrong here harms a job.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from uuid import UUID

from psycopg import Connection
from psycopg.rows import DictRow

from routing.breaker import CLOSED, OPEN, circuit
from routing.snapshot import Snapshots
from routing.values import Provider
from store.database import UNAVAILABLE, Pool
from workers import alerts, presence, rollup, spending
from workers.alerts import Alert
from workers.presence import Presence
from workers.recent import Recent

logger = logging.getLogger(__name__)

_PATIENCE_SECONDS = 2.0  # with a database that went away, where the process has to stop
_LOOK_SECONDS = 30.0
_HOUSE_SECONDS = 600.0
_COSTS_SECONDS = 3600.0


class Clerk:
    """The clerk of one process.

    Args:
        snapshots: tell which provider a breaker belongs to.
        figures: what strategies look at; the clerk keeps them fresh.
        breaker_state: `closed`, `open` or `half_open`, of a circuit.
        in_flight: how many jobs run in this process.
        share: told with every beat how many processes there are.
        is_stopping: set once it takes no more jobs.
        pause_seconds: between two counts, among all processes.
    """

    def __init__(
        self,
        pool: Pool,
        snapshots: Snapshots,
        figures: Recent,
        itself: Presence,
        *,
        breaker_state: Callable[[UUID], str],
        in_flight: Callable[[], int],
        share: Callable[[int], None],
        is_stopping: threading.Event,
        pause_seconds: float,
    ) -> None:
        self._pool = pool
        self._snapshots = snapshots
        self._figures = figures
        self._itself = itself
        self._breaker_state = breaker_state
        self._in_flight = in_flight
        self._share = share
        self._is_stopping = is_stopping
        self._pause_seconds = pause_seconds
        self._lock = threading.Lock()
        self._opened: set[UUID] = set()  # circuits, since the last turn
        self._reported: dict[UUID, str] = {}  # provider → its breaker's state; what is not in here is closed
        self._next_beat = 0.0
        self._next_look = time.monotonic() + _LOOK_SECONDS  # when all start at once, others are still to come
        self._next_house = 0.0
        self._next_costs = 0.0
        self._arrived = False
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work_on, name="clerk", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, and take the process off the list of workers."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(timeout=_PATIENCE_SECONDS)
        try:
            with self._pool.connection(timeout=_PATIENCE_SECONDS) as db:
                presence.leave(db, self._itself.id)
        except UNAVAILABLE as error:
            logger.warning("This worker will be listed as lost, the database does not answer: %s", error)

    def breaker_changed(self, circuit_id: UUID, _old: str, new: str) -> None:
        """Take note of a breaker's change; returns at once."""
        if new == OPEN:
            with self._lock:
                self._opened.add(circuit_id)

    def turn(self) -> None:
        """Do what is due now."""
        now = time.monotonic()
        with self._pool.connection() as db:
            if not self._arrived:
                rollup.rebase(db)
                presence.arrive(db, self._itself)
                self._arrived = True
            if now >= self._next_beat or self._is_stopping.is_set():
                self._next_beat = now + self._itself.beat_seconds
                presence.beat(
                    db, self._itself, in_flight=self._in_flight(), is_stopping=self._is_stopping.is_set()
                )
                self._share(presence.count_living(db))
            self._report_breakers(db)
            self._figures.refresh(db, self._snapshots.newest())
            if now >= self._next_look:
                self._next_look = now + _LOOK_SECONDS
                alerts.raise_unserved_lanes(db)
            if now >= self._next_house:
                self._next_house = now + _HOUSE_SECONDS
                alerts.raise_retiring_models(db)
                rollup.prune(db)
                spending.prune(db)
                presence.forget_lost(db)
            if now >= self._next_costs:
                self._next_costs = now + _COSTS_SECONDS
                alerts.raise_cost_anomalies(db)
        self._count()

    def _count(self) -> None:
        """Count what has been recorded since, in steps, until nothing is left."""
        pause = self._pause_seconds * 0.9  # a little less, or a process alone would find itself too early
        while not self._stopped.is_set():
            with self._pool.connection() as db:
                step = rollup.advance(db, pause_seconds=pause)
            if step is None or step.caught_up:
                return
            pause = 0

    def _report_breakers(self, db: Connection[DictRow]) -> None:
        """Write down which breakers stand otherwise than a turn ago, and raise alerts about what opened.

        States are looked at rather than heard of: a provider that got another address has another breaker,
        which no change tells of.
        """
        providers = {circuit(provider): provider for provider in self._snapshots.newest().providers.values()}
        states = {provider.id: self._breaker_state(id_) for id_, provider in providers.items()}
        changed = {id_: state for id_, state in states.items() if state != self._reported.get(id_, CLOSED)}
        presence.report(db, self._itself.id, changed)
        self._reported |= changed
        with self._lock:
            opened, self._opened = self._opened, set()
        try:
            alerts.raise_all(db, [_opened(providers[id_]) for id_ in opened & providers.keys()])
        except UNAVAILABLE:
            with self._lock:
                self._opened |= opened
            raise

    def _work_on(self) -> None:
        while True:
            try:
                self.turn()
            except UNAVAILABLE as error:
                logger.warning("Statistics wait, the database does not answer: %s", error)
            except Exception:
                logger.exception("The clerk's turn failed; the next one is in %g s.", self._pause_seconds)
            if self._stopped.wait(self._pause_seconds):
                return


def _opened(provider: Provider) -> Alert:
    message = (
        f"{provider.slug} kept failing, so a worker stopped calling it for a while; jobs go to backups. "
        "Its health shows the errors."
    )
    return Alert("breaker_open", "providers", str(provider.id), message)
