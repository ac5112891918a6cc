"""A job's record, wherever it is in its life: a live row or history. Lists are in `workers/lists.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
class Link:
    """A job of a chain."""

    id: UUID
    parent_id: UUID | None
    feature: str
    state: str


@dataclass(frozen=True, slots=True)
class Callback:
    """A callback, and how it went. `state` is pending, sent or failed."""

    event: str
    url: str
    state: str
    tries: int
    sent_at: datetime | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Job:
    """A job as callers see it. What only a finished job has is None before.

    `attempts` (oldest first), `result` and `routing` (which routes were considered, where there were several)
    are filled by `find`, not in lists, as are `chain` and `callbacks`. `key_version`
    counts the keys of the provider or, below zero, the caller's own for it; 0: it had none. `follow_ups` are
    the steps that come after it, `chain_id` is the first job of its chain. What was erased is empty or None:
    by `input_erased_at` input, metadata and follow-ups, by `output_erased_at` result, artifact and error
    messages.
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
    group_id: UUID | None
    parent_id: UUID | None
    chain_id: UUID | None
    follow_ups: Sequence[Mapping[str, Any]] | None
    callback_url: str | None
    caller_admin_id: UUID | None
    attempt_count: int
    provider: str | None
    model: str | None
    config_version: int | None
    assignment_id: UUID | None
    prompt_version: int | None
    key_version: int | None
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
    input_erased_at: datetime | None
    output_erased_at: datetime | None
    result: Mapping[str, Any] | None = None
    routing: Mapping[str, Any] | None = None
    attempts: tuple[AttemptRecord, ...] = ()
    chain: tuple[Link, ...] = ()
    callbacks: tuple[Callback, ...] = ()

    @property
    def is_finished(self) -> bool:
        """Whether the state is terminal, so that nothing will change any more."""
        return self.state in ("succeeded", "failed", "cancelled")

    @property
    def erased_at(self) -> datetime | None:
        """When something of it was erased, the last time."""
        erased = [at for at in (self.input_erased_at, self.output_erased_at) if at is not None]
        return max(erased, default=None)


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
    error_class: str | None = None
    provider: str | None = None
    group_id: UUID | None = None
    chain_id: UUID | None = None
    since: datetime | None = None
    until: datetime | None = None


def find(db: Connection[DictRow], job_id: UUID, *, token_id: UUID | None = None) -> Job | None:
    """The job with its result and attempts; with `token_id`, only if that token enqueued it."""
    values = {"id": job_id, "token_id": token_id, "since": _made_at(job_id)}
    row = db.execute(_FIND, values).fetchone()
    if row is None:
        return None
    attempts = tuple(AttemptRecord(**attempt) for attempt in db.execute(_ATTEMPTS, values))
    return Job(**row, attempts=attempts, chain=_chain(db, row["chain_id"]), callbacks=_callbacks(db, row))


def _chain(db: Connection[DictRow], chain_id: UUID | None) -> tuple[Link, ...]:
    if chain_id is None:
        return ()
    found = db.execute(_CHAIN, {"chain_id": chain_id, "since": _made_at(chain_id)})
    return tuple(Link(**link) for link in found)


def _callbacks(db: Connection[DictRow], job: DictRow) -> tuple[Callback, ...]:
    if job["callback_url"] is None or job["finished_at"] is None:
        return ()
    return tuple(Callback(**sent) for sent in db.execute(_CALLBACKS, {"id": job["id"]}))


def repeats(db: Connection[DictRow], job_id: UUID, *, limit: int) -> list[UUID]:
    """Up to `limit` of the jobs that repeat this one, the newest first."""
    values = {"id": job_id, "since": _made_at(job_id), "limit": limit}
    return [row["id"] for row in db.execute(_REPEATS, values)]


def repeated(db: Connection[DictRow], ids: Sequence[UUID]) -> set[UUID]:
    """Those of the jobs that others repeat."""
    since = min(map(_made_at, ids), default=EPOCH)
    return {row["id"] for row in db.execute(_REPEATED, {"ids": list(ids), "since": since})}


def is_finished(db: Connection[DictRow], job_id: UUID) -> bool:
    """Whether the job has left the live table for good: one primary-key look-up."""
    return db.execute("SELECT FROM jobs WHERE id = %s", [job_id]).fetchone() is None


