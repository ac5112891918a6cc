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
from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from workers import statements
from workers.storable import storable
from workers.usage import AttemptRow

Database = Connection[DictRow]


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


@dataclass(frozen=True, slots=True)
class Claimed:
    """A job whose lease this process holds.

    `current_version` is the configuration version that was committed when the claim began. `age` and
    `deadline_in` are seconds by the database's clock; `run` counts the claims, from 1.
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


def insert(db: Database, job: NewJob, *, config_version: int, rung: bool) -> bool:
    """Put a job into the queue, durably. Inserting the same id twice is harmless.

    Returns False, and does nothing, where the configuration is no longer at `config_version`: what the
    caller checked the job against has changed. `rung` tells that a doorbell follows at once.
    """
    values = {
        **{name: getattr(job, name) for name in NewJob.__slots__},
        "input": Jsonb(job.input),
        "metadata": Jsonb(job.metadata or {}),
        "config_version": config_version,
        "rung": rung,
    }
    return db.execute(statements.INSERT, values).fetchone() is not None


def claim(db: Database, job_id: UUID, *, lease_seconds: float, worker: str) -> Claimed | None:
    """Take the job if it is due or its lease has run out; None where it is not, or somebody else has it.

    Never waits on a row lock: a claim that had waited would return the configuration version of before its
    wait. Not synchronously committed: a lost claim only means that the job runs again.
    """
    values = {"id": job_id, "token": uuid4(), "lease": lease_seconds, "worker": worker}
    row = db.execute(statements.CLAIM, values).fetchone()
    if row is None:
        return None
    del row["set_config"]
    return Claimed(**row)


def heartbeat(db: Database, leases: Mapping[UUID, UUID], *, lease_seconds: float) -> set[UUID]:
    """Prolong leases (job id → token); returns the ids that are still ours."""
    ids = list(leases)
    values = {"ids": ids, "tokens": [leases[id_] for id_ in ids], "lease": lease_seconds}
    return {row["id"] for row in db.execute(statements.HEARTBEAT, values)}


def complete(db: Database, job: Claimed, ending: Ending, attempts: Sequence[AttemptRow]) -> bool:
    """End the job: live row out, history and calls in, in one statement.

    Returns False where the lease is no longer ours; nothing was written then.
    """
    values = {
        **{name: storable(getattr(ending, name)) for name in Ending.__slots__},
        "result": None if ending.result is None else Jsonb(storable(ending.result)),
        **_fence(job),
        **_calls(attempts),
    }
    return db.execute(statements.COMPLETE, values).fetchone() is not None


def put_back(
    db: Database, job: Claimed, attempts: Sequence[AttemptRow], *, delay_seconds: float, cost_usd: Decimal
) -> bool:
    """Return a failed job to the queue, due after the delay, and record this run's calls.

    Returns False where the lease is no longer ours; nothing was written then.
    """
    values = {"delay": delay_seconds, "cost_usd": cost_usd, **_fence(job), **_calls(attempts)}
    return db.execute(statements.PUT_BACK, values).fetchone() is not None


def was_recorded(db: Database, job: Claimed) -> bool:
    """Whether this very lease ended or put back the job: the question after a commit of unknown outcome."""
    values = {**_fence(job), "run": job.run}
    return db.execute(statements.WAS_RECORDED, values).fetchone() is not None


def record_calls(db: Database, attempts: Sequence[AttemptRow]) -> None:
    """Record calls without touching their job: it has been taken over, but the money was spent."""
    db.execute(statements.RECORD_CALLS, _calls(attempts))


def release(db: Database, leases: Mapping[UUID, UUID]) -> int:
    """Give unfinished jobs back to the queue at once (graceful stop); returns how many were still ours."""
    ids = list(leases)
    values = {"ids": ids, "tokens": [leases[id_] for id_ in ids]}
    return db.execute(statements.RELEASE, values).rowcount


def rescue(db: Database, *, lease_seconds: float) -> list[UUID]:
    """Return jobs whose worker fell silent to the queue.

    Waits one lease after a start of PostgreSQL: nobody could prolong a lease while it was down.
    """
    return [row["id"] for row in db.execute(statements.RESCUE, {"lease": lease_seconds})]


def take_unrung(db: Database, lane: str, *, room: int, again_seconds: float) -> list[tuple[UUID, str]]:
    """The next due jobs whose doorbell is missing, marked as rung; `(id, capability)`, first to run first.

    A doorbell older than `again_seconds` counts as lost.
    """
    rows = db.execute(statements.TAKE_UNRUNG, {"lane": lane, "room": room, "again": again_seconds}).fetchall()
    return [(row["id"], row["capability"]) for row in rows]


def unring(db: Database, ids: Sequence[UUID]) -> None:
    """Note that no doorbell rang for these jobs after all, so that the feeder rings at its next turn."""
    db.execute(statements.UNRING, {"ids": list(ids)})


def _fence(job: Claimed) -> dict[str, Any]:
    return {"id": job.id, "token": job.lease_token}


def _calls(attempts: Sequence[AttemptRow]) -> dict[str, Any]:
    return {
        "attempts": Jsonb(storable([attempt.as_json() for attempt in attempts])),
        "calls": sum(attempt.called for attempt in attempts),
    }
