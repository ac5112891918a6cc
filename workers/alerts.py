"""Alerts: what somebody should look at.

One is open about a thing at a time, and what happens again counts into it. One that is acknowledged takes
what goes on, too; what comes back after an hour of silence opens a new one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Literal, TypeAlias
from uuid import UUID

from psycopg import Connection
from psycopg.rows import DictRow

Kind: TypeAlias = Literal[
    "unknown_price",
    "key_refused",
    "quota_exhausted",
    "model_missing",
    "breaker_open",
    "poison_job",
    "model_retires",
    "model_retired",
    "lane_unserved",
    "budget",
    "cost_anomaly",
    "partition_missing",
]


ANOMALY_TIMES = 3
"""How many times the usual a day has to cost to be an anomaly, ..."""

ANOMALY_USD = 1
"""... and how many dollars more."""


@dataclass(frozen=True, slots=True)
class Alert:
    """Something that happened `times` times.

    `noun` is named as in the API's paths, `message` names the fix.
    """

    kind: Kind
    noun: str
    noun_id: str
    message: str
    times: int = 1


@dataclass(frozen=True, slots=True)
class AlertRecord:
    """An alert as it stands. `message` is of the last time it was raised."""

    id: UUID
    kind: str
    noun: str
    noun_id: str
    message: str
    first_seen_at: datetime
    last_seen_at: datetime
    count: int
    acknowledged_at: datetime | None
    acknowledged_by: UUID | None


@dataclass(frozen=True, slots=True)
class AlertFilter:
    """Narrows a list of alerts; None = any."""

    kind: str | None = None
    noun: str | None = None
    noun_id: str | None = None
    acknowledged: bool | None = None


def raise_all(db: Connection[DictRow], found: Iterable[Alert]) -> None:
    """Raise alerts, in an order in which nobody deadlocks."""
    for alert in sorted(found, key=lambda alert: (alert.kind, alert.noun, alert.noun_id)):
        db.execute(_RAISE, asdict(alert))


def poisonous(job_id: UUID) -> Alert:
    """A job that kills the process it runs in."""
    message = f"Job {job_id} took down its process each time it ran alone, and failed. Look at its input."
    return Alert("poison_job", "jobs", str(job_id), message)


def raise_unserved_lanes(db: Connection[DictRow]) -> None:
    """Raise an alert about each lane whose due jobs have waited for half a minute without any worker."""
    db.execute("SELECT raise_unserved_lanes()")


def raise_retiring_models(db: Connection[DictRow]) -> None:
    """Raise an alert about each model that is assigned, and retired within 30 days, or already."""
    db.execute("SELECT raise_retiring_models()")


def raise_cost_anomalies(db: Connection[DictRow]) -> None:
    """Raise an alert about all calls, and each feature, that cost much more today than usual by this hour."""
    db.execute("SELECT raise_cost_anomalies(%s, %s)", [ANOMALY_TIMES, ANOMALY_USD])


def page(
    db: Connection[DictRow], filters: AlertFilter, *, limit: int, after: tuple[datetime, UUID] | None = None
) -> list[AlertRecord]:
    """Up to `limit` alerts, the newest first, those behind `after` (first_seen_at, id)."""
    first_seen_at, alert_id = after or (None, None)
    values = {**asdict(filters), "limit": limit, "first_seen_at": first_seen_at, "id": alert_id}
    return [AlertRecord(**row) for row in db.execute(_PAGE, values)]


def find(db: Connection[DictRow], alert_id: UUID) -> AlertRecord | None:
    """One alert."""
    row = db.execute(_FIND, [alert_id]).fetchone()
    return None if row is None else AlertRecord(**row)


def count_open(db: Connection[DictRow]) -> dict[str, int]:
    """How many alerts nobody has acknowledged, by kind."""
    return {row["kind"]: row["open"] for row in db.execute(_COUNT_OPEN)}


def acknowledge(db: Connection[DictRow], alert_id: UUID, *, by: UUID | None) -> bool:
    """Note that somebody knows; False where there is no such alert, or somebody knew."""
    return db.execute(_ACKNOWLEDGE, {"id": alert_id, "by": by}).rowcount == 1


_RAISE = "SELECT raise_alert(%(kind)s, %(noun)s, %(noun_id)s, %(message)s, %(times)s)"

_COLUMNS = """
SELECT id, kind, noun, noun_id, message, first_seen_at, last_seen_at, count, acknowledged_at, acknowledged_by
FROM alerts"""

_PAGE = f"""{_COLUMNS}
WHERE (%(kind)s::text IS NULL OR kind = %(kind)s)
  AND (%(noun)s::text IS NULL OR noun = %(noun)s)
  AND (%(noun_id)s::text IS NULL OR noun_id = %(noun_id)s)
  AND (%(acknowledged)s::boolean IS NULL OR (acknowledged_at IS NOT NULL) = %(acknowledged)s)
  AND (%(id)s::uuid IS NULL OR (first_seen_at, id) < (%(first_seen_at)s::timestamptz, %(id)s))
ORDER BY first_seen_at DESC, id DESC LIMIT %(limit)s"""

_COUNT_OPEN = "SELECT kind, count(*) AS open FROM alerts WHERE acknowledged_at IS NULL GROUP BY kind"

_FIND = f"{_COLUMNS} WHERE id = %s"

_ACKNOWLEDGE = """
UPDATE alerts SET acknowledged_at = now(), acknowledged_by = %(by)s
WHERE id = %(id)s AND acknowledged_at IS NULL"""
