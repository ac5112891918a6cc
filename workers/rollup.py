"""Calls → sums by hour, day and user: what every statistic is read from.

What is counted next is decided by transactions, not by time. `usage_rollup.counted` is a snapshot of
PostgreSQL: what it sees has been counted. A turn takes the snapshot of now, counts the calls of the
transactions that this one sees and that one did not, and puts it in its place, all in one transaction: a call
that is committed late is not missed, and none is counted twice, whatever is killed at whichever moment. One
process counts at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from psycopg import Connection
from psycopg.rows import DictRow

from workers import alerts
from workers.alerts import Alert
from workers.histogram import BOUNDS_MS, BUCKETS

Database = Connection[DictRow]

MOST = 10_000
"""Calls of one transaction of ours, at most, unless those of one of theirs are more."""

CONSUMED = (
    *("input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens"),
    *("characters", "seconds", "images"),
)
"""What calls consume, as columns of calls and of sums."""


@dataclass(frozen=True, slots=True)
class Advance:
    """What a turn did: how many attempts it counted, and whether none are left."""

    counted: int
    caught_up: bool


def advance(db: Database, *, pause_seconds: float, most: int = MOST) -> Advance | None:
    """Count what has been recorded, `most` attempts or so. None where somebody else does, or just has."""
    with db.transaction():
        if db.execute(_TURN, {"pause": pause_seconds}).fetchone() is None:
            return None
        # Not earlier: while the row was not ours its snapshot might have overtaken the one of now.
        step = db.execute(_STEP, {"most": most}).fetchone()
        assert step is not None, "usage_rollup always has its one row"  # noqa: S101
        counted = db.execute(_COUNT, step).fetchone()
        assert counted is not None, "an aggregate always has its row"  # noqa: S101
        if counted["recent"]:
            alerts.raise_all(db, [Alert(**row) for row in db.execute(_ALARMING, step)])
    return Advance(counted["counted"], caught_up=step["caught_up"])


def rebase(db: Database) -> None:
    """Go on counting where the database has come from another cluster of PostgreSQL."""
    db.execute("SELECT usage_rebase()")


def prune(db: Database) -> None:
    """Drop minutes that are older than a day."""
    db.execute("DELETE FROM usage_minutes WHERE minute < now() - interval '25 hours'")


_TURN = """
SELECT FROM usage_rollup
WHERE counted_at <= now() - %(pause)s * interval '1 second' OR counted_at > now()
FOR UPDATE SKIP LOCKED"""

# Transactions are counted whole. `cut` is the first one that must wait for the next turn.
_STEP = """
WITH state AS MATERIALIZED (
    SELECT counted, pg_snapshot_xmax(counted) AS begin FROM usage_rollup
), found AS MATERIALIZED (
    SELECT begin,
        (SELECT xid FROM ai_usage_analytics WHERE xid >= begin ORDER BY xid LIMIT 1) AS first,
        (SELECT xid FROM ai_usage_analytics WHERE xid >= begin ORDER BY xid OFFSET %(most)s LIMIT 1) AS over
    FROM state
), cutting AS MATERIALIZED (
    SELECT CASE WHEN over > first THEN over WHEN over IS NOT NULL THEN (
        SELECT xid FROM ai_usage_analytics WHERE xid > first ORDER BY xid LIMIT 1
    ) END AS cut
    FROM found
), step AS (
    SELECT begin, counted, cut IS NULL AS caught_up,
        CASE WHEN cut IS NULL THEN pg_current_snapshot()
             ELSE snapshot_before(pg_current_snapshot(), cut) END AS upto
    FROM state, cutting
)
SELECT begin::text, pg_snapshot_xmax(upto)::text AS end, upto::text, caught_up,
    ARRAY(SELECT running::text FROM pg_snapshot_xip(counted) AS running) AS running
