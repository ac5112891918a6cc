"""A past that never was: rows of history, as many and as large as years of jobs leave behind."""

from __future__ import annotations

from collections.abc import Mapping

from psycopg import Connection, sql

from bench.result import BenchError
from store.database import Pool
from workers import rollup

DAYS = 7
"""Days that the past covers, today among them."""

# `shift` moves every time of a sample by the same. Rows are written in the order of time, as they would have
# been, so that indexes look as they would.
_PAST = """
CREATE TEMPORARY TABLE past AS
SELECT uuidv7(finished_at - now()) AS id, n, finished_at, samples[1 + n %% cardinality(samples)] AS sample
FROM (SELECT array_agg(id) AS samples FROM job_history) AS found,
    LATERAL (
        SELECT n, CASE n %% %(days)s
            WHEN 0 THEN midnight + random() * (now() - midnight)
            ELSE midnight - (random() + n %% %(days)s - 1) * interval '1 day'
        END AS finished_at
        FROM generate_series(1, %(rows)s) AS n, date_trunc('day', now(), 'UTC') AS midnight
    ) AS times
ORDER BY finished_at"""
_DAY = """
CREATE TEMPORARY TABLE past AS
SELECT uuidv7(finished_at - now()) AS id, n, finished_at, samples[1 + n %% cardinality(samples)] AS sample
FROM (SELECT array_agg(id) AS samples FROM (SELECT id FROM job_history ORDER BY finished_at DESC LIMIT 24)
        AS newest) AS found,
    LATERAL (
        SELECT n, date_trunc('day', now(), 'UTC') - (%(age)s - random()) * interval '1 day' AS finished_at
        FROM generate_series(1, %(rows)s) AS n
    ) AS times
ORDER BY finished_at"""
_PARTITIONS = "SELECT ensure_partitions((now() AT TIME ZONE 'UTC')::date - %(days)s, %(days)s)"
_COLUMNS = (
    "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped"
)
_SHIFT = "+ (past.finished_at - pattern.finished_at)"
_HISTORY = {
    "id": "past.id",
    "user_id": "'user-' || past.n % 10000",
    "lease_token": "gen_random_uuid()",
    **{name: f"pattern.{name} {_SHIFT}" for name in ("created_at", "run_at", "started_at", "finished_at")},
}
_CALLS = {
    "job_id": "past.id",
    "user_id": "'user-' || past.n % 10000",
    **{name: f"pattern.{name} {_SHIFT}" for name in ("started_at", "finished_at")},
}
_COUNT = """
SELECT (SELECT count(*) FROM job_history), (SELECT count(*) FROM ai_usage_analytics),
    (SELECT count(DISTINCT tableoid) FROM job_history), pg_database_size(current_database()) / 1000000"""


def invent(db: Connection, rows: int) -> tuple[int, int]:
    """Copy the jobs of `job_history`, with their calls, until there are `rows` more of them.

    They end at random moments of the last seven days (UTC), as many each day, today's before now. Returns
    how many partitions hold them, and the size of the database in MB. `db` is the owner's, in autocommit.
    """
    before = db.execute("SELECT count(*) FROM job_history").fetchone()
    db.execute(_PARTITIONS, {"days": DAYS})
    db.execute(_PAST, {"rows": rows, "days": DAYS})
    db.execute(_copy(db, "job_history", "id", _HISTORY))
    db.execute(_copy(db, "ai_usage_analytics", "job_id", _CALLS))
    db.execute("DROP TABLE past")
    db.execute("VACUUM (ANALYZE) job_history, ai_usage_analytics")  # as the autovacuum would in time
    db.execute("CHECKPOINT")
    found = db.execute(_COUNT).fetchone()
    assert before is not None
    assert found is not None
    jobs, calls, partitions, megabytes = found
    if jobs != rows + before[0] or calls < jobs:
        raise BenchError(f"The past has {jobs} jobs and {calls} calls, not {rows + before[0]}.")
    return partitions, megabytes


def invent_day(db: Connection, rows: int, *, age: int) -> None:
    """Copy the newest jobs of `job_history`, with their calls, to `rows` moments of the day (UTC) that was
    `age` days ago. `db` is the owner's, in autocommit."""
    db.execute("SELECT ensure_partitions((now() AT TIME ZONE 'UTC')::date - %s::integer, 1)", [age])
    db.execute(_DAY, {"rows": rows, "age": age})
    db.execute(_copy(db, "job_history", "id", _HISTORY))
    db.execute(_copy(db, "ai_usage_analytics", "job_id", _CALLS))
    db.execute("DROP TABLE past")


def count(pool: Pool) -> None:
    """Count the past into the statistics, as workers would have done when it was the present."""
    while True:
        with pool.connection() as db:
            step = rollup.advance(db, pause_seconds=0)
        if step is not None and step.caught_up:
            return


def _copy(db: Connection, table: str, key: str, changed: Mapping[str, str]) -> sql.Composed:
    """Every column of the samples as it is, but those in `changed`, and the transaction, which is ours."""
    columns = [name for (name,) in db.execute(_COLUMNS, [table]) if name != "xid"]
    values = [
        sql.SQL(changed[name]) if name in changed else sql.Identifier("pattern", name) for name in columns
    ]
    return sql.SQL(
        "INSERT INTO {table} ({columns}) SELECT {values} "
        "FROM past JOIN {table} AS pattern ON pattern.{key} = past.sample"
    ).format(
        table=sql.Identifier(table),
        columns=sql.SQL(", ").join(map(sql.Identifier, columns)),
        values=sql.SQL(", ").join(values),
        key=sql.Identifier(key),
    )
