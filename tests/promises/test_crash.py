"""Accepted is safe, recorded once: a worker that is killed in mid-call costs time and nothing else."""

from __future__ import annotations

import psycopg
from psycopg.rows import dict_row

from store.database import conninfo
from tests.fleet import Fleet
from tests.rows import Rows
from tests.sandbox import Sandbox
from tests.workers.conftest import until
from workers.client import Client

INPUT = {"profile": "Sam, gardener", "job": "Head gardener"}


def test_jobs_of_a_killed_worker_are_rescued_within_lease_and_two_seconds_and_finish_elsewhere(
    fleet: Fleet, rows: Rows, sandbox: Sandbox
) -> None:
    rows.assign("cv_draft", rows.model(rows.provider("slow", sandbox.openai), "m"), user="{{ profile }}")
    sandbox.fault("latency", seconds=30)
    client = Client(fleet.settings)
    victim = fleet.worker(lanes="standard", threads=4)
    ids = [client.enqueue("cv_draft", INPUT) for _ in range(4)]
    until(lambda: _calls_in_flight(sandbox) == 4)
    fleet.worker(lanes="standard", threads=4)
    until(lambda: _workers(fleet) == 2)
    victim.kill()
    victim.wait()
    with psycopg.connect(conninfo(fleet.settings.database()), autocommit=True, row_factory=dict_row) as db:
        killed = db.execute("SELECT clock_timestamp() AS at").fetchone()
        assert killed is not None
        sandbox.heal()
        assert {client.result(job_id, timeout=30).state for job_id in ids} == {"succeeded"}
        ended = db.execute("SELECT id, run, finished_at FROM job_history").fetchall()
        assert sorted(row["id"] for row in ended) == sorted(ids)
        assert {row["run"] for row in ended} == {2}
        rescued = db.execute(
            "SELECT max(finished_at) AS at FROM ai_usage_analytics WHERE outcome = 'lost'"
        ).fetchone()
        assert rescued is not None
        assert (rescued["at"] - killed["at"]).total_seconds() <= fleet.settings.lease_seconds + 2
        assert db.execute("SELECT count(*) FROM jobs").fetchone() == {"count": 0}
        usage = db.execute("SELECT run, outcome, count(*) FROM ai_usage_analytics GROUP BY 1, 2").fetchall()
        assert sorted((row["run"], row["outcome"], row["count"]) for row in usage) == [
            (1, "lost", 4),
            (2, "succeeded", 4),
        ]
    client.close()


def test_a_worker_told_to_stop_finishes_what_it_can_and_gives_back_the_rest(
    fleet: Fleet, rows: Rows, sandbox: Sandbox
) -> None:
    rows.assign("cv_draft", rows.model(rows.provider("slow", sandbox.openai), "m"), user="{{ profile }}")
    sandbox.fault("latency", seconds=1.0)
    client = Client(fleet.settings)
    worker = fleet.worker(lanes="standard", threads=2)
    ids = [client.enqueue("cv_draft", INPUT) for _ in range(6)]
    until(lambda: _calls_in_flight(sandbox) == 2)
    worker.terminate()
    assert worker.wait(timeout=20) == 0
    with psycopg.connect(conninfo(fleet.settings.database()), autocommit=True, row_factory=dict_row) as db:
        assert db.execute("SELECT count(*) FROM job_history").fetchone() == {"count": 2}
        left = db.execute("SELECT DISTINCT state, lease_token FROM jobs").fetchall()
        assert left == [{"state": "queued", "lease_token": None}]
    sandbox.heal()
    fleet.worker(lanes="standard", threads=4)
    assert {client.result(job_id, timeout=30).state for job_id in ids} == {"succeeded"}
    assert sandbox.calls()["count"] == 6, "no job was called twice"
    client.close()


def _calls_in_flight(sandbox: Sandbox) -> int:
    return int(sandbox.calls()["in_flight"])


def _workers(fleet: Fleet) -> int:
    with psycopg.connect(conninfo(fleet.settings.database()), autocommit=True) as db:
        found = db.execute("SELECT count(*) FROM workers WHERE threads > 1").fetchone()
    assert found is not None
    return int(found[0])