FROM step"""

_OF_THIS_STEP = """
FROM ai_usage_analytics
WHERE {numbers} AND pg_visible_in_snapshot(xid, %(upto)s::pg_snapshot)"""
_STEPS = (
    _OF_THIS_STEP.format(numbers="xid = ANY (%(running)s::xid8[])"),
    _OF_THIS_STEP.format(numbers="xid >= %(begin)s::xid8 AND xid < %(end)s::xid8"),
)


def _fresh(columns: str) -> str:
    return " UNION ALL ".join(f"SELECT {columns} {step}" for step in _STEPS)


# Neither a user with an endless name nor a provider that reports quintillions of tokens may stop the count.
LONGEST_USER = 200
_LARGEST = 1_000_000_000

OBSERVED = f"""
    finished_at, left(user_id, {LONGEST_USER}) AS user_id, provider_id, provider, model, feature, outcome,
    error_class, error_message, called, failover, tokens_estimated, cost_usd,
    {", ".join(f"least(greatest({name}, 0), {_LARGEST}) AS {name}" for name in CONSUMED)},
    CASE WHEN called AND outcome <> 'lost' THEN latency_ms END AS latency_ms,
    CASE WHEN called AND outcome <> 'lost' THEN
        width_bucket(latency_ms - 1, ARRAY[{", ".join(map(str, BOUNDS_MS))}])
    END AS bucket"""
"""Columns of `ai_usage_analytics` as they are summed up."""

SUMS: Mapping[str, str] = {
    "attempts": "count(*)",
    "calls": "count(*) FILTER (WHERE called)",
    **{name: f"coalesce(sum({name}), 0)" for name in CONSUMED},
    "cost_usd": "coalesce(sum(cost_usd), 0)",
    "wasted_usd": "coalesce(sum(cost_usd) FILTER (WHERE outcome <> 'succeeded'), 0)",
    "unpriced_calls": "count(*) FILTER (WHERE called AND cost_usd IS NULL)",
    "failovers": "count(*) FILTER (WHERE called AND failover)",
    "estimated_calls": "count(*) FILTER (WHERE called AND tokens_estimated)",
    "latency_ms_sum": "coalesce(sum(latency_ms), 0)",
    "latency_ms_max": "coalesce(max(latency_ms), 0)",
}
"""The counters that rollups have in common, and how they come from `OBSERVED`."""

OUTCOMES: Mapping[str, str] = {
    name: f"count(*) FILTER (WHERE called AND outcome = '{name}')"
    for name in ("succeeded", "failed", "superseded", "lost")
}
"""Calls by outcome; rollups whose key holds the outcome do without."""

HISTOGRAM: Mapping[str, str] = {
    name: f"count(*) FILTER (WHERE bucket = {number})" for number, name in enumerate(BUCKETS)
}
"""Calls by latency."""


def _added(
    table: str, constraint: str, keys: Mapping[str, str], sums: Mapping[str, str], *, where: str = "true"
) -> str:
    """An INSERT that adds what is fresh to the rows of a rollup, in the order of their keys."""
    merged = ", ".join(f"{name} = {_merged(name)}" for name in sums)
    order = ", ".join(str(number) for number in range(1, len(keys) + 1))
    return f"""INSERT INTO {table} AS kept ({", ".join([*keys, *sums])})
    SELECT {", ".join([*keys.values(), *sums.values()])} FROM fresh WHERE {where}
    GROUP BY {order} ORDER BY {order}
    ON CONFLICT ON CONSTRAINT {constraint} DO UPDATE SET {merged}"""


def _merged(name: str) -> str:
    if name.endswith("_max"):
        return f"greatest(kept.{name}, EXCLUDED.{name})"
    return f"kept.{name} + EXCLUDED.{name}"


def _same(names: Sequence[str]) -> dict[str, str]:
    return {name: name for name in names}


_DAY = "(finished_at AT TIME ZONE 'UTC')::date"
_KINDS = _same(["provider", "model", "feature", "outcome", "error_class"])
_HOURLY = _added(
    "usage_hourly",
    "uq_usage_hourly_hour",
    {"hour": "date_trunc('hour', finished_at, 'UTC')", "provider_id": "provider_id", **_KINDS},
    {**SUMS, **HISTOGRAM},
)
_OVERALL = _added(
    "usage_overall_hourly",
    "pk_usage_overall_hourly",
    {"hour": "date_trunc('hour', finished_at, 'UTC')"},
    {**SUMS, **OUTCOMES, **HISTOGRAM},
)
_DAILY = _added(
    "usage_daily",
    "uq_usage_daily_day",
    {"day": _DAY, "provider_id": "provider_id", **_KINDS},
    {**SUMS, **HISTOGRAM},
)
_TOTALS = _added(
    "usage_totals",
    "uq_usage_totals_provider",
    _KINDS,
    {**SUMS, **HISTOGRAM},
)
_USERS = _added(
    "usage_user_daily",
    "uq_usage_user_daily_user_id",
    {"user_id": "user_id", "day": _DAY},
    {**SUMS, **OUTCOMES},
)
_WEEKS = _added(
    "usage_user_weekly",
    "uq_usage_user_weekly_week",
    {"week": f"date_trunc('week', {_DAY})::date", "user_id": "user_id"},
    {"calls": SUMS["calls"]},
)
_MINUTES = _added(
    "usage_minutes",
    "uq_usage_minutes_provider_id",
    {
        "provider_id": "provider_id",
        "minute": "date_trunc('minute', finished_at, 'UTC')",
        "error_class": "error_class",
    },
    {"calls": "count(*)", **HISTOGRAM},
    where="called AND provider_id IS NOT NULL AND finished_at > now() - interval '1 day'",
)

_HEALTH = """
INSERT INTO provider_health AS kept (
    provider_id, last_success_at, last_error_at, last_error_class, last_error_message)
