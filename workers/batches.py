"""Batches of jobs at providers: what the database knows of them.

    waiting jobs ─▶ ready ─▶ sending ─▶ submitted ─▶ over
                      │          └ nobody saw the end of it: found again by its id, or sent anew
                      └ refused: its jobs go live ─▶ over

While a job is in a batch it runs, with a lease that does not end. Its result ends it as any other's, by its
token; going live puts it back into the queue, for the workers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from psycopg import Connection
from psycopg.rows import DictRow

from routing.values import Plan, Route
from store.ids import new_id
from workers.jobs import Claimed

Database = Connection[DictRow]

MOST_WAITING = 10_000
"""Jobs that are put into batches in one transaction."""

_LONGEST = timedelta(hours=25)  # providers give themselves 24 h
_SHARE_LIVE = 0.5  # of the time until a job's deadline that is kept for doing it live ...
_LONGEST_LIVE = timedelta(hours=2)  # ... and this at most


@dataclass(frozen=True, slots=True)
class Batch:
    """A row of `provider_batches`."""

    id: UUID
    state: str
    feature: str
    provider_id: UUID
    provider: str
    model_row_id: UUID
    model: str
    jobs: int
    config_version: int
    assignment_id: UUID
    prompt_version: int | None
    key_version: int
    provider_batch_id: str | None
    created_at: datetime
    sent_at: datetime | None
    live_at: datetime
    gone_live: bool
    cancel_asked: bool
    is_late: bool


@dataclass(frozen=True, slots=True)
class Waiting:
    """A job that waits for a batch."""

    id: UUID
    feature: str
    input: Mapping[str, Any]
    user_id: str | None
    plan: str | None
    caller_admin_id: UUID | None
    caller_role: str | None
    deadline_at: datetime | None


def ready_features(db: Database, *, settle_seconds: float) -> list[str]:
    """Features whose waiting jobs have all come: none for `settle_seconds`, or the first long ago."""
    return [row["feature"] for row in db.execute(_READY, {"settle": settle_seconds})]


def lock_waiting(db: Database, feature: str) -> list[Waiting]:
    """Waiting jobs of a feature, locked until the transaction ends."""
    rows = db.execute(_WAITING, {"feature": feature, "most": MOST_WAITING})
    return [Waiting(**row) for row in rows]


def make(
    db: Database, plan: Plan, route: Route, waiting: Sequence[Waiting], *, now: datetime, worker: str
) -> UUID:
    """A batch of these jobs, ready to be sent; they run from now on."""
    batch_id = new_id()
    prompt = plan.assignment.prompt
    db.execute(
        _MAKE,
        {
            "id": batch_id,
            "feature": plan.feature.name,
            "provider_id": route.provider.id,
            "provider": route.provider.slug,
            "model_row_id": route.model.id,
            "model": route.model.model_id,
            "jobs": len(waiting),
            "config_version": plan.config_version,
            "assignment_id": plan.assignment.id,
            "prompt_version": prompt.version if prompt else None,
            "key_version": route.key_version,
            "live_at": _live_at([one.deadline_at for one in waiting], now),
        },
    )
    db.execute(_RUN, {"ids": [one.id for one in waiting], "batch": batch_id, "worker": worker})
    return batch_id


def go_live(db: Database, *, batch_id: UUID | None = None, ids: Collection[UUID] = ()) -> int:
    """Give jobs to the workers instead: what is left of a batch, or those that wait for one."""
    return db.execute(_GO_LIVE, {"batch": batch_id, "ids": list(ids)}).rowcount


def due(db: Database) -> list[Batch]:
    """Batches that are to be looked at, the longest due first."""
    return [Batch(**row) for row in db.execute(_DUE)]


def found(db: Database, batch_id: UUID) -> Batch | None:
    """A batch as it is now."""
    row = db.execute(_FOUND, {"id": batch_id}).fetchone()
    return None if row is None else Batch(**row)


@contextmanager
def looking_at(db: Database, batch_id: UUID) -> Iterator[bool]:
    """Whether nobody else looks at the batch meanwhile. Ends with the connection, so with whoever dies."""
    key = {"id": str(batch_id)}
    row = db.execute("SELECT pg_try_advisory_lock(hashtextextended(%(id)s, 19)) AS mine", key).fetchone()
    assert row is not None, "the function has one row"  # noqa: S101
    if not row["mine"]:
        yield False
        return
    try:
        yield True
    finally:
        db.execute("SELECT pg_advisory_unlock(hashtextextended(%(id)s, 19))", key)


def members(db: Database, batch_id: UUID) -> list[Claimed]:
    """The jobs that are still in the batch, as their runs."""
    return [Claimed(**row) for row in db.execute(_MEMBERS, {"id": batch_id})]


def departed(db: Database, batch_id: UUID) -> list[DictRow]:
    """Jobs that have left the batch before its end: cancelled, or done live."""
    return db.execute(_DEPARTED, {"id": batch_id}).fetchall()


def known_ids(db: Database, provider_id: UUID) -> list[str]:
    """The provider's ids of all batches on record."""
    rows = db.execute(
        "SELECT provider_batch_id AS id FROM provider_batches "
        "WHERE provider_id = %(id)s AND provider_batch_id IS NOT NULL",
        {"id": provider_id},
    )
    return [row["id"] for row in rows]


