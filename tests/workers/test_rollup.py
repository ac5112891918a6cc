"""Each recorded call is counted once: however late it commits, whoever counts, whatever is killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from decimal import Decimal
from itertools import pairwise
from math import ceil
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.rows import dict_row

from store.database import Pool
from store.settings import Settings
from tests.usage_rows import MODEL_ID, PROVIDER_ID, call, record
from tests.workers.conftest import until
from workers import rollup
from workers.histogram import BOUNDS_MS, BUCKETS, percentile

Owner = psycopg.Connection[dict[str, Any]]


@pytest.fixture
def owner(settings: Settings) -> Iterator[Owner]:
    with psycopg.connect(settings.database(), autocommit=True, row_factory=dict_row) as db:
        yield db


def count(db: Pool, **options: int) -> rollup.Advance | None:
    with db.connection() as connection:
        return rollup.advance(connection, pause_seconds=0, **options)


def counted(owner: Owner) -> list[int]:
    """What each rollup has counted."""
    tables = (
        *("usage_hourly", "usage_overall_hourly", "usage_daily", "usage_totals", "usage_minutes"),
        *("usage_user_daily", "usage_user_weekly"),
    )
    sums = (f"SELECT coalesce(sum(calls), 0)::int AS calls FROM {table}" for table in tables)
    return [owner.execute(query.encode()).fetchone()["calls"] for query in sums]  # type: ignore[index]


def test_a_call_that_commits_after_later_ones_is_counted_once(
    db: Pool, owner: Owner, settings: Settings
) -> None:
    with psycopg.connect(settings.database()) as slow:
        record(slow, call(), call())
        record(owner, call())
        assert count(db) == rollup.Advance(1, caught_up=True)
        record(owner, call())
        assert count(db) == rollup.Advance(1, caught_up=True)
        assert counted(owner) == [2] * 7
        slow.commit()
        assert count(db) == rollup.Advance(2, caught_up=True)
    assert count(db) == rollup.Advance(0, caught_up=True)
    assert counted(owner) == [4] * 7


def test_what_is_rolled_back_is_not_counted(db: Pool, owner: Owner, settings: Settings) -> None:
    with psycopg.connect(settings.database()) as regretful:
        record(regretful, call())
        assert count(db) == rollup.Advance(0, caught_up=True)
        regretful.rollback()
    record(owner, call())
    assert count(db) == rollup.Advance(1, caught_up=True)
    assert counted(owner) == [1] * 7


def test_any_order_of_commits_and_counts_counts_each_call_once(
    db: Pool, owner: Owner, settings: Settings
) -> None:
    """Transactions that overlap at random, with counts of random size in between."""
    chance = random.Random(7)
    recorded = 0
    with ExitStack() as stack:
        writers = [stack.enter_context(psycopg.connect(settings.database())) for _ in range(5)]
        waiting = dict.fromkeys(range(5), 0)
        for _ in range(300):
            writer, act = chance.randrange(5), chance.random()
            if act < 0.5:
                record(writers[writer], call())
                waiting[writer] += 1
            elif act < 0.75:
                writers[writer].commit()
                recorded += waiting[writer]
                waiting[writer] = 0
            elif act < 0.8:
                writers[writer].rollback()
                waiting[writer] = 0
            else:
                count(db, most=chance.choice([1, 3, 1000]))
                assert counted(owner)[0] <= recorded
        for connection in writers:
            connection.rollback()
    while not (step := count(db, most=3)) or not step.caught_up:
        assert step is not None
    assert recorded > 50
    assert counted(owner) == [recorded] * 7


def test_a_backlog_is_counted_in_steps_that_split_no_transaction(db: Pool, owner: Owner) -> None:
    for _ in range(10):
        with owner.transaction():
            record(owner, call(), call(), call())
    steps: list[rollup.Advance] = []
    while not steps or not steps[-1].caught_up:
        step = count(db, most=5)
        assert step is not None
        steps.append(step)
    assert [step.counted for step in steps] == [3] * 10
    assert counted(owner) == [30] * 7


def test_only_one_counts_at_a_time_and_not_too_often(db: Pool, owner: Owner) -> None:
    record(owner, call())
    with db.connection() as first, first.transaction():
        first.execute("SELECT FROM usage_rollup FOR UPDATE")
        assert count(db) is None
    assert count(db) == rollup.Advance(1, caught_up=True)
    with db.connection() as connection:
        assert rollup.advance(connection, pause_seconds=60) is None


_COUNTER = """
import sys
from store.database import Role, open_pool
from workers import rollup
pool = open_pool(sys.argv[1], Role.WORKER, size=1)
while True:
    with pool.connection() as db:
        rollup.advance(db, pause_seconds=0, most=20)
    print(flush=True)