SELECT provider_id, last_success_at, last_error_at, error_class, error_message
FROM (
    SELECT provider_id, max(finished_at) AS last_success_at FROM fresh
    WHERE provider_id IS NOT NULL AND called AND error_class IS NULL GROUP BY provider_id
) AS good FULL JOIN (
    SELECT DISTINCT ON (provider_id) provider_id, finished_at AS last_error_at, error_class, error_message
    FROM fresh WHERE provider_id IS NOT NULL AND called AND error_class IS NOT NULL
    ORDER BY provider_id, finished_at DESC
) AS bad USING (provider_id)
ORDER BY provider_id
ON CONFLICT (provider_id) DO UPDATE SET
    last_success_at = greatest(kept.last_success_at, EXCLUDED.last_success_at),
    (last_error_at, last_error_class, last_error_message) = (
        SELECT at, class, message FROM (VALUES
            (kept.last_error_at, kept.last_error_class, kept.last_error_message),
            (EXCLUDED.last_error_at, EXCLUDED.last_error_class, EXCLUDED.last_error_message)
        ) AS errors (at, class, message) ORDER BY at DESC NULLS LAST LIMIT 1)"""

_COUNT = f"""
WITH fresh AS MATERIALIZED ({_fresh(OBSERVED)}),
hourly AS ({_HOURLY}),
overall AS ({_OVERALL}),
daily AS ({_DAILY}),
totals AS ({_TOTALS}),
users AS ({_USERS}),
weeks AS ({_WEEKS}),
minutes AS ({_MINUTES}),
health AS ({_HEALTH}),
moved AS (
    UPDATE usage_rollup SET counted = %(upto)s::pg_snapshot, counted_at = now()
)
SELECT count(*) AS counted,
    coalesce(bool_or(finished_at > now() - interval '1 hour'), false) AS recent
FROM fresh"""

_ALARMING_COLUMNS = """
    finished_at, provider_id, provider, model_row_id, model, called, outcome, error_class, error_message,
    cost_usd, key_version"""

# Of what has just happened: nobody wants to be woken by a history that is counted belatedly. Personal keys,
# whose versions are negative, are their owners' business.
_ALARMING = f"""
WITH fresh AS MATERIALIZED ({_fresh(_ALARMING_COLUMNS)}), recent AS (
    SELECT *, coalesce(key_version, 0) < 0 AS is_personal, left(error_message, 500) AS said FROM fresh
    WHERE called AND finished_at > now() - interval '1 hour' AND provider_id IS NOT NULL
)
SELECT 'key_refused' AS kind, 'providers' AS noun, provider_id::text AS noun_id, count(*) AS times,
    format('%%s refuses the key: %%s. Store a valid one.', max(provider), rtrim(max(said), '. ')) AS message
FROM recent WHERE error_class = 'auth' AND NOT is_personal GROUP BY provider_id
UNION ALL
SELECT 'quota_exhausted', 'providers', provider_id::text, count(*),
    format('The quota at %%s is used up: %%s. Raise it there, or wait.',
        max(provider), rtrim(max(said), '. '))
FROM recent WHERE error_class = 'quota' AND NOT is_personal GROUP BY provider_id
UNION ALL
SELECT 'model_missing', 'models', model_row_id::text, count(*),
    format('%%s does not know %%s: %%s. Correct its name, or assign another.', max(provider), max(model),
        rtrim(max(said), '. '))
FROM recent WHERE error_class = 'not_found' AND model_row_id IS NOT NULL GROUP BY model_row_id
UNION ALL
SELECT 'unknown_price', 'models', model_row_id::text, count(*),
    format('Calls of %%s at %%s cost nobody knows how much. Add a price to the model.',
        max(model), max(provider))
FROM recent WHERE outcome IN ('succeeded', 'superseded') AND cost_usd IS NULL AND model_row_id IS NOT NULL
GROUP BY model_row_id"""
