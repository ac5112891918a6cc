"""Lanes as people see them: what waits, what runs, how fast, and whether the lane is paused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
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


@dataclass(frozen=True, slots=True)
class Minute:
    """Runs of a lane's jobs that started, and that ended, within a minute."""

    lane: str
    minute: datetime
    started: int
    finished: int


@dataclass(frozen=True, slots=True)
class Pace:
    """The minutes from `since` on; those without any runs are left out.

    Runs that have ended without having tried a provider are not counted.
    """

    since: datetime
    minutes: Sequence[Minute]


def states(db: Database, doorbells: Doorbells) -> list[LaneState]:
    """All lanes, the most urgent first. Reads the whole live table: for people, not for a hot path."""
    rows = db.execute(_STATES).fetchall()
    return [LaneState(**row, doorbells=doorbells.waiting(row["lane"])) for row in rows]


def pace(db: Database, minutes: int) -> Pace:
    """The last minutes, with this one; fewer where more than 20,000 calls have ended in them."""
    rows = db.execute(_PACE, {"minutes": minutes, "most": _MOST_CALLS}).fetchall()
    found = [Minute(row["lane"], row["minute"], row["started"], row["finished"]) for row in rows]
    return Pace(rows[0]["since"], [each for each in found if each.lane is not None])


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

_MOST_CALLS = 20_000  # read in 20 ms

# Where there are more calls, the minute of the first one is known in part.
_PACE = """
WITH recent AS MATERIALIZED (
    SELECT job_id, run, lane, started_at, finished_at FROM ai_usage_analytics
    WHERE finished_at >= date_trunc('minute', now()) - (%(minutes)s - 1) * interval '1 minute'
    ORDER BY finished_at DESC LIMIT %(most)s
), span AS (
    SELECT CASE WHEN count(*) < %(most)s
        THEN date_trunc('minute', now()) - (%(minutes)s - 1) * interval '1 minute'
        ELSE date_trunc('minute', min(finished_at)) + interval '1 minute' END AS since
    FROM recent
), runs AS MATERIALIZED (
    SELECT lane, min(started_at) AS started_at, max(finished_at) AS finished_at
    FROM recent GROUP BY job_id, run, lane
), moments AS (
    SELECT lane, started_at AS at, true AS is_start FROM runs
    UNION ALL SELECT lane, started_at, true FROM jobs WHERE state = 'running'
    UNION ALL SELECT lane, finished_at, false FROM runs
)
SELECT since, lane, date_trunc('minute', at) AS minute, count(*) FILTER (WHERE is_start) AS started,
    count(*) FILTER (WHERE NOT is_start) AS finished
FROM span LEFT JOIN moments ON at >= since
GROUP BY since, lane, date_trunc('minute', at) ORDER BY minute, lane"""

_PAUSE = """
UPDATE lanes SET is_paused = true, changed_at = now(), changed_by = %(by)s
WHERE name = %(lane)s AND NOT is_paused"""

_RESUME = """
UPDATE lanes SET is_paused = false, resumed_at = now(), changed_at = now(), changed_by = %(by)s
WHERE name = %(lane)s AND is_paused"""
