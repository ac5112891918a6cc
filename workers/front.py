"""The front of the queue: where what runs is found without reading all that waits.

No index may hold the state, which claims change in place. But jobs are claimed in the order of lane, priority
and id, so what runs is among the first of its lane and priority, however many wait behind. Of each the first
2,000 are read: more than run at once anywhere but in the largest fleets. There, and behind thousands of jobs
that were scheduled long ago and have just come due, some of what runs is not seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from psycopg import Connection
from psycopg.rows import DictRow

MOST = 2000

PRIORITIES = """
priorities AS (
    (SELECT lane, priority FROM jobs WHERE NOT scheduled ORDER BY lane, priority LIMIT 1)
    UNION ALL
    SELECT following.lane, following.priority FROM priorities, LATERAL (
        SELECT lane, priority FROM jobs
        WHERE NOT scheduled AND (jobs.lane, jobs.priority) > (priorities.lane, priorities.priority)
        ORDER BY lane, priority LIMIT 1
    ) AS following
)"""
"""Lanes and priorities that have due jobs, of a `WITH RECURSIVE`: one look into the index for each."""


def first(columns: str) -> str:
    """The first jobs of each of `PRIORITIES`, as `jobs`."""
    return f"""
SELECT jobs.* FROM priorities, LATERAL (
    SELECT {columns} FROM jobs
    WHERE NOT scheduled AND jobs.lane = priorities.lane AND jobs.priority = priorities.priority
    ORDER BY id LIMIT {MOST}
) AS jobs"""  # noqa: S608 - every part is a constant


WITH_FRONT = f"""
WITH RECURSIVE {PRIORITIES}, front AS MATERIALIZED (
    {first("id, feature, lane, state, worker, run_at, started_at, suspect")}
)"""
"""How a statement begins that looks at the first jobs, as `front`."""


def look(db: Connection[DictRow], statement: str, values: Mapping[str, Any]) -> list[DictRow]:
    """What the statement finds. It goes along the indexes and stops where it may: a bitmap of all that waits
    would be made before the first row is counted."""
    with db.transaction():
        db.execute(_PLANNING)
        return db.execute(statement.encode(), values).fetchall()


_PLANNING = """
SELECT set_config('enable_bitmapscan', 'off', true), set_config('enable_seqscan', 'off', true),
    set_config('enable_sort', 'off', true)"""
