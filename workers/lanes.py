"""Lanes as people see them: what waits, what runs, and whether the lane is paused."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from psycopg import Connection
from psycopg.rows import DictRow

from workers.doorbells import Doorbells

Database = Connection[DictRow]


@dataclass(frozen=True, slots=True)
class LaneState:
    """A lane now.

    `queued` jobs are due, `scheduled` ones are not yet; `suspects` (of both, or running) were running when
    their process died. `doorbells`: rung and not yet heard, None where Redis does not answer.
    `oldest_age_seconds`: how long the first of the queued has been due, None where none is.
    """

    lane: str
    is_paused: bool
    queued: int
    scheduled: int
    running: int
    suspects: int
    doorbells: int | None
    oldest_age_seconds: float | None


def states(db: Database, doorbells: Doorbells) -> list[LaneState]:
    """All lanes, the most urgent first. Reads the whole live table: for people, not for a hot path."""
    rows = db.execute(_STATES).fetchall()
    return [LaneState(**row, doorbells=doorbells.waiting(row["lane"])) for row in rows]


def pause(db: Database, lane: str, *, by: UUID | None) -> None:
    """Claim no more jobs of the lane; what runs goes on. Pausing twice is harmless."""
    db.execute(_PAUSE, {"lane": lane, "by": by})


def resume(db: Database, lane: str, *, by: UUID | None) -> None:
    """Claim the lane's jobs again; doorbells rung before now count as lost. Resuming twice is harmless."""
    db.execute(_RESUME, {"lane": lane, "by": by})


_STATES = """
SELECT name AS lane, is_paused,
       count(jobs.id) FILTER (WHERE state = 'queued' AND run_at <= now()) AS queued,
       count(jobs.id) FILTER (WHERE state = 'queued' AND run_at > now()) AS scheduled,
       count(jobs.id) FILTER (WHERE state = 'running') AS running,
       count(jobs.id) FILTER (WHERE suspect) AS suspects,
       extract(epoch FROM now() - min(run_at) FILTER (WHERE state = 'queued' AND run_at <= now()))::float8
           AS oldest_age_seconds
FROM lanes LEFT JOIN jobs ON jobs.lane = lanes.name
GROUP BY name ORDER BY array_position(ARRAY['interactive', 'standard', 'batch'], name)"""

_PAUSE = """
UPDATE lanes SET is_paused = true, changed_at = now(), changed_by = %(by)s
WHERE name = %(lane)s AND NOT is_paused"""

_RESUME = """
UPDATE lanes SET is_paused = false, resumed_at = now(), changed_at = now(), changed_by = %(by)s
WHERE name = %(lane)s AND is_paused"""
