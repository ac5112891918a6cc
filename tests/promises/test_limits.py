"""A limit is kept by all processes together, and used; a job that meets it waits, and has not failed."""

from __future__ import annotations

import time
from datetime import datetime
from itertools import pairwise

import psycopg
import pytest

from tests.fleet import Fleet
from tests.rows import Rows
from tests.sandbox import Sandbox
from tests.workers.conftest import until
from workers.client import Client

LIMIT = 600
INPUT = {"profile": "Sam, gardener", "job": "Head gardener"}


@pytest.mark.parametrize(
    ("jobs", "feeder_seconds", "least"),
    [(150, 0.1, 0.9), pytest.param(900, 1.0, 0.95, marks=pytest.mark.full)],
)
def test_600_requests_a_minute_over_four_processes(
    fleet: Fleet, rows: Rows, sandbox: Sandbox, jobs: int, feeder_seconds: float, least: float
) -> None:
    fleet.settings = fleet.settings.model_copy(update={"feeder_seconds": feeder_seconds})
    provider = rows.provider("limited", sandbox.openai, requests_per_minute=LIMIT)
    rows.assign("cv_draft", rows.model(provider, "m"), user="{{ profile }}", max_retries=0)
    client = Client(fleet.settings)
    for _ in range(jobs):
        client.enqueue("cv_draft", INPUT)
    for _ in range(4):
        fleet.worker(lanes="standard", threads=4)
    with psycopg.connect(fleet.settings.database(), autocommit=True) as db:
        until(lambda: _ended(db) == jobs, seconds=30 + jobs / 5)
        ended = db.execute(
            "SELECT state, error_class, retries, calls, count(*) FROM job_history GROUP BY 1, 2, 3, 4"
        ).fetchall()
        waits = db.execute(
            "SELECT count(*) FROM ai_usage_analytics WHERE error_class = 'rate_wait' AND NOT called"
        ).fetchone()
    client.close()
    instants = sorted(datetime.fromisoformat(call["at"]).timestamp() for call in sandbox.calls()["calls"])
    assert ended == [("succeeded", None, 0, 1, jobs)]
    assert len(instants) == jobs
    enough = instants[: int(jobs * 0.9)]  # in the end few jobs are left to use the limit
    steady = [at for at in enough if at >= instants[0] + 2]  # once all processes run
    used = (len(steady) - 1) / (steady[-1] - steady[0]) * 60
    held = {seconds: most(instants, seconds) for seconds in (1, 6, 60)}
    print(f"{used:.0f} of {LIMIT} a minute used; most in 1, 6, 60 s: {held}; {waits} waits of {jobs} jobs")
    assert held[60] <= LIMIT
    assert all(count <= 0.03 * LIMIT + seconds * LIMIT / 60 for seconds, count in held.items())
    assert used >= least * LIMIT


def most(instants: list[float], seconds: float) -> int:
    """The most calls that any span of so many seconds holds."""
    return max(sum(at <= one <= at + seconds for one in instants) for at in instants)


@pytest.mark.parametrize(("jobs", "cooldowns"), [(500, 2), pytest.param(4000, 15, marks=pytest.mark.full)])
def test_a_dead_primary_gets_one_probe_a_cooldown_from_the_whole_fleet(
    fleet: Fleet, rows: Rows, sandbox: Sandbox, jobs: int, cooldowns: int
) -> None:
    """And the healthy backup is called by nearly all threads at a time."""
    cooldown, processes, threads = 2.0, 2, 32
    fleet.settings = fleet.settings.model_copy(update={"breaker_cooldown_seconds": cooldown})
    dead = rows.model(rows.provider("dead", sandbox.openai), "dead")
    backup = rows.model(rows.provider("well", sandbox.anthropic, type="anthropic"), "well")
    rows.assign("cv_draft", dead, backup, user="{{ profile }}", max_retries=0)
    sandbox.fault("status", protocol="openai", status=503)
    sandbox.fault("latency", protocol="anthropic", seconds=1.0)
    client = Client(fleet.settings)
    for _ in range(jobs):
        client.enqueue("cv_draft", INPUT)
    for _ in range(processes):
        fleet.worker(lanes="standard", threads=threads)
    with psycopg.connect(fleet.settings.database(), autocommit=True) as db:
        until(lambda: _ended(db) == jobs, seconds=60 + jobs / 20)
        states = db.execute("SELECT state, provider, count(*) FROM job_history GROUP BY 1, 2").fetchall()
        called = db.execute(
            "SELECT started_at, breaker FROM ai_usage_analytics WHERE model = 'dead' AND called ORDER BY 1"
        ).fetchall()
    client.close()
    assert states == [("succeeded", "well", jobs)]
    closed = [at for at, breaker in called if breaker == "closed"]
    probes = [at for at, breaker in called if breaker == "half_open"]
    gaps = [(later - earlier).total_seconds() for earlier, later in pairwise(probes)]
    in_flight = sandbox.calls()["max_in_flight"]
    print(f"{len(closed)} calls before it opened, {len(probes)} probes, gaps {gaps}; {in_flight} in flight")
    assert (closed[-1] - closed[0]).total_seconds() <= 2.5  # what one knows all know, on a busy machine, too
    assert len(probes) >= cooldowns
    assert min(gaps) >= cooldown * 0.98
    assert in_flight >= 0.95 * processes * threads


def _ended(db: psycopg.Connection) -> int:
    row = db.execute("SELECT count(*) FROM job_history").fetchone()
    assert row is not None
    time.sleep(0.1)
    return int(row[0])
