"""Many jobs at once, all or none: checked one by one, copied beside the queue, inserted in one statement.

PostgreSQL refuses COPY into a table with row security, so rows are copied into a temporary table. The ids of
a bulk follow each other: the first one and a count say them all, however many there are.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from psycopg import Connection, Rollback
from psycopg.rows import DictRow

from routing.admission import admit, check_input, check_storable
from routing.snapshot import Snapshot
from routing.values import Feature, Request
from store.ids import first_of_many
from workers import chains, jobs, statements
from workers.backpressure import Backpressure, QueueFull
from workers.jobs import IdempotencyKey
from workers.requests import JobRequest, KeyReused, Sender

Database = Connection[DictRow]

_CHUNK = 512 * 1024  # characters of input held before they are copied
_CHUNK_ROWS = 5000


class ConfigurationMoved(Exception):
    """What the jobs were checked against has changed while they came in; nothing was stored. Send again."""

    def __init__(self, feature: str) -> None:
        super().__init__(
            f"Feature {feature!r} was changed while the jobs came in; nothing was stored. Send them again."
        )


@dataclass(frozen=True, slots=True)
class Ids:
    """The ids of a bulk, in the order of its rows. `replayed`: an idempotency key had stored them before."""

    first: UUID
    count: int
    replayed: bool = False

    def __iter__(self) -> Iterator[UUID]:
        return (UUID(int=self.first.int + n) for n in range(self.count))

    def __len__(self) -> int:
        return self.count


@dataclass(frozen=True, slots=True)
class Retried:
    """New jobs for finished ones, and the first of those that were left out, each with the reason."""

    ids: Ids
    refused: tuple[tuple[UUID, str], ...]


@dataclass(frozen=True, slots=True)
class _Admitted:
    """What rows of one feature and plan have in common. `sample` is a request that was admitted."""

    feature: Feature
    sample: Request


class Bulk:
    """One bulk on its way in. Not thread-safe.

    Args:
        db: a connection of this bulk's own, in autocommit; closing it drops what was not committed.
        newest: loads the snapshot of the configuration that is committed now.
    """

    def __init__(
        self, db: Database, sender: Sender, backpressure: Backpressure, newest: Callable[[], Snapshot]
    ) -> None:
        self._db = db
        self._sender = sender
        self._backpressure = backpressure
        self._newest = newest
        self._snapshot = newest()
        self._admitted: dict[tuple[str, str | None], _Admitted] = {}
        self._first = first_of_many()
        self._next_id = self._first.int
        self._count = 0
        self._waiting: list[tuple[Any, ...]] = []
        self._waiting_size = 0
        self._counts: Counter[str] = Counter()
        db.execute(statements.CREATE_BULK)

    def add(self, request: JobRequest) -> None:
        """Check one job and keep it.

        Raises:
            RoutingError: as `admit` does; the job is not kept, and the others are as they were.
            QueueFull: the bulk alone exceeds the feature's `max_queued`.
        """
        input_ = json.dumps(request.input)
        metadata = json.dumps(request.metadata) if request.metadata else "{}"
        feature = self._admit(request)
        steps = chains.compiled(self._snapshot, feature, request.then) if request.then else None
        self._counts[feature.name] += 1
        if feature.max_queued is not None and self._counts[feature.name] > feature.max_queued:
            raise QueueFull(feature, retry_after=1)
        self._waiting.append(
            (
                f"{self._next_id:032x}",
                feature.name,
                feature.capability.value,
                feature.lane,
                request.priority,
                input_,
                request.user_id,
                request.plan,
                metadata,
                request.run_at,
                request.deadline_seconds,
                request.retry_of,
                request.stream,
                None if steps is None else json.dumps(steps),
                request.callback_url,
            )
        )
        self._next_id += 1
        self._count += 1
        self._waiting_size += len(input_) + len(metadata)
        if self._waiting_size > _CHUNK or len(self._waiting) >= _CHUNK_ROWS:
            self._copy()

    def commit(self, once: IdempotencyKey | None = None) -> Ids:
        """Store all jobs, durably; returns their ids.

        Raises:
            QueueFull: a feature has no room for them.
            ConfigurationMoved: a feature takes other jobs now than when they were checked.
            KeyReused: the idempotency key belongs to another request.
            psycopg.OperationalError: the database does not answer.
        """
        self._copy()
        features = {admitted.feature.name: admitted.feature for admitted in self._admitted.values()}
        for name, count in self._counts.items():
            self._backpressure.reserve(features[name], count)
        while (stored := self._insert(once)) is None:
            self._check_again()
        return stored

    @property
    def lanes(self) -> set[str]:
        """The lanes of its jobs."""
        return {admitted.feature.lane for admitted in self._admitted.values()}

    def _admit(self, request: JobRequest) -> Feature:
        check_storable(request.metadata, "metadata")
        admitted = self._admitted.get((request.feature, request.plan))
        if admitted is None:
            return self._admit_first(request)
        check_input(admitted.feature.input_schema, request.input)
        return admitted.feature

    def _admit_first(self, request: JobRequest) -> Feature:
        asked = Request(
            request.feature,
            request.input,
            caller=self._sender.caller,
            user_id=request.user_id,
            plan=request.plan,
        )
        feature = admit(self._snapshot, asked, now=datetime.now(UTC)).feature
        self._admitted[request.feature, request.plan] = _Admitted(feature, asked)
        return feature

    def _copy(self) -> None:
        if not self._waiting:
            return
        with self._db.cursor() as cursor, cursor.copy(statements.COPY_BULK) as copy:
            for row in self._waiting:
                copy.write_row(row)
        self._waiting.clear()
        self._waiting_size = 0

    def _insert(self, once: IdempotencyKey | None) -> Ids | None:
        """The ids, or None where the configuration is not the one of the snapshot any more."""
        if not self._count:
            return Ids(self._first, 0)
        values = {
            "caller_admin_id": self._sender.caller.admin_id,
            "token_id": self._sender.token_id,
            "config_version": self._snapshot.version,
        }
        stored: Ids | None = None
        with self._db.transaction() as transaction:
            if once is not None and not jobs.keep_key(self._db, once, self._first):
                stored = self._replayed(once)
            elif self._db.execute(statements.INSERT_BULK, values).rowcount:
                stored = Ids(self._first, self._count)
            else:
                raise Rollback(transaction)
        return stored

    def _replayed(self, once: IdempotencyKey) -> Ids:
        found = jobs.find_key(self._db, once.scope, once.key)
        if found is None or found[0] != once.request_hash:
            raise KeyReused(once.key)
        return Ids(found[1], self._count, replayed=True)

    def _check_again(self) -> None:
        """Go on with the newest configuration, if it treats these jobs as the one before did."""
        self._snapshot = self._newest()
        for (name, _), admitted in self._admitted.items():
            now = admit(self._snapshot, admitted.sample, now=datetime.now(UTC)).feature
            before = admitted.feature
            if (now.input_schema, now.capability, now.lane) != (
                before.input_schema,
                before.capability,
                before.lane,
            ):
                raise ConfigurationMoved(name)
