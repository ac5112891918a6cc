"""Lanes as people see them: what waits, what runs, how fast, and whether the lane is paused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

from psycopg import Connection, sql
from psycopg.rows import DictRow

from workers.doorbells import Doorbells
from workers.front import WITH_FRONT, look

Database = Connection[DictRow]


@dataclass(frozen=True, slots=True)
class LaneState:
    """A lane now.

    `queued` jobs are due, `scheduled` ones are not yet; from 10,000 on they are estimated, and `is_exact` is
    False. `suspects` (of both, or running) were running when their process died. `doorbells`: rung and not
    yet heard, None where Redis does not answer. `oldest_age_seconds`: how long the first of the queued has
    been due, None where none is.
    """

    lane: str
    is_paused: bool
    queued: int
    scheduled: int
    is_exact: bool
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
    """All lanes, the most urgent first. What runs is looked for at the front: see `workers/front.py`."""
    return [_state(db, doorbells, **row) for row in look(db, _STATES, {"most": _MOST_COUNTED})]


def _state(
    db: Database,
    doorbells: Doorbells,
    *,
    lane: str,
    ready: int,
    later: int,
    overdue: int,
    running: int,
    **known: Any,
) -> LaneState:
    is_exact = max(ready, later) < _MOST_COUNTED
    if ready >= _MOST_COUNTED:
        ready = max(ready, _estimated(db, _READY, lane))
    if later >= _MOST_COUNTED:
        later = max(later, _estimated(db, _LATER, lane))
    return LaneState(
        lane=lane,
        queued=max(ready - running, 0) + overdue,
        scheduled=max(later - overdue, 0),
        is_exact=is_exact,
        running=running,
        doorbells=doorbells.waiting(lane),
        **known,
    )


def _estimated(db: Database, which: LiteralString, lane: str) -> int:
    """How many jobs PostgreSQL expects, by the size of the table and what ANALYZE told it of the lanes."""
    [row] = db.execute(sql.SQL("EXPLAIN (FORMAT JSON) " + which).format(lane=lane)).fetchall()
    [explained] = row["QUERY PLAN"]
    rows: int = explained["Plan"]["Plan Rows"]
    return rows


def pace(db: Database, minutes: int) -> Pace:
    """The last minutes, with this one; fewer where more than 20,000 calls have ended in them."""
    rows = look(db, _PACE, {"minutes": minutes, "most": _MOST_CALLS})
    found = [Minute(row["lane"], row["minute"], row["started"], row["finished"]) for row in rows]
    return Pace(rows[0]["since"], [each for each in found if each.lane is not None])


def pause(db: Database, lane: str, *, by: UUID | None) -> None:
    """Claim no more jobs of the lane; what runs goes on. Pausing twice is harmless."""
    db.execute(_PAUSE, {"lane": lane, "by": by})


def resume(db: Database, lane: str, *, by: UUID | None) -> None:
    """Claim the lane's jobs again; doorbells rung before now count as lost. Resuming twice is harmless."""
    db.execute(_RESUME, {"lane": lane, "by": by})


_MOST_COUNTED = 10_000  # in 2 ms

_READY: LiteralString = "SELECT FROM jobs WHERE lane = {lane} AND NOT scheduled"
_LATER: LiteralString = "SELECT FROM jobs WHERE lane = {lane} AND scheduled"

# What is due stays marked as scheduled until a feeder has seen it: a second, longer where no worker runs.
_STATES = f"""
{WITH_FRONT}, overdue AS MATERIALIZED (
    SELECT lane, run_at FROM jobs WHERE scheduled AND run_at <= now() ORDER BY run_at LIMIT %(most)s
)
SELECT name AS lane, is_paused,
    (SELECT count(*) FROM (
        SELECT FROM jobs WHERE lane = name AND NOT scheduled LIMIT %(most)s) AS counted) AS ready,
    (SELECT count(*) FROM (
        SELECT FROM jobs WHERE lane = name AND scheduled LIMIT %(most)s) AS counted) AS later,
    (SELECT count(*) FROM overdue WHERE lane = name) AS overdue,
    (SELECT count(*) FROM front WHERE lane = name AND state = 'running') AS running,
    (SELECT count(*) FROM jobs WHERE lane = name AND suspect) AS suspects,
    extract(epoch FROM now() - least(
        (SELECT min(run_at) FROM front WHERE lane = name AND state = 'queued' AND run_at <= now()),
        (SELECT min(run_at) FROM overdue WHERE lane = name)
    ))::float8 AS oldest_age_seconds
FROM lanes ORDER BY array_position(ARRAY['interactive', 'standard', 'batch'], name)"""  # noqa: S608 - constants

_MOST_CALLS = 20_000  # read in 20 ms

# Where there are more calls, the minute of the first one is known in part.
_PACE = f"""
{WITH_FRONT}, recent AS MATERIALIZED (
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
    UNION ALL SELECT lane, started_at, true FROM front WHERE state = 'running'
    UNION ALL SELECT lane, finished_at, false FROM runs
)
SELECT since, lane, date_trunc('minute', at) AS minute, count(*) FILTER (WHERE is_start) AS started,
    count(*) FILTER (WHERE NOT is_start) AS finished
FROM span LEFT JOIN moments ON at >= since
GROUP BY since, lane, date_trunc('minute', at) ORDER BY minute, lane"""  # noqa: S608 - constants

_PAUSE = """
UPDATE lanes SET is_paused = true, changed_at = now(), changed_by = %(by)s
WHERE name = %(lane)s AND NOT is_paused"""

_RESUME = """
UPDATE lanes SET is_paused = false, resumed_at = now(), changed_at = now(), changed_by = %(by)s
WHERE name = %(lane)s AND is_paused"""
