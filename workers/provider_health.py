"""How providers have been doing, by the calls of the last minutes, hour and day, and by workers' breakers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
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
class LastProbe:
    """The newest probe: whether the provider answered, after how many milliseconds, else why not."""

    at: datetime
    ok: bool
    latency_ms: int
    error: str | None


@dataclass(frozen=True, slots=True)
class Health:
    """A provider's health."""

    windows: Mapping[str, Window]
    last_success_at: datetime | None
    last_error: LastError | None
    breakers: Sequence[BreakerState]
    last_probe: LastProbe | None


def health(db: Database, provider_id: UUID) -> Health:
    """The health of a provider, whether it was ever called or not."""
    return healths(db, [provider_id])[provider_id]


def healths(db: Database, provider_ids: Sequence[UUID]) -> dict[UUID, Health]:
    """The health of each of the providers: as many queries as for one."""
    values = {"ids": list(provider_ids)}
    last = {row["provider_id"]: row for row in db.execute(_LAST, values)}
    windows = {
        name: _by_provider(db.execute(_WINDOW, {**values, "minutes": minutes}).fetchall())
        for name, minutes in WINDOWS_MINUTES.items()
    }
    breakers = _by_provider(db.execute(_BREAKERS, values).fetchall())
    return {
        provider_id: Health(
            windows={name: _window(rows.get(provider_id, [])) for name, rows in windows.items()},
            last_success_at=last.get(provider_id, {}).get("last_success_at"),
            last_error=_last_error(last.get(provider_id, {})),
            breakers=[
                BreakerState(row["worker"], row["state"], row["changed_at"])
                for row in breakers.get(provider_id, [])
            ],
            last_probe=_last_probe(last.get(provider_id, {})),
        )
        for provider_id in provider_ids
    }


def _by_provider(rows: Sequence[DictRow]) -> dict[UUID, list[DictRow]]:
    found: dict[UUID, list[DictRow]] = {}
    for row in rows:
        found.setdefault(row["provider_id"], []).append(row)
    return found


def _last_error(last: Mapping[str, Any]) -> LastError | None:
    if last.get("last_error_at") is None:
        return None
    return LastError(last["last_error_at"], last["last_error_class"], last["last_error_message"])


def _last_probe(last: Mapping[str, Any]) -> LastProbe | None:
    if last.get("last_probe_ok") is None:
        return None
    return LastProbe(
        last["last_probe_at"], last["last_probe_ok"], last["last_probe_ms"], last["last_probe_error"]
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
SELECT provider_id, error_class, sum(calls)::bigint AS calls,
    {", ".join(f"sum({name})::bigint AS {name}" for name in BUCKETS)}
FROM usage_minutes
WHERE provider_id = ANY (%(ids)s) AND minute > now() - %(minutes)s * interval '1 minute'
GROUP BY provider_id, error_class ORDER BY calls DESC, error_class"""

_LAST = "SELECT * FROM provider_health WHERE provider_id = ANY (%(ids)s)"

_BREAKERS = """
SELECT provider_id, worker_id AS worker, state, changed_at
FROM worker_breakers JOIN workers ON workers.id = worker_id
WHERE provider_id = ANY (%(ids)s) AND NOT worker_is_lost(workers) ORDER BY worker_id"""