def _made_at(job_id: UUID) -> datetime:
    """When a UUIDv7 was made: nothing of the job is older, which spares the older partitions.

    Ids are made by clients, whose clocks may be ahead: a day is taken off. Other ids tell no time.
    """
    if job_id.version != 7 or job_id.int >> 80 > _LATEST_MS:
        return EPOCH
    return datetime.fromtimestamp((job_id.int >> 80) / 1000, UTC) - timedelta(days=1)


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST_MS = 253_370_764_800_000  # the year 9999, where datetime ends

# As it was asked for: it counts from the first `run_at`, which a retry inside the job has moved.
_DEADLINE = """extract(epoch FROM deadline_at - CASE WHEN retries = 0 THEN greatest(created_at, run_at)
    ELSE created_at END)::float8 AS deadline_seconds"""

_BONDS = "group_id, parent_id, chain_id, follow_ups, callback_url"

LIVE = f"""
id, feature, state, lane, priority, input, metadata, user_id, plan, run_at, created_at,
NULL::timestamptz AS finished_at, {_DEADLINE}, retry_of, {_BONDS}, caller_admin_id,
calls AS attempt_count, NULL::text AS provider, NULL::text AS model,
config_version, NULL::uuid AS assignment_id, NULL::integer AS prompt_version, NULL::integer AS key_version,
NULL::bigint AS input_tokens, NULL::bigint AS output_tokens, NULL::bigint AS cached_tokens,
NULL::bigint AS reasoning_tokens, false AS tokens_estimated, cost_usd, NULL::integer AS latency_ms,
NULL::text AS error_class, NULL::text AS error_message, NULL::text AS artifact_key,
NULL::timestamptz AS input_erased_at, NULL::timestamptz AS output_erased_at"""
"""The columns of `Job` but `result`, out of `jobs`."""

ENDED = f"""
id, feature, state, lane, priority, input, metadata, user_id, plan, run_at, created_at, finished_at,
{_DEADLINE}, retry_of, {_BONDS}, caller_admin_id, calls AS attempt_count, provider, model, config_version,
assignment_id, prompt_version, key_version, input_tokens, output_tokens, cached_tokens, reasoning_tokens,
tokens_estimated, cost_usd, latency_ms, error_class, error_message, artifact_key, input_erased_at,
output_erased_at"""
"""The same out of `job_history`."""

_FIND = f"""
SELECT {LIVE}, NULL::jsonb AS result, NULL::jsonb AS routing FROM jobs
WHERE id = %(id)s AND (%(token_id)s::uuid IS NULL OR token_id = %(token_id)s)
UNION ALL
SELECT {ENDED}, result, routing FROM job_history
WHERE id = %(id)s AND finished_at >= %(since)s AND (%(token_id)s::uuid IS NULL OR token_id = %(token_id)s)"""

_CHAIN = """
SELECT id, parent_id, feature, state FROM jobs WHERE chain_id = %(chain_id)s
UNION ALL
SELECT id, parent_id, feature, state FROM job_history
WHERE chain_id = %(chain_id)s AND finished_at >= %(since)s
ORDER BY id"""

_CALLBACKS = """
SELECT event, url, tries, sent_at, error,
    CASE WHEN sent_at IS NOT NULL THEN 'sent' WHEN failed_at IS NOT NULL THEN 'failed' ELSE 'pending' END AS
    state
FROM notices WHERE job_id = %(id)s AND url IS NOT NULL ORDER BY made_at"""

_REPEATS = """
SELECT id FROM jobs WHERE retry_of = %(id)s
UNION ALL
SELECT id FROM job_history WHERE retry_of = %(id)s AND finished_at >= %(since)s
ORDER BY id DESC LIMIT %(limit)s"""

_REPEATED = """
SELECT retry_of AS id FROM jobs WHERE retry_of = ANY (%(ids)s)
UNION SELECT retry_of FROM job_history WHERE retry_of = ANY (%(ids)s) AND finished_at >= %(since)s"""

_ATTEMPTS = f"""
SELECT {", ".join(field.name for field in fields(AttemptRecord))} FROM ai_usage_analytics
WHERE job_id = %(id)s AND finished_at >= %(since)s ORDER BY run, n"""