def sending(db: Database, batch_id: UUID) -> UUID:
    """Note that it is being sent from now on; the token of this sending."""
    token = uuid4()
    db.execute(
        "UPDATE provider_batches SET state = 'sending', sending_token = %(token)s, sent_at = now() "
        "WHERE id = %(id)s",
        {"id": batch_id, "token": token},
    )
    return token


def submitted(
    db: Database, batch_id: UUID, provider_batch_id: str, *, seconds: float, token: UUID | None = None
) -> bool:
    """Note the provider's id; False where somebody else has sent it anew meanwhile."""
    values = {"id": batch_id, "name": provider_batch_id, "seconds": seconds, "token": token}
    return db.execute(_SUBMITTED, values).rowcount == 1


def look_again(db: Database, batch_id: UUID, *, seconds: float, error: str | None = None) -> None:
    """Look at it again after so many seconds."""
    db.execute(_LOOK_AGAIN, {"id": batch_id, "seconds": seconds, "error": error and error[:1000]})


def counted(db: Database, batch_id: UUID, *, completed: int | None, failed: int | None) -> None:
    """Note how many lines the provider has done."""
    db.execute(
        "UPDATE provider_batches SET completed = %(completed)s, failed = %(failed)s WHERE id = %(id)s",
        {"id": batch_id, "completed": completed, "failed": failed},
    )


def asked_to_end(db: Database, batch_id: UUID) -> None:
    """Note that the provider was asked to end it."""
    db.execute("UPDATE provider_batches SET cancel_asked = true WHERE id = %(id)s", {"id": batch_id})


def gave_up(db: Database, batch_id: UUID) -> None:
    """Note that what was left of it went live."""
    db.execute("UPDATE provider_batches SET gone_live = true WHERE id = %(id)s", {"id": batch_id})


def over(db: Database, batch_id: UUID, error: str | None = None) -> None:
    """Nothing more is to be done for it."""
    db.execute(
        "UPDATE provider_batches SET state = 'over', finished_at = now(), error = coalesce(%(error)s, error) "
        "WHERE id = %(id)s",
        {"id": batch_id, "error": error and error[:1000]},
    )


def prune(db: Database) -> None:
    """Drop what is over for a month."""
    db.execute("DELETE FROM provider_batches WHERE finished_at < now() - interval '30 days'")


def _live_at(deadlines: Sequence[datetime | None], now: datetime) -> datetime:
    """When what is not done goes live, so that the earliest deadline is met."""
    found = [deadline for deadline in deadlines if deadline is not None]
    if not found:
        return now + _LONGEST
    left = min(found) - now
    return min(now + _LONGEST, min(found) - min(left * _SHARE_LIVE, _LONGEST_LIVE))


_READY = """
SELECT feature FROM (
    SELECT feature, min(created_at) AS first, max(created_at) AS last FROM jobs
    WHERE use_batch AND state = 'queued' AND NOT scheduled
      AND NOT EXISTS (SELECT FROM lanes WHERE lanes.name = jobs.lane AND lanes.is_paused)
    GROUP BY feature
) AS waiting
WHERE last <= now() - %(settle)s * interval '1 second'
   OR first <= now() - 12 * %(settle)s * interval '1 second'
ORDER BY feature"""

