"""Every statement that changes a job row. Each is one round trip and one transaction.

A claim makes a random lease token; only its holder may heartbeat, end, put back or release the run: that is
the fence. Times are the database's. Statements that touch many rows take their locks in the order of ids.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

from psycopg import Connection
from psycopg.rows import DictRow, tuple_row
from psycopg.types.json import Jsonb

from workers import statements
from workers.storable import dumps
from workers.usage import AttemptRow

Database = Connection[DictRow]

MOST_CRASHES = 2
"""Processes that a job may take down while it runs alone."""


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job on its way into the queue. `priority`: lower runs first inside its lane."""

    id: UUID
    feature: str
    capability: str
    lane: str
    input: Mapping[str, Any]
    priority: int = 0
    user_id: str | None = None
    plan: str | None = None
    metadata: Mapping[str, Any] | None = None
    caller_admin_id: UUID | None = None
    token_id: UUID | None = None
    run_at: datetime | None = None
    deadline_seconds: float | None = None
    retry_of: UUID | None = None
    stream: bool = False
    follow_ups: Sequence[Mapping[str, Any]] | None = None
    callback_url: str | None = None


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """A caller's own name for a request. `scope` is the caller; `request_hash` tells requests apart."""

    scope: str
    key: str
    request_hash: bytes


@dataclass(frozen=True, slots=True)
class Claimed:
    """A job whose lease this process holds.

    `current_version` is the configuration version that was committed when the claim began. `age` and
    `deadline_in` are seconds by the database's clock; `run` counts the claims, from 1. `follows`: its input
    was made of what the job before it in a chain left.
    """

    id: UUID
    feature: str
    capability: str
    lane: str
    input: Mapping[str, Any]
    user_id: str | None
    plan: str | None
    caller_admin_id: UUID | None
    caller_role: str | None
    run: int
    retries: int
    lease_token: UUID
    started_at: datetime
    age: float
    deadline_in: float | None
    stream: bool
    follows: bool
    current_version: int


@dataclass(frozen=True, slots=True)
class Ending:
    """How a job ended, as `job_history` keeps it. `cost_usd` is this run's, None = unknown."""

    state: str
    result: Mapping[str, Any] | None = None
    artifact_key: str | None = None
    error_class: str | None = None
    error_message: str | None = None
    provider: str | None = None
    model: str | None = None
    config_version: int | None = None
    assignment_id: UUID | None = None
    prompt_version: int | None = None
    key_version: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    tokens_estimated: bool = False
    cost_usd: Decimal | None = Decimal(0)
    latency_ms: int | None = None
    routing: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """A run that has ended, on its way into the record."""

    job: Claimed
    ending: Ending
    attempts: Sequence[AttemptRow]

    def as_json(self) -> dict[str, Any]:
        """What `jsonb_to_recordset` reads back into the columns' types."""
        values = {name: getattr(self.ending, name) for name in Ending.__slots__}
        values["id"], values["token"] = self.job.id, self.job.lease_token
        values["new_calls"] = _called(self.attempts)
        return values


def insert(
    db: Database, job: NewJob, *, config_version: int, rung: bool, once: IdempotencyKey | None = None
) -> bool:
    """Put a job into the queue, durably. Inserting the same id twice is harmless.

    Returns False, and does nothing, where the configuration is no longer at `config_version` (what the caller
    checked the job against has changed), or where the idempotency key has a job already. `rung` tells that a
    doorbell follows at once.
    """
    values = {
        **{name: getattr(job, name) for name in NewJob.__slots__},
        "input": Jsonb(job.input),
        "metadata": Jsonb(job.metadata or {}),
        "follow_ups": Jsonb(job.follow_ups) if job.follow_ups else None,
        "config_version": config_version,
        "rung": rung,
    }
    if once is None:
        return db.execute(statements.INSERT, values).fetchone() is not None
    values |= {"scope": once.scope, "key": once.key, "request_hash": once.request_hash}
    return db.execute(statements.INSERT_ONCE, values).fetchone() is not None


