"""Enqueue jobs and read their results: the one module that applications import.

    from workers.client import enqueue, result

    job_id = enqueue("daily_zodiac_text", {"sign": "aries"})
    job = result(job_id, timeout=30)

A job is safe once `enqueue` returned: it is committed in PostgreSQL. Redis only shortens the wait.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any
from uuid import UUID

from routing.admission import admit
from routing.errors import RoutingError
from routing.snapshot import Snapshot, Snapshots
from routing.values import Caller, Plan, Request
from store.database import UNAVAILABLE, Pool, Role, open_pool
from store.ids import new_id
from store.settings import Settings
from workers import records
from workers.doorbells import Doorbells
from workers.jobs import NewJob, insert, unring
from workers.records import Job, JobFilter

_ROOM_SECONDS = 0.1  # how long a count of waiting doorbells is believed
_POLL_SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)


class Client:
    """A connection to the platform. Thread-safe; keep one per process.

    Args:
        settings: where PostgreSQL and Redis are.
        pool: connections to use instead of an own pool.
    """

    def __init__(self, settings: Settings, *, pool: Pool | None = None) -> None:
        self._pool = pool or open_pool(settings.database(), Role.API, size=10, check=True)
        self._owns_pool = pool is None
        self._snapshots = Snapshots(self._pool, with_keys=False)
        self._doorbells = Doorbells(settings.redis())
        self._window = settings.doorbell_window
        self._room: dict[str, _Room] = {}

    def close(self) -> None:
        """Close the connections."""
        self._doorbells.close()
        if self._owns_pool:
            self._pool.close()

    def enqueue(
        self,
        feature: str,
        input: Mapping[str, Any],
        *,
        caller: Caller = Caller(),  # noqa: B008 - immutable
        token_id: UUID | None = None,
        user_id: str | None = None,
        plan: str | None = None,
        priority: int = 0,
        run_at: datetime | None = None,
        deadline_seconds: float | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> UUID:
        """Put a job into the queue; returns its id once it is durably stored.

        Args:
            caller: on whose behalf; by default the application itself.
            user_id: the end user, for analytics and limits; never decides about keys.
            plan: `free` or `premium`, say; conditions of the routing may look at it.
            priority: -100 to 100; lower runs first inside the feature's lane.
            run_at: not before this time (aware); None = now.
            deadline_seconds: the job fails with class `deadline` if it has not ended by then.

        Raises:
            UnknownFeature, InputRejected: the job is not what the feature takes.
            ConfigurationError, NoAccess: nothing would serve it; the message names the row to mend.
            psycopg.OperationalError: the database does not answer; nothing was stored.
        """
        request = Request(feature, input, caller=caller, user_id=user_id, plan=plan)
        job_id = new_id()
        snapshot, accepted = self._admit(request)
        while True:
            job = NewJob(
                id=job_id,
                feature=accepted.feature.name,
                capability=accepted.feature.capability.value,
                lane=accepted.feature.lane,
                input=input,
                priority=priority,
                user_id=user_id,
                plan=plan,
                metadata=metadata,
                caller_admin_id=caller.admin_id,
                token_id=token_id,
                run_at=run_at,
                deadline_seconds=deadline_seconds,
            )
            rings = (run_at is None or run_at <= datetime.now(UTC)) and self._has_room(job.lane)
            if self._insert(job, snapshot, rings):
                break
            snapshot, accepted = self._admit(request, at_least=snapshot.version + 1)
        if rings and not self._doorbells.ring(job.lane, [(job.id, job.capability)]):
            self._unring(job_id)
        return job_id

    def job(self, job_id: UUID, *, token_id: UUID | None = None) -> Job | None:
        """The job with result and attempts, or None; with `token_id`, only if that token enqueued it."""
        with self._pool.connection() as db:
            return records.find(db, job_id, token_id=token_id)

    def jobs(self, filters: JobFilter, *, limit: int = 50, before: UUID | None = None) -> list[Job]:
        """Up to `limit` jobs without result and attempts, newest first, made before the job `before`."""
        with self._pool.connection() as db:
            return records.page(db, filters, limit=limit, before=before)

    def is_finished(self, job_id: UUID) -> bool:
        """Whether the job has ended (or never was): the cheapest question there is."""
        with self._pool.connection() as db:
            return records.is_finished(db, job_id)

    def result(self, job_id: UUID, *, timeout: float = 60.0) -> Job:
        """Wait for the job to end and return it with its result.

        Raises:
            TimeoutError: it has not ended after `timeout` seconds; it goes on.
            LookupError: there is no such job.
        """
        deadline = time.monotonic() + timeout
        for pause in _pauses():
            if self.is_finished(job_id):
                job = self.job(job_id)
                if job is None:
                    raise LookupError(f"There is no job {job_id}.")
                if job.is_finished:
                    return job
            if time.monotonic() + pause > deadline:
                break
            time.sleep(pause)
        raise TimeoutError(f"Job {job_id} has not ended after {timeout:g} s.")

    def _admit(self, request: Request, *, at_least: int = 0) -> tuple[Snapshot, Plan]:
        """Check the job against the newest configuration; a refusal is never a stale one."""
        snapshot = self._snapshots.at_least(at_least)
        try:
            return snapshot, admit(snapshot, request, now=datetime.now(UTC))
        except RoutingError:
            newest = self._snapshots.at_least(self._config_version())
            if newest is snapshot:
                raise
        return newest, admit(newest, request, now=datetime.now(UTC))

    def _insert(self, job: NewJob, snapshot: Snapshot, rung: bool) -> bool:
        with self._pool.connection() as db:
            return insert(db, job, config_version=snapshot.version, rung=rung)

    def _config_version(self) -> int:
        with self._pool.connection() as db:
            row = db.execute("SELECT version FROM config_state").fetchone()
        assert row is not None, "config_state always has its one row"  # noqa: S101
        return int(row["version"])

    def _has_room(self, lane: str) -> bool:
        """Whether the lane's window of doorbells has room; else the feeder rings in its time."""
        room = self._room.get(lane)
        now = time.monotonic()
        if room is None or now > room.until:
            waiting = self._doorbells.waiting(lane)
            room = _Room(now + _ROOM_SECONDS, 0 if waiting is None else self._window - waiting)
            self._room[lane] = room
        room.left -= 1
        return room.left >= 0

    def _unring(self, job_id: UUID) -> None:
        """Best effort: the job is stored, and a doorbell that never rang is found missing anyway."""
        with suppress(UNAVAILABLE), self._pool.connection() as db:
            unring(db, [job_id])


@dataclass(slots=True)
class _Room:
    until: float
    left: int


def _pauses() -> Iterator[float]:
    yield from _POLL_SECONDS
    while True:
        yield _POLL_SECONDS[-1]


@cache
def _default() -> Client:
    return Client(Settings())


def enqueue(feature: str, input: Mapping[str, Any], **options: Any) -> UUID:
    """`Client.enqueue` on the client that ORRERY_DATABASE_URL and ORRERY_REDIS_URL name."""
    return _default().enqueue(feature, input, **options)


def result(job_id: UUID, *, timeout: float = 60.0) -> Job:
    """`Client.result` on the client that ORRERY_DATABASE_URL and ORRERY_REDIS_URL name."""
    return _default().result(job_id, timeout=timeout)