_WAITING = """
SELECT id, feature, input, user_id, plan, caller_admin_id,
    (SELECT role FROM admins WHERE admins.id = caller_admin_id) AS caller_role, deadline_at
FROM jobs WHERE use_batch AND state = 'queued' AND NOT scheduled AND feature = %(feature)s
ORDER BY id LIMIT %(most)s FOR UPDATE OF jobs SKIP LOCKED"""

_MAKE = """
INSERT INTO provider_batches (id, feature, provider_id, provider, model_row_id, model, jobs, config_version,
    assignment_id, prompt_version, key_version, live_at)
VALUES (%(id)s, %(feature)s, %(provider_id)s, %(provider)s, %(model_row_id)s, %(model)s, %(jobs)s,
    %(config_version)s, %(assignment_id)s, %(prompt_version)s, %(key_version)s, %(live_at)s)"""

_RUN = """
UPDATE jobs SET state = 'running', run = run + 1, started_at = now(), worker = %(worker)s,
    lease_token = gen_random_uuid(), lease_until = 'infinity', batch_id = %(batch)s
WHERE id = ANY (%(ids)s)"""

_GO_LIVE = """
WITH gone AS (
    DELETE FROM jobs USING (
        SELECT id FROM jobs
        WHERE use_batch
          AND (batch_id = %(batch)s AND state = 'running' OR id = ANY (%(ids)s) AND state = 'queued')
        ORDER BY id FOR UPDATE
    ) AS left_over WHERE jobs.id = left_over.id RETURNING jobs.*
)
INSERT INTO jobs (
    id, feature, capability, lane, priority, input, user_id, plan, metadata, caller_admin_id, token_id,
    created_at, run_at, deadline_at, run, retries, calls, cost_usd, retry_of, stream, crashes, group_id,
    parent_id, chain_id, follow_ups, callback_url, batch_id)
SELECT
    id, feature, capability, lane, 0, input, user_id, plan, metadata, caller_admin_id, token_id,
    created_at, run_at, deadline_at, run, retries, calls, cost_usd, retry_of, stream, crashes, group_id,
    parent_id, chain_id, follow_ups, callback_url, batch_id
FROM gone"""

_BATCH = """
SELECT id, state, feature, provider_id, provider, model_row_id, model, jobs, config_version, assignment_id,
    prompt_version, key_version, provider_batch_id, created_at, sent_at, live_at, gone_live, cancel_asked,
    live_at <= now() AS is_late
FROM provider_batches"""

_DUE = f"""{_BATCH}
WHERE state <> 'over' AND (look_at <= now() OR live_at <= now() AND NOT gone_live) ORDER BY look_at"""

_FOUND = f"{_BATCH} WHERE id = %(id)s"

_MEMBERS = """
SELECT id, feature, capability, lane, input, user_id, plan, caller_admin_id, run, retries, lease_token,
    started_at, extract(epoch FROM now() - greatest(created_at, run_at))::float8 AS age,
    extract(epoch FROM deadline_at - now())::float8 AS deadline_in, stream, parent_id IS NOT NULL AS follows,
    (SELECT role FROM admins WHERE admins.id = caller_admin_id) AS caller_role,
    (SELECT version FROM config_state) AS current_version
FROM jobs WHERE batch_id = %(id)s AND use_batch AND state = 'running' ORDER BY id"""

_DEPARTED = """
SELECT id, input, user_id, plan, caller_admin_id FROM jobs WHERE batch_id = %(id)s AND NOT use_batch
UNION ALL
SELECT id, input, user_id, plan, caller_admin_id FROM job_history WHERE batch_id = %(id)s
ORDER BY id"""

_SUBMITTED = """
UPDATE provider_batches SET state = 'submitted', provider_batch_id = %(name)s, error = NULL,
    look_at = now() + %(seconds)s * interval '1 second'
WHERE id = %(id)s AND state = 'sending' AND (%(token)s::uuid IS NULL OR sending_token = %(token)s)"""

_LOOK_AGAIN = """
UPDATE provider_batches SET look_at = now() + %(seconds)s * interval '1 second', error = %(error)s
WHERE id = %(id)s"""