def find_key(db: Database, scope: str, key: str) -> tuple[bytes, UUID] | None:
    """The request hash and the job of an idempotency key, or None where it is unused."""
    row = db.execute(statements.FIND_KEY, {"scope": scope, "key": key}).fetchone()
    return None if row is None else (row["request_hash"], row["job_id"])


def keep_key(db: Database, once: IdempotencyKey, job_id: UUID) -> bool:
    """Write down an idempotency key; False where it is in use. Waits for a caller who writes it just now."""
    values = {"scope": once.scope, "key": once.key, "request_hash": once.request_hash, "id": job_id}
    return db.execute(statements.KEEP_KEY, values).fetchone() is not None


def forget_keys(db: Database) -> None:
    """Drop idempotency keys that are older than a day."""
    db.execute(statements.FORGET_KEYS)


def claim(db: Database, job_id: UUID, *, lease_seconds: float, worker: str) -> Claimed | None:
    """Take the lease of the job, or of a more urgent one of its lane, if one is due.

    None where the job is not due, its lane is paused, or somebody else has it. Never waits on a row lock: a
    claim that had waited would return the configuration version of before its wait. Not synchronously
    committed: a lost claim only means that the job runs again.
    """
    values = {"id": job_id, "token": uuid4(), "lease": lease_seconds, "worker": worker}
    return _claimed(db.execute(statements.CLAIM, values).fetchone())


def claim_suspect(db: Database, *, lease_seconds: float, worker: str) -> Claimed | None:
    """Take the lease of a job that was running when its process died. The caller runs nothing beside it.

    Processes beside the caller's may run other suspects, but what has crashed once alone runs only while no
    suspect runs beside it on its machine. `worker` begins with the machine's name, up to its last colon.
    """
    machine = worker.rpartition(":")[0]
    values = {"token": uuid4(), "lease": lease_seconds, "worker": worker, "machine": machine}
    with db.pipeline(), db.transaction():
        db.execute(statements.ONE_CLAIM_A_MACHINE, values)
        claimed = db.execute(statements.CLAIM_SUSPECT, values)
    return _claimed(claimed.fetchone())


def count_suspects(db: Database) -> tuple[int, int]:
    """How many jobs wait to run alone, and how many do."""
    row = db.execute(statements.COUNT_SUSPECTS).fetchone()
    assert row is not None, "an aggregate always has its row"  # noqa: S101
    return row["waiting"], row["running"]


def any_late(db: Database, *, lease_seconds: float) -> bool:
    """Whether a worker has missed a beat: a lease that is prolonged every third of it has half of it left."""
    return db.execute(statements.ANY_LATE, {"lease": lease_seconds}).fetchone() is not None


def _claimed(row: DictRow | None) -> Claimed | None:
    if row is None:
        return None
    del row["set_config"]
    return Claimed(**row)


def heartbeat(db: Database, leases: Mapping[UUID, UUID], *, lease_seconds: float) -> set[UUID]:
    """Prolong leases (job id → token); returns the ids that are still ours."""
    ids = list(leases)
    values = {"ids": ids, "tokens": [leases[id_] for id_ in ids], "lease": lease_seconds}
    return {row["id"] for row in db.execute(statements.HEARTBEAT, values)}


def complete(db: Database, completions: Sequence[Completion]) -> set[UUID]:
    """End jobs: live rows out, history and calls in, in one statement.

    Returns the ids that were ended; the leases of the others are no longer ours, and nothing was written.
    """
    values = {
        "endings": _rows(completions),
        "attempts": _rows([row for completion in completions for row in completion.attempts]),
    }
    return {row["id"] for row in db.execute(statements.COMPLETE, values)}


def put_back(
    db: Database,
    job: Claimed,
    attempts: Sequence[AttemptRow],
    *,
    delay_seconds: float,
    cost_usd: Decimal,
    seconds_left: float | None = None,
    is_retry: bool = True,
) -> bool:
    """Return a job to the queue, due after the delay, and record this run's calls.

    `seconds_left` are those until the deadline that its assignment gave it, which no retry prolongs.
    Returns False where the lease is no longer ours; nothing was written then.
    """
    values = {
        "delay": delay_seconds,
        "retries": int(is_retry),
        "seconds_left": seconds_left,
        "cost_usd": cost_usd,
        "calls": _called(attempts),
        "attempts": _rows(attempts),
        **_fence(job),
    }
    return db.execute(statements.PUT_BACK, values).fetchone() is not None


