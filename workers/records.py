"""Reads jobs, wherever they are in their lives: live rows and history as one list."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from psycopg import Connection
from psycopg.rows import DictRow


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """One try of a job. `latency_ms` in milliseconds; `cost_usd` None = unknown."""

    provider: str
    model: str
    outcome: str
    error_class: str | None
    error_message: str | None
    status: int | None
    latency_ms: int | None
    cost_usd: Decimal | None
    breaker: str | None
    started_at: datetime


@dataclass(frozen=True, slots=True)
class Job:
    """A job as callers see it. What only a finished job has is None before.

    `attempts` (oldest first) and `result` are filled by `find`, not by `page`.
    """

    id: UUID
    feature: str
    state: str
    lane: str
    priority: int
    input: Mapping[str, Any]
    metadata: Mapping[str, Any]
    user_id: str | None
    plan: str | None
    run_at: datetime
    created_at: datetime
    finished_at: datetime | None
    deadline_seconds: float | None
    retry_of: UUID | None
    caller_admin_id: UUID | None
    attempt_count: int
    provider: str | None
    model: str | None
    config_version: int | None
    input_tokens: int | None
    output_tokens: int | None
    cached_tokens: int | None
    reasoning_tokens: int | None
    tokens_estimated: bool
    cost_usd: Decimal | None
    latency_ms: int | None
    error_class: str | None
    error_message: str | None
    artifact_key: str | None
    result: Mapping[str, Any] | None = None
    attempts: tuple[AttemptRecord, ...] = ()

    @property
    def is_finished(self) -> bool:
        """Whether the state is terminal, so that nothing will change any more."""
        return self.state in ("succeeded", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Narrows a list of jobs; None = any. `q` is looked for in id, user, input and error message.

    `since` (inclusive) and `until` are when jobs were made, by the time in their ids: aware, to the
    millisecond.
    """

    feature: str | None = None
    state: str | None = None
    user_id: str | None = None
    q: str | None = None
    token_id: UUID | None = None
    caller_admin_id: UUID | None = None
    since: datetime | None = None
    until: datetime | None = None


def find(db: Connection[DictRow], job_id: UUID, *, token_id: UUID | None = None) -> Job | None:
    """The job with its result and attempts; with `token_id`, only if that token enqueued it."""
    values = {"id": job_id, "token_id": token_id, "since": _made_at(job_id)}
    row = db.execute(_FIND, values).fetchone()
    if row is None:
        return None
    attempts = tuple(AttemptRecord(**attempt) for attempt in db.execute(_ATTEMPTS, values))
    return Job(**row, attempts=attempts)


def is_finished(db: Connection[DictRow], job_id: UUID) -> bool:
    """Whether the job has left the live table for good: one primary-key look-up."""
    return db.execute("SELECT FROM jobs WHERE id = %s", [job_id]).fetchone() is None


def page(
    db: Connection[DictRow],
    filters: JobFilter,
    *,
    limit: int,
    before: UUID | None,
    with_input: bool = False,
) -> list[Job]:
    """Up to `limit` jobs, newest first, made before the job `before`; without inputs, unless asked for."""
    query = _PAGE_WITH_INPUT if with_input else _PAGE
    return [Job(**row) for row in db.execute(query, _values(filters, limit, before))]


def unfinished(db: Connection[DictRow], filters: JobFilter, *, limit: int, before: UUID | None) -> list[UUID]:
    """Ids of up to `limit` jobs that have not ended, newest first, made before the job `before`."""
    return [row["id"] for row in db.execute(_UNFINISHED, _values(filters, limit, before))]


def _values(filters: JobFilter, limit: int, before: UUID | None) -> dict[str, Any]:
    return {
        "feature": filters.feature,
        "state": filters.state,
        "user_id": filters.user_id,
        "token_id": filters.token_id,
        "caller_admin_id": filters.caller_admin_id,
        "like": None if filters.q is None else f"%{_escaped(filters.q)}%",
        "limit": limit,
        **_times(filters, before),
    }


def _times(filters: JobFilter, before: UUID | None) -> dict[str, Any]:
    """Bounds of the ids, and of the history's partitions: what was made since then has ended since then.

    Ids are made by clients, whose clocks may be ahead: a day is taken off.
    """
    since = _EPOCH if filters.since is None else filters.since
    until = _LAST_ID if filters.until is None else _first_id(filters.until)
    return {
        "first": _first_id(since),
        "before": min(before or _LAST_ID, until),
        "ended_since": max(since - timedelta(days=1), _EPOCH),
    }


