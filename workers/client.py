"""Enqueue jobs and read their results: the one module that applications import.

    from workers.client import cancel, enqueue, result

    job_id = enqueue("daily_zodiac_text", {"sign": "aries"}, idempotency_key="order-7")
    job = result(job_id, timeout=30)

A job is safe once `enqueue` returned: it is committed in PostgreSQL. Redis only shortens the wait.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from datetime import UTC, datetime
from functools import cache
from typing import Any, TypeAlias
from uuid import UUID

import psycopg
from psycopg.rows import dict_row

from routing.admission import admit, check_storable
from routing.errors import InputRejected, RoutingError
from routing.snapshot import Snapshot, Snapshots
from routing.values import Caller, Feature, Request
from store.database import (
    UNAVAILABLE,
    ActingPool,
    Connections,
    Identity,
    Pool,
    Role,
    conninfo,
    open_pool,
)
from store.ids import new_id
from store.settings import Settings
from workers import chains, jobs, lists, records
from workers.backpressure import Backpressure, QueueFull
from workers.bulk import Bulk, Ids
from workers.doorbells import Doorbells
from workers.firing import Moved, Planned, fire, prepare
from workers.jobs import IdempotencyKey, NewJob, find_key, insert
from workers.lists import Found
from workers.records import Job, JobFilter
from workers.requests import Accepted, JobRequest, KeyReused, Sender, checked_key
from workers.window import Window

_POLL_SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
_Steps: TypeAlias = Sequence[Mapping[str, Any]] | None
_BULKS = 4  # at once; each has a connection of its own
_BULK_WAIT_SECONDS = 1.0


class Client:
    """A connection to the platform. Thread-safe; keep one per process.

    Args:
        settings: where PostgreSQL and Redis are.
        pool: connections to use instead of an own pool.
    """

    def __init__(self, settings: Settings, *, pool: Pool | None = None) -> None:
        own = pool or open_pool(settings.database(), Role.CLIENT, size=10, check=True)
        self._pool: Connections = own
        self._owned = own if pool is None else None
        self._database_url = settings.database()
        self._role: Role | Identity = Role.CLIENT
        self._bulks = threading.BoundedSemaphore(_BULKS)
        self._backpressure = Backpressure(own)
        self._snapshots = Snapshots(own, with_keys=False)
        self._doorbells = Doorbells(settings.redis())
        self._window = Window(own, self._doorbells, settings.doorbell_window)

    def close(self) -> None:
        """Close the connections."""
        self._doorbells.close()
        if self._owned is not None:
            self._owned.close()

    def acting(self, identity: Identity) -> Client:
        """This client with the rights of a caller of the API: it adds, sees and cancels what they may.

        It shares with this one what that knows of the configuration, lanes and counts, and is closed with it.
        """
        acting = copy(self)
        acting._pool = ActingPool(self._pool, identity)
        acting._role = identity
        return acting

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
        then: Sequence[Mapping[str, Any]] = (),
        callback_url: str | None = None,
        idempotency_key: str | None = None,
    ) -> UUID:
        """Put a job into the queue; returns its id once it is durably stored.

        Args:
            caller: on whose behalf; by default the application itself.
            idempotency_key: the same key with the same job is the same job, for 24 hours.
            others: as of `JobRequest`.

        Raises: what `put` raises.
        """
        request = JobRequest(
            feature,
            input,
            user_id=user_id,
            plan=plan,
            priority=priority,
            run_at=run_at,
            deadline_seconds=deadline_seconds,
            metadata=metadata or {},
            then=then,
            callback_url=callback_url,
        )
        return self.put(request, Sender(caller, token_id), idempotency_key=idempotency_key).job_id

    def put(
        self,
        request: JobRequest,
        sender: Sender = Sender(),  # noqa: B008 - immutable
        *,
        idempotency_key: str | None = None,
    ) -> Accepted:
        """Put a job into the queue, unless its idempotency key has one already.

        Raises:
            UnknownFeature, InputRejected: the job is not what the feature takes.
            ConfigurationError, NoAccess: nothing would serve it; the message names the row to mend.
            KeyInvalid, KeyReused: the idempotency key is none, or belongs to another request.
            QueueFull: the feature has as many unfinished jobs as it may.
            psycopg.OperationalError: the database does not answer. The job may have been stored if it broke
                off in the middle; an idempotency key makes it safe to try again.
        """
        once = None
        if idempotency_key is not None:
            once = IdempotencyKey(sender.scope, checked_key(idempotency_key), request.fingerprint())
            if (found := self._kept(once)) is not None:
                return found
        snapshot, feature, steps = self._admit(request, sender)
        job_id = new_id()
        while True:
            job = _new_job(job_id, request, sender, feature, steps)
            is_due = request.run_at is None or request.run_at <= datetime.now(UTC)
            rings = is_due and self._window.has_room(job.lane)
            if self._insert(job, snapshot, rings, once):
                break
            self._backpressure.give_back(feature)
            if once is not None and (found := self._kept(once)) is not None:
                return found
            snapshot, feature, steps = self._admit(request, sender, at_least=snapshot.version + 1)
        if rings:
            self._window.ring(job.lane, job.id, job.capability)
        return Accepted(job_id)

    def enqueue_many(
        self,
        requests: Iterable[JobRequest],
        *,
        caller: Caller = Caller(),  # noqa: B008 - immutable
    ) -> list[UUID]:
        """Put many jobs into the queue, all or none; returns their ids in the order of the requests.

        Raises: what `put` raises (a note names the job's position), and ConfigurationMoved.
        """
        with self.bulk(Sender(caller)) as bulk:
            for position, request in enumerate(requests):
                try:
                    bulk.add(request)
                except (RoutingError, QueueFull) as error:
                    error.add_note(f"This was job {position} of the bulk, counted from 0.")
                    raise
            return list(self.committed(bulk))

    @contextmanager
    def bulk(self, sender: Sender) -> Iterator[Bulk]:
        """A bulk to add jobs to, with a connection of its own; what is not committed inside is forgotten.

        Raises psycopg.OperationalError where the database does not answer, or where `_BULKS` are under way.
        """
        if not self._bulks.acquire(timeout=_BULK_WAIT_SECONDS):
            raise UNAVAILABLE("Too many bulks are under way.")
        try:
            target = conninfo(self._database_url, self._role, application="orrery bulk")
            with psycopg.connect(target, autocommit=True, row_factory=dict_row) as db:
                yield Bulk(db, sender, self._backpressure, self.configuration)
        finally:
            self._bulks.release()

    def committed(self, bulk: Bulk, once: IdempotencyKey | None = None) -> Ids:
        """Store the jobs of `bulk` and ring for as many as the windows have room for."""
        ids = bulk.commit(once)
        if not ids.replayed:
            for lane in bulk.lanes:
                self._window.fill(lane)
        return ids

    def fire(self, planned: Planned) -> UUID | None:
        """Fire a schedule now, as one that was asked to; returns the group of its jobs.

        Raises RoutingError: its jobs are not what the configuration takes.
        """
        instant = datetime.now(UTC)
        while True:
            snapshot = self.configuration()
            made = prepare(snapshot, planned, instant)
            try:
                with self._pool.connection() as db, db.transaction():
                    group = fire(db, planned, instant, made, kind="manual", version=snapshot.version)
            except Moved:
                continue
            self._window.fill(made.feature.lane)
            return group

    def is_known(self, sender: Sender, key: str) -> bool:
        """Whether the sender's idempotency key is in use."""
        with self._pool.connection() as db:
            return find_key(db, sender.scope, key) is not None

    def replayed(self, once: IdempotencyKey, count: int) -> Ids:
        """The ids of a bulk of `count` jobs that was stored before. Raises KeyReused."""
        if (first := self._kept(once)) is None:
            raise KeyReused(once.key)
        return Ids(first.job_id, count, replayed=True)

    def cancel(self, job_id: UUID) -> bool:
        """End the job as cancelled, queued or running alike; False where it had ended, or never was."""
        return self.cancel_many([job_id]) == 1

    def cancel_many(self, ids: Sequence[UUID]) -> int:
        """End these jobs as cancelled; returns how many had not ended.

        A job that went back to the queue in this moment has a new row, which the first try cannot see.
        """
        with self._pool.connection() as db:
            ended = jobs.cancel(db, ids)
            missed = [id_ for id_ in ids if id_ not in ended]
            return len(ended) + (len(jobs.cancel(db, missed)) if missed else 0)

    def retry(
        self,
        job: Job,
        sender: Sender = Sender(),  # noqa: B008 - immutable
        *,
        idempotency_key: str | None = None,
    ) -> Accepted:
        """Put a finished job into the queue again, as a new job with `retry_of`.

        Raises: what `put` raises; ValueError where the job has not ended; InputRejected where its input was
        erased.
        """
        if not job.is_finished:
            raise ValueError(f"Job {job.id} is {job.state}: only a finished job can be retried.")
        return self.put(repeated(job), sender, idempotency_key=idempotency_key)

    def job(self, job_id: UUID, *, token_id: UUID | None = None) -> Job | None:
        """The job with result and attempts, or None; with `token_id`, only if that token enqueued it."""
        with self._pool.connection() as db:
            return records.find(db, job_id, token_id=token_id)

    def jobs(self, filters: JobFilter, *, limit: int = 50, before: UUID | None = None) -> list[Job]:
        """Up to `limit` jobs without result and attempts, newest first, made before the job `before`."""
        with self._pool.connection() as db:
            return lists.page(db, filters, limit=limit, before=before)

    def search(
        self, filters: JobFilter, *, limit: int, before: UUID | None, seconds: float, timeout: float
    ) -> Found:
        """A page of jobs as of `jobs`; a search in texts stops after `seconds`, and the next page goes on.

        Raises psycopg.errors.QueryCanceled where a statement takes longer than `timeout` seconds.
        """
        with self._pool.connection() as db, db.transaction():
            db.execute("SELECT set_config('statement_timeout', %s, true)", [str(round(timeout * 1000))])
            return lists.search(db, filters, limit=limit, before=before, seconds=seconds)

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

    def _admit(
        self, request: JobRequest, sender: Sender, *, at_least: int = 0
    ) -> tuple[Snapshot, Feature, _Steps]:
        """Check the job against the newest configuration; a refusal is never a stale one."""
        check_storable(request.metadata, "metadata")
        snapshot = self._snapshots.at_least(at_least)
        try:
            return snapshot, *self._admitted(snapshot, request, sender)
        except (RoutingError, QueueFull):
            newest = self.configuration()
            if newest is snapshot:
                raise
        return newest, *self._admitted(newest, request, sender)

    def _admitted(self, snapshot: Snapshot, request: JobRequest, sender: Sender) -> tuple[Feature, _Steps]:
        asked = Request(
            request.feature,
            request.input,
            caller=sender.caller,
            user_id=request.user_id,
            plan=request.plan,
        )
        feature = admit(snapshot, asked, now=datetime.now(UTC)).feature
        steps = chains.compiled(snapshot, feature, request.then) if request.then else None
        self._backpressure.reserve(feature)
        return feature, steps

    def configuration(self) -> Snapshot:
        """The configuration that is committed now."""
        return self._snapshots.at_least(self._config_version())

    def _insert(self, job: NewJob, snapshot: Snapshot, rung: bool, once: IdempotencyKey | None) -> bool:
        with self._pool.connection() as db:
            return insert(db, job, config_version=snapshot.version, rung=rung, once=once)

    def _kept(self, once: IdempotencyKey) -> Accepted | None:
        with self._pool.connection() as db:
            found = find_key(db, once.scope, once.key)
        if found is None:
            return None
        if found[0] != once.request_hash:
            raise KeyReused(once.key)
        return Accepted(found[1], replayed=True)

    def _config_version(self) -> int:
        with self._pool.connection() as db:
            row = db.execute("SELECT version FROM config_state").fetchone()
        assert row is not None, "config_state always has its one row"  # noqa: S101
        return int(row["version"])


def _new_job(
    job_id: UUID,
    request: JobRequest,
    sender: Sender,
    feature: Feature,
    steps: _Steps,
) -> NewJob:
    return NewJob(
        id=job_id,
        feature=feature.name,
        capability=feature.capability.value,
        lane=feature.lane,
        input=request.input,
        priority=request.priority,
        user_id=request.user_id,
        plan=request.plan,
        metadata=request.metadata,
        caller_admin_id=sender.caller.admin_id,
        token_id=sender.token_id,
        run_at=request.run_at,
        deadline_seconds=request.deadline_seconds,
        retry_of=request.retry_of,
        stream=request.stream,
        follow_ups=steps,
        callback_url=request.callback_url,
    )


def repeated(job: Job) -> JobRequest:
    """The request that would make this job anew, due now. Raises InputRejected where its input was erased."""
    if job.input_erased_at is not None:
        raise InputRejected(
            f"The input of job {job.id} was erased, so it cannot run again. Enqueue it anew.", field="input"
        )
    return JobRequest(
        job.feature,
        job.input,
        user_id=job.user_id,
        plan=job.plan,
        priority=job.priority,
        deadline_seconds=job.deadline_seconds,
        metadata=job.metadata,
        retry_of=job.id,
        then=chains.as_sent(job.follow_ups or ()),
        callback_url=job.callback_url,
    )


def _pauses() -> Iterator[float]:
    yield from _POLL_SECONDS
    while True:
        yield _POLL_SECONDS[-1]


@cache
def _client_of(_process: int) -> Client:
    return Client(Settings())


def _default() -> Client:
    """This process's client: connections that a fork would share carry two conversations at once."""
    return _client_of(os.getpid())


def enqueue(feature: str, input: Mapping[str, Any], **options: Any) -> UUID:
    """`Client.enqueue` on the client that ORRERY_DATABASE_URL and ORRERY_REDIS_URL name."""
    return _default().enqueue(feature, input, **options)


def result(job_id: UUID, *, timeout: float = 60.0) -> Job:
    """`Client.result` on the client that ORRERY_DATABASE_URL and ORRERY_REDIS_URL name."""
    return _default().result(job_id, timeout=timeout)


def cancel(job_id: UUID) -> bool:
    """`Client.cancel` on the client that ORRERY_DATABASE_URL and ORRERY_REDIS_URL name."""
    return _default().cancel(job_id)