"""


def test_killing_whoever_counts_loses_and_doubles_nothing(db: Pool, owner: Owner, settings: Settings) -> None:
    done = threading.Event()
    recorded = 0

    def write() -> None:
        nonlocal recorded
        with psycopg.connect(settings.database()) as writer:
            while not done.is_set():
                record(writer, call(), call())
                writer.commit()
                recorded += 2

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(5):
            counter = subprocess.Popen(
                [sys.executable, "-c", _COUNTER, settings.database()], stdout=subprocess.PIPE
            )
            assert counter.stdout is not None
            for _ in range(random.randrange(2, 30)):
                assert counter.stdout.readline()
            os.kill(counter.pid, signal.SIGKILL)
            counter.communicate()
    finally:
        done.set()
        thread.join()
    # The server may still be busy with what the last one asked for.
    until(lambda: (step := count(db)) is not None and step.caught_up)
    until(lambda: (step := count(db)) is not None and step.counted == 0)
    assert recorded > 20
    assert counted(owner) == [recorded] * 7


def test_what_another_cluster_counted_is_not_counted_again(db: Pool, owner: Owner) -> None:
    """As a dump of a cluster that was far ahead leaves it, restored into this one."""
    record(owner, call(), call())
    count(db)
    record(owner, call())
    owner.execute("UPDATE usage_rollup SET counted = '900000000:900000000:', cluster = cluster + 1")
    owner.execute("UPDATE ai_usage_analytics SET xid = '899999999'")
    last = owner.execute("SELECT max(job_id::text)::uuid AS id FROM ai_usage_analytics").fetchone()
    assert last is not None
    owner.execute("UPDATE ai_usage_analytics SET xid = '900000007' WHERE job_id = %(id)s", last)
    assert count(db) == rollup.Advance(0, caught_up=True), "this is the fault that a rebase mends"
    owner.execute("UPDATE usage_rollup SET counted = '900000000:900000000:'")
    with db.connection() as connection:
        rollup.rebase(connection)
        rollup.rebase(connection)
    assert count(db) == rollup.Advance(1, caught_up=True)
    record(owner, call())
    assert count(db) == rollup.Advance(1, caught_up=True)
    assert counted(owner)[0] == 4


def test_sums_are_those_of_the_calls(db: Pool, owner: Owner) -> None:
    record(
        owner,
        call(user_id="u1", cached_tokens=10, reasoning_tokens=3),
        call(user_id="u2", latency_ms=5, cost_usd=None, tokens_estimated=True, failover=True),
        call(
            user_id="u1", outcome="failed", error_class="timeout", status=None, cost_usd=None, latency_ms=7000
        ),
        call(
            user_id="u1",
            outcome="failed",
            error_class="overloaded",
            failover=True,
            called=False,
            cost_usd=0,
            latency_ms=0,
        ),
        call(outcome="superseded", latency_ms=300_001),
        call(
            outcome="lost",
            error_class="connection",
            **dict.fromkeys(["provider_id", "provider", "model", "latency_ms", "cost_usd", "input_tokens"]),
        ),
    )
    count(db)
    hourly = owner.execute(
        "SELECT sum(attempts)::int AS attempts, sum(calls)::int AS calls, sum(input_tokens)::int AS input, "
        "sum(cached_tokens)::int AS cached, sum(reasoning_tokens)::int AS reasoning, sum(cost_usd) AS cost, "
        "sum(unpriced_calls)::int AS unpriced, sum(wasted_usd) AS wasted, sum(failovers)::int AS failovers, "
        "sum(estimated_calls)::int AS estimated, sum(latency_ms_sum)::int AS ms, "
        "max(latency_ms_max) AS longest, "
        "sum(ms_5)::int AS ms_5, sum(ms_150)::int AS ms_150, sum(ms_7500)::int AS ms_7500, "
        "sum(ms_more)::int AS ms_more FROM usage_hourly"
    ).fetchone()
    assert hourly == {
        "attempts": 6,
        "calls": 5,
        "input": 500,
        "cached": 10,
        "reasoning": 3,
        "cost": Decimal("0.02"),
        "unpriced": 3,
        "wasted": Decimal("0.01"),
        "failovers": 1,
        "estimated": 1,
        "ms": 120 + 5 + 7000 + 300_001,
        "longest": 300_001,
        "ms_5": 1,
        "ms_150": 1,
        "ms_7500": 1,
        "ms_more": 1,
    }
    users = owner.execute(
        "SELECT user_id, attempts, calls, succeeded, failed, superseded, lost, unpriced_calls, "
        "wasted_usd, failovers FROM usage_user_daily ORDER BY user_id"
    ).fetchall()
    assert [tuple(row.values()) for row in users] == [
        ("u1", 3, 2, 1, 1, 0, 0, 1, 0, 0),
        ("u2", 1, 1, 1, 0, 0, 0, 1, 0, 1),
        (None, 2, 2, 0, 0, 1, 1, 1, Decimal("0.01"), 0),
    ]
    health = owner.execute("SELECT provider_id, last_error_class FROM provider_health").fetchall()
    assert health == [{"provider_id": PROVIDER_ID, "last_error_class": "timeout"}]


def test_neither_endless_names_nor_absurd_numbers_stop_the_count(db: Pool, owner: Owner) -> None:
    endless = random.Random(1).randbytes(20_000).hex()
    record(owner, call(user_id=endless, input_tokens=2**63 - 1, seconds=float("nan")))
    record(owner, call(user_id=endless, input_tokens=2**63 - 1, seconds=float("inf"), output_tokens=-5))
    assert count(db) == rollup.Advance(2, caught_up=True)
    row = owner.execute("SELECT user_id, input_tokens, output_tokens FROM usage_user_daily").fetchone()
    assert row == {"user_id": endless[:200], "input_tokens": 2_000_000_000, "output_tokens": 20}


def test_alerts_tell_of_what_has_just_happened(db: Pool, owner: Owner) -> None:
    record(
        owner,
        call(cost_usd=None),
        call(outcome="failed", error_class="auth", error_message="bad key", status=401, cost_usd=0),
        call(outcome="failed", error_class="auth", error_message="bad key", status=401, cost_usd=0),
        call(outcome="failed", error_class="auth", key_version=-1, provider_id=MODEL_ID, cost_usd=0),
        call(outcome="failed", error_class="quota", status=429, cost_usd=0),
        call(outcome="failed", error_class="not_found", status=404, cost_usd=0),
        call(outcome="failed", error_class="timeout", cost_usd=None),
    )
    count(db)
    found = owner.execute("SELECT kind, noun, noun_id, count FROM alerts ORDER BY kind").fetchall()
    assert [tuple(alert.values()) for alert in found] == [
        ("key_refused", "providers", str(PROVIDER_ID), 2),
        ("model_missing", "models", str(MODEL_ID), 1),
        ("quota_exhausted", "providers", str(PROVIDER_ID), 1),
        ("unknown_price", "models", str(MODEL_ID), 1),
    ]


def test_the_database_and_python_have_the_same_buckets(owner: Owner) -> None:
    columns = owner.execute(
        "SELECT relname, array_agg(attname::text ORDER BY attnum) AS names FROM pg_attribute "
        "JOIN pg_class ON pg_class.oid = attrelid WHERE attname ~ '^ms_' AND relkind = 'r' GROUP BY relname"
    ).fetchall()
    assert {row["relname"]: tuple(row["names"]) for row in columns} == dict.fromkeys(
        ["usage_daily", "usage_hourly", "usage_minutes", "usage_overall_hourly", "usage_totals"], BUCKETS
    )


@given(
    st.lists(st.integers(1, 300_000), min_size=1, max_size=200),
    st.sampled_from([1.0, 50.0, 95.0, 99.0, 100.0]),
)
def test_a_percentile_lies_in_the_bucket_of_the_true_one(latencies: list[int], percent: float) -> None:
    bounds = [0, *BOUNDS_MS]
    histogram = [sum(lower < ms <= upper for ms in latencies) for lower, upper in pairwise(bounds)]
    true = sorted(latencies)[max(0, ceil(len(latencies) * percent / 100) - 1)]
    place = next(place for place, upper in enumerate(BOUNDS_MS) if true <= upper)
    found = percentile([*histogram, 0], percent)
    assert found is not None
    assert bounds[place] <= found <= bounds[place + 1]


def test_no_calls_have_no_percentile() -> None:
    assert percentile([0] * len(BUCKETS), 95) is None
