"""Which worker processes there are: each tells with every beat that it lives, and how its breakers stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from uuid import UUID

from psycopg import Connection
from psycopg.rows import DictRow

from workers.front import WITH_FRONT, look

Database = Connection[DictRow]


@dataclass(frozen=True, slots=True)
class Presence:
    """What a process says of itself. `id` is host:pid; a beat is due every `beat_seconds`."""

    id: str
    lanes: Sequence[str]
    threads: int
    version: str
    beat_seconds: float


@dataclass(frozen=True, slots=True)
class WorkerState:
    """A worker process now: `running`, `stopping`, or `lost` once it has missed three beats."""

    id: str
    state: str
    lanes: Sequence[str]
    threads: int
    in_flight: int
    version: str
    started_at: datetime
    last_seen_at: datetime


@dataclass(frozen=True, slots=True)
class Running:
    """A job that runs in a process now. `suspect`: it ran when another process died."""

    id: UUID
    feature: str
    lane: str
    worker: str
    started_at: datetime
    suspect: bool


def arrive(db: Database, presence: Presence) -> None:
    """Register a process that starts. Who had its id before is gone, and its breakers with it."""
    with db.transaction():
        db.execute(_LEAVE, {"id": presence.id})
        db.execute(_ARRIVE, {**asdict(presence), "lanes": list(presence.lanes)})


def beat(db: Database, presence: Presence, *, in_flight: int, is_stopping: bool) -> None:
    """Tell that the process lives."""
    values = {**asdict(presence), "lanes": list(presence.lanes)}
    db.execute(_BEAT, {**values, "in_flight": in_flight, "is_stopping": is_stopping})


def count_living(db: Database) -> int:
    """How many worker processes there are."""
    row = db.execute("SELECT count(*) AS living FROM workers WHERE NOT worker_is_lost(workers)").fetchone()
    assert row is not None, "an aggregate always has its row"  # noqa: S101
    return int(row["living"])


def leave(db: Database, worker_id: str) -> None:
    """Take a process that stops off the list."""
    db.execute(_LEAVE, {"id": worker_id})


def forget_lost(db: Database) -> None:
    """Take processes that have been lost for a day off the list."""
    db.execute("DELETE FROM workers WHERE last_seen_at < now() - interval '1 day'")


def report(db: Database, worker_id: str, breakers: Mapping[UUID, str]) -> None:
    """Note how breakers of a process stand now: provider → `closed`, `open` or `half_open`."""
    for provider_id in sorted(breakers):
        db.execute(
            _REPORT, {"worker_id": worker_id, "provider_id": provider_id, "state": breakers[provider_id]}
        )


def states(db: Database, *, limit: int | None = None, after: str | None = None) -> list[WorkerState]:
    """Up to `limit` worker processes by id, those behind `after`."""
    return [WorkerState(**row) for row in db.execute(_STATES, {"limit": limit, "after": after})]


def running(db: Database, *, most: int) -> list[Running]:
    """Jobs that run, those that began first, up to `most` of each process: see `workers/front.py`."""
    return [Running(**row) for row in look(db, _RUNNING, {"most": most})]


_ARRIVE = """
INSERT INTO workers (id, lanes, threads, version, beat_seconds)
VALUES (%(id)s, %(lanes)s, %(threads)s, %(version)s, %(beat_seconds)s)"""

# An INSERT, because somebody may have taken a process that was suspended for a day off the list.
_BEAT = """
INSERT INTO workers (id, lanes, threads, version, beat_seconds, in_flight, is_stopping)
VALUES (%(id)s, %(lanes)s, %(threads)s, %(version)s, %(beat_seconds)s, %(in_flight)s, %(is_stopping)s)
ON CONFLICT (id) DO UPDATE SET
    last_seen_at = now(), in_flight = EXCLUDED.in_flight, is_stopping = EXCLUDED.is_stopping"""

_LEAVE = "DELETE FROM workers WHERE id = %(id)s"

_REPORT = """
INSERT INTO worker_breakers (worker_id, provider_id, state)
SELECT id, %(provider_id)s, %(state)s FROM workers WHERE id = %(worker_id)s
ON CONFLICT (provider_id, worker_id) DO UPDATE SET state = EXCLUDED.state, changed_at = now()"""

_STATES = """
SELECT id,
    CASE WHEN worker_is_lost(workers) THEN 'lost' WHEN is_stopping THEN 'stopping' ELSE 'running' END
        AS state,
    lanes, threads, in_flight, version, started_at, last_seen_at
FROM workers WHERE %(after)s::text IS NULL OR id > %(after)s ORDER BY id LIMIT %(limit)s"""

_RUNNING = f"""
{WITH_FRONT}
SELECT id, feature, lane, worker, started_at, suspect FROM (
    SELECT id, feature, lane, worker, started_at, suspect,
        row_number() OVER (PARTITION BY worker ORDER BY started_at, id) AS place
    FROM front WHERE state = 'running' AND worker IS NOT NULL
) AS placed WHERE place <= %(most)s ORDER BY started_at, id"""  # noqa: S608 - constants