def _first_id(at: datetime) -> UUID:
    """No UUIDv7 made at this time or later is less than this one, and none made earlier is not."""
    return UUID(int=max(0, (at - _EPOCH) // timedelta(milliseconds=1)) << 80)


def _made_at(job_id: UUID) -> datetime:
    """When a UUIDv7 was made: nothing of the job is older, which spares the older partitions.

    Ids are made by clients, whose clocks may be ahead: a day is taken off. Other ids tell no time.
    """
    if job_id.version != 7 or job_id.int >> 80 > _LATEST_MS:
        return _EPOCH
    return datetime.fromtimestamp((job_id.int >> 80) / 1000, UTC) - timedelta(days=1)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_ID = UUID(int=2**128 - 1)
_LATEST_MS = 253_370_764_800_000  # the year 9999, where datetime ends


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


# As it was asked for: it counts from the first `run_at`, which a retry inside the job has moved.
_DEADLINE = """extract(epoch FROM deadline_at - CASE WHEN retries = 0 THEN greatest(created_at, run_at)
    ELSE created_at END)::float8 AS deadline_seconds"""

_LIVE = f"""
id, feature, state, lane, priority, input, metadata, user_id, plan, run_at, created_at,
NULL::timestamptz AS finished_at, {_DEADLINE}, retry_of, caller_admin_id,
calls AS attempt_count, NULL::text AS provider, NULL::text AS model,
config_version, NULL::bigint AS input_tokens, NULL::bigint AS output_tokens, NULL::bigint AS cached_tokens,
NULL::bigint AS reasoning_tokens, false AS tokens_estimated, cost_usd, NULL::integer AS latency_ms,
NULL::text AS error_class, NULL::text AS error_message, NULL::text AS artifact_key"""

_ENDED = f"""
id, feature, state, lane, priority, input, metadata, user_id, plan, run_at, created_at, finished_at,
{_DEADLINE}, retry_of, caller_admin_id, calls AS attempt_count, provider, model, config_version, input_tokens,
output_tokens, cached_tokens, reasoning_tokens, tokens_estimated, cost_usd, latency_ms, error_class,
error_message, artifact_key"""

_FIND = f"""
SELECT {_LIVE}, NULL::jsonb AS result FROM jobs
WHERE id = %(id)s AND (%(token_id)s::uuid IS NULL OR token_id = %(token_id)s)
UNION ALL
SELECT {_ENDED}, result FROM job_history
WHERE id = %(id)s AND finished_at >= %(since)s AND (%(token_id)s::uuid IS NULL OR token_id = %(token_id)s)"""

_ATTEMPTS = f"""
SELECT {", ".join(field.name for field in fields(AttemptRecord))} FROM ai_usage_analytics
WHERE job_id = %(id)s AND finished_at >= %(since)s ORDER BY run, n"""

_WANTED = """
    id >= %(first)s AND id < %(before)s
    AND (%(feature)s::text IS NULL OR feature = %(feature)s)
    AND (%(state)s::text IS NULL OR state = %(state)s)
    AND (%(user_id)s::text IS NULL OR user_id = %(user_id)s)
    AND (%(token_id)s::uuid IS NULL OR token_id = %(token_id)s)
    AND (%(caller_admin_id)s::uuid IS NULL OR caller_admin_id = %(caller_admin_id)s)
    AND (%(like)s::text IS NULL OR id::text ILIKE %(like)s OR user_id ILIKE %(like)s
         OR input::text ILIKE %(like)s OR {error} ILIKE %(like)s)
ORDER BY id DESC LIMIT %(limit)s"""

_PAGE_WITH_INPUT = f"""
(SELECT {_LIVE} FROM jobs WHERE {_WANTED.format(error="NULL::text")})
UNION ALL
(SELECT {_ENDED} FROM job_history
 WHERE finished_at >= %(ended_since)s AND {_WANTED.format(error="error_message")})
ORDER BY id DESC LIMIT %(limit)s"""

# Inputs may be megabytes each: a page of 50 took half a gigabyte to show none of them.
_PAGE = _PAGE_WITH_INPUT.replace(" priority, input, metadata,", " priority, '{}'::jsonb AS input, metadata,")

_UNFINISHED = f"SELECT id FROM jobs WHERE {_WANTED.format(error='NULL::text')}"
