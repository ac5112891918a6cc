"""How providers have been doing, by the calls of the last minutes, hour and day, and by workers' breakers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from psycopg import Connection
from psycopg.rows import DictRow

from workers.histogram import BUCKETS, counts, percentile

Database = Connection[DictRow]

WINDOWS_MINUTES: Mapping[str, int] = {"5m": 5, "1h": 60, "24h": 1440}
"""The windows by name; each ends with the current minute."""


@dataclass(frozen=True, slots=True)
class Window:
    """The calls of a span of time. `error_rate` and percentiles (milliseconds) are None without calls."""

    calls: int
    failed: int
    error_rate: float | None
    errors: Mapping[str, int]
    p50_ms: int | None
    p95_ms: int | None


@dataclass(frozen=True, slots=True)
class LastError:
    """The newest failed call."""

    at: datetime
    error_class: str
    message: str | None


@dataclass(frozen=True, slots=True)
class BreakerState:
    """A worker process's breaker of the provider, and since when it stands so."""

    worker: str
    state: str
    changed_at: datetime


@dataclass(frozen=True, slots=True)
class Health:
    """A provider's health."""

    windows: Mapping[str, Window]
    last_success_at: datetime | None
    last_error: LastError | None
    breakers: Sequence[BreakerState]


def health(db: Database, provider_id: UUID) -> Health:
    """The health of a provider, whether it was ever called or not."""
    values = {"id": provider_id}
    last = db.execute(_LAST, values).fetchone() or {}
    error = None
    if last.get("last_error_at") is not None:
        error = LastError(last["last_error_at"], last["last_error_class"], last["last_error_message"])
    return Health(
        windows={
            name: _window(db.execute(_WINDOW, {**values, "minutes": minutes}).fetchall())
            for name, minutes in WINDOWS_MINUTES.items()
        },
        last_success_at=last.get("last_success_at"),
        last_error=error,
        breakers=[BreakerState(**row) for row in db.execute(_BREAKERS, values)],
    )


def _window(rows: Sequence[DictRow]) -> Window:
    """Rows are those of one error class each; None is success."""
    errors = {row["error_class"]: row["calls"] for row in rows if row["error_class"] is not None}
    calls, failed = sum(row["calls"] for row in rows), sum(errors.values())
    histogram = [sum(column) for column in zip(*map(counts, rows), strict=True)]
    return Window(
        calls=calls,
        failed=failed,
        error_rate=failed / calls if calls else None,
        errors=errors,
        p50_ms=percentile(histogram, 50),
        p95_ms=percentile(histogram, 95),
    )


_WINDOW = f"""
SELECT error_class, sum(calls)::bigint AS calls,
    {", ".join(f"sum({name})::bigint AS {name}" for name in BUCKETS)}
FROM usage_minutes
WHERE provider_id = %(id)s AND minute > now() - %(minutes)s * interval '1 minute'
GROUP BY error_class ORDER BY calls DESC, error_class"""

_LAST = "SELECT * FROM provider_health WHERE provider_id = %(id)s"

_BREAKERS = """
SELECT worker_id AS worker, state, changed_at FROM worker_breakers JOIN workers ON workers.id = worker_id
WHERE provider_id = %(id)s AND NOT worker_is_lost(workers) ORDER BY worker_id"""
