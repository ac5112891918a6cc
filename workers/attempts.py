"""Attempts one by one, newest first: those of all jobs, however many there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, TypeAlias
from uuid import UUID

from psycopg import Connection
from psycopg.rows import DictRow

Database = Connection[DictRow]
Place: TypeAlias = tuple[datetime, UUID, int, int]
"""Where an attempt stands in the list: finished_at, job_id, run, n."""


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """An attempt as it was recorded, without prompts and answers. `latency_ms`: milliseconds, `cost_usd`:
    None = unknown, `called`: whether the provider was reached at all."""

    job_id: UUID
    run: int
    n: int
    started_at: datetime
    finished_at: datetime
    feature: str
    capability: str
    lane: str
    user_id: str | None
    provider: str | None
    model: str | None
    served_model: str | None
    outcome: str
    called: bool
    breaker: str | None
    error_class: str | None
    error_message: str | None
    status: int | None
    request_id: str | None
    latency_ms: int | None
    input_tokens: int | None
    output_tokens: int | None
    cached_tokens: int | None
    cache_write_tokens: int | None
    reasoning_tokens: int | None
    characters: int | None
    seconds: float | None
    images: int | None
    tokens_estimated: bool
    cost_usd: Decimal | None
    config_version: int | None
    prompt_version: int | None
    worker: str | None

    @property
    def place(self) -> Place:
        """Where it stands in the list."""
        return self.finished_at, self.job_id, self.run, self.n


@dataclass(frozen=True, slots=True)
class AttemptFilter:
    """Narrows a list of attempts; None = any."""

    provider: str | None = None
    model: str | None = None
    feature: str | None = None
    user_id: str | None = None
    outcome: str | None = None
    error_class: str | None = None
    job_id: UUID | None = None


def page(
    db: Database,
    filters: AttemptFilter,
    *,
    since: datetime,
    until: datetime,
    limit: int,
    after: Place | None = None,
) -> list[AttemptRecord]:
    """Up to `limit` attempts that ended from `since` (inclusive) to `until` (exclusive), newest first, those
    behind `after`.

    A rare combination is looked for in those hours alone that have some, by the rollup: reading through three
    million attempts for fifty takes seconds. Users and jobs have indexes.
    """
    values = _values(filters, since, until, limit, after)
    wanted = _wanted(filters, after)
    rolled_up = [name for name in _ROLLED_UP if getattr(filters, name) is not None]
    if not rolled_up or filters.user_id is not None or filters.job_id is not None:
        return _records(db, _SCAN.format(wanted=wanted), values)
    hours = _HOURS.format(wanted="".join(f" AND {name} = %({name})s" for name in rolled_up))
    is_counted = db.execute(_IS_COUNTED).fetchone()
    if is_counted is None:
        return _records(db, _SCAN.format(wanted=wanted), values)
    return _records(db, _BY_HOUR.format(hours=hours, wanted=wanted), values)


def _records(db: Database, query: str, values: Mapping[str, Any]) -> list[AttemptRecord]:
    # Not prepared: a plan for any user is a bad one for those with few calls (measured: 1 s instead of 1 ms).
    return [AttemptRecord(**row) for row in db.execute(query.encode(), values, prepare=False)]


def _values(
    filters: AttemptFilter, since: datetime, until: datetime, limit: int, after: Place | None
) -> dict[str, Any]:
    finished_at, job_id, run, n = after or (None, None, None, None)
    newest = until if finished_at is None else min(until, finished_at + timedelta(microseconds=1))
    return {
        **{name: getattr(filters, name) for name in AttemptFilter.__slots__},
        "since": since,
        "until": newest,
        "limit": limit,
        "after_at": finished_at,
        "after_job": job_id,
        "after_run": run,
        "after_n": n,
    }


def _wanted(filters: AttemptFilter, after: Place | None) -> str:
    wanted = [
        f"{name} = %({name})s" for name in AttemptFilter.__slots__ if getattr(filters, name) is not None
    ]
    if filters.user_id is not None:
        wanted.append("left(user_id, 200) = left(%(user_id)s, 200)")  # what the index holds
    if after is not None:
        wanted.append(
            "(finished_at, job_id, run, n) < (%(after_at)s, %(after_job)s, %(after_run)s, %(after_n)s)"
        )
    return "".join(f" AND {condition}" for condition in wanted)


_ROLLED_UP = ("provider", "model", "feature", "outcome", "error_class")
_COLUMNS = ", ".join(field.name for field in fields(AttemptRecord))
_NEWEST_FIRST = "ORDER BY finished_at DESC, job_id DESC, run DESC, n DESC LIMIT %(limit)s"

_SCAN = f"""
SELECT {_COLUMNS} FROM ai_usage_analytics
WHERE finished_at >= %(since)s AND finished_at < %(until)s{{wanted}} {_NEWEST_FIRST}"""

_IS_COUNTED = "SELECT FROM usage_rollup WHERE counted_at > now() - interval '1 minute'"

# The newest hours that together hold a page. The hour of the cursor, of which only a part may be wanted, and
# the current one, of which some may not be counted yet, come on top.
_HOURS = """
SELECT hour FROM (
    SELECT hour, coalesce(
        sum(sum(attempts)) OVER (ORDER BY hour DESC ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0
    ) AS newer
    FROM usage_hourly
    WHERE hour >= date_trunc('hour', %(since)s::timestamptz, 'UTC')
      AND hour < date_trunc('hour', %(until)s::timestamptz, 'UTC'){wanted}
    GROUP BY hour
) AS heaped WHERE newer < %(limit)s
UNION SELECT date_trunc('hour', %(until)s::timestamptz, 'UTC')
UNION SELECT date_trunc('hour', now(), 'UTC')"""

_BY_HOUR = f"""
SELECT found.* FROM ({{hours}}) AS hours CROSS JOIN LATERAL (
    SELECT {_COLUMNS} FROM ai_usage_analytics
    WHERE finished_at >= greatest(hour, %(since)s)
      AND finished_at < least(hour + interval '1 hour', %(until)s){{wanted}}
    {_NEWEST_FIRST}
) AS found {_NEWEST_FIRST}"""