def was_recorded(db: Database, job: Claimed) -> bool:
    """Whether this very lease ended the job: the question after a commit of unknown outcome.

    One that put the job back need not be told: recording its calls again changes nothing (their key).
    """
    return db.execute(statements.WAS_RECORDED, _fence(job)).fetchone() is not None


def record_calls(db: Database, attempts: Sequence[AttemptRow]) -> None:
    """Record calls without touching their job: it has been taken over, but the money was spent."""
    db.execute(statements.RECORD_CALLS, {"attempts": _rows(attempts)})


def release(db: Database, leases: Mapping[UUID, UUID], *, begun: bool = True) -> int:
    """Give unfinished jobs back to the queue at once, uncounted; returns how many were still ours.

    Where their runs have `begun`, each leaves a `lost` call behind, for one may be under way and billed.
    """
    ids = list(leases)
    values = {"ids": ids, "tokens": [leases[id_] for id_ in ids], "begun": begun}
    return db.execute(statements.RELEASE, values).rowcount


def rescue(db: Database, *, lease_seconds: float) -> tuple[list[UUID], list[UUID]]:
    """Deal with jobs whose worker fell silent; returns those that went back and those that failed as poison.

    What was running becomes a suspect: it runs alone from now on. A suspect whose process died while it ran
    alone, `MOST_CRASHES` times, has failed. Each rescued run leaves a `lost` call behind, for one may have
    been under way and billed. Waits one lease after a start of PostgreSQL: nobody could prolong a lease while
    it was down.
    """
    values = {"lease": lease_seconds, "most_crashes": MOST_CRASHES}
    rows = db.execute(statements.RESCUE, values).fetchall()
    return [row["id"] for row in rows if not row["poison"]], [row["id"] for row in rows if row["poison"]]


def take_unrung(db: Database, lane: str, *, room: int, again_seconds: float) -> list[tuple[UUID, str]]:
    """The next due jobs whose doorbell is missing, marked as rung; `(id, capability)`, first to run first.

    A doorbell older than `again_seconds` counts as lost.
    """
    values = {"lane": lane, "room": room, "again": again_seconds}
    return db.cursor(row_factory=tuple_row).execute(statements.TAKE_UNRUNG, values).fetchall()


def come_due(db: Database) -> None:
    """Let scheduled jobs whose time has come take their place in the queue, 5,000 at most."""
    db.execute(statements.COME_DUE)


def take_turn(db: Database, *, pause_seconds: float) -> bool:
    """Whether it is the caller's turn to feed: once per pause among all processes."""
    return db.execute(statements.TAKE_TURN, {"pause": pause_seconds}).fetchone() is not None


def unring(db: Database, ids: Sequence[UUID]) -> None:
    """Note that no doorbell rang for these jobs after all, so that the feeder rings at its next turn."""
    db.execute(statements.UNRING, {"ids": list(ids)})


def cancel(db: Database, ids: Sequence[UUID]) -> set[UUID]:
    """End jobs as cancelled, queued or running; returns those that had not ended."""
    return {row["id"] for row in db.execute(statements.CANCEL, {"ids": list(ids)})}


def count_unfinished(db: Database, feature: str, *, most: int) -> int:
    """How many jobs of the feature have not ended, counted up to `most`."""
    row = db.execute(statements.COUNT_UNFINISHED, {"feature": feature, "most": most}).fetchone()
    assert row is not None, "an aggregate always has its row"  # noqa: S101
    return int(row["unfinished"])


def _fence(job: Claimed) -> dict[str, Any]:
    return {"id": job.id, "token": job.lease_token}


def _called(attempts: Sequence[AttemptRow]) -> int:
    return sum(attempt.called for attempt in attempts)


def _rows(rows: Sequence[AttemptRow] | Sequence[Completion]) -> Jsonb:
    return Jsonb([row.as_json() for row in rows], dumps=dumps)
