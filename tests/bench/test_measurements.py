"""A tiny run of each measurement on the real engines: it gives figures, names its bounds, and tidies up."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from rich.console import Console

from bench import report
from bench.__main__ import MEASUREMENTS
from bench.configuration import distinct_input
from bench.past import DAYS, invent
from bench.result import BenchError, Bound, Effort, Result
from bench.runs import Runs
from bench.stage import Stage, stage

TINY = Effort(rounds=1, seconds=0.5, quick=True)
BOUNDS = {
    "statements": [],
    "group_commit": [
        ("grouped : single, 8 threads", 1.0),
        ("grouped : single, 64 threads", 1.0),
        ("grouped : serial, 64 threads", 4.0),
    ],
    "bulk_copy": [("COPY", 50_000)],
    "bulk_upload": [("seconds, median", 6.0), ("memory of the API, more", 64.0)],
    "interactive": [("p50, provider of 200 ms,", 100.0), ("p95, provider of 200 ms,", 100.0)],
    "in_flight": [("CPU of a job", 2.5), ("memory", 200.0), ("in flight, of the threads", 0.8)],
    "history": [("full : empty", 0.9)],
    "listing": [
        ("p95 of the slowest /usage/stats", 100.0),
        ("p95 of the slowest /usage/attempts", 100.0),
        ("p95 of the slowest /jobs", 100.0),
        ("p95 of the slowest /catalog", 100.0),
    ],
    "retention": [("longest stall", 250.0), ("with a drop : without", 0.9)],
    "pages": [("slowest page", 300.0), ("20 open tabs", 0.25)],
}
_NOTHING_LEFT = """
SELECT (SELECT count(*) FROM jobs),
    (SELECT count(*) FROM pg_database WHERE datname LIKE 'bench%'),
    (SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'orrery worker%')"""


@pytest.fixture(scope="module")
def set_up() -> Iterator[Stage]:
    """One stage for all."""
    with stage() as made:
        yield made


@pytest.mark.parametrize("name", BOUNDS)
def test_a_tiny_run_gives_figures_and_bounds_and_leaves_nothing_behind(name: str, set_up: Stage) -> None:
    result = MEASUREMENTS[name](set_up, TINY, lambda _: None)

    assert [(bound.what, bound.limit) for bound in result.bounds] == BOUNDS[name]
    assert all(bound.figure > 0 for bound in result.bounds)
    assert all(len(row) == len(result.columns) for row in result.rows)
    assert json.loads(json.dumps(result.data, allow_nan=False)) == result.data
    assert set_up.db.execute(_NOTHING_LEFT).fetchone() == (0, 0, 0)


def test_a_past_has_every_job_with_its_calls_on_each_of_its_days(set_up: Stage) -> None:
    with Runs(set_up):
        before = _counts(set_up.db)
        partitions, _ = invent(set_up.db, 700)

    after = _counts(set_up.db)
    assert partitions == DAYS
    assert (after[0] - before[0], after[1] - before[1]) == (700, 700)
    oldest, newest, empty, lonely = _facts(set_up.db)
    assert (oldest, newest) == (DAYS - 1, True)
    assert (empty, lonely) == (0, 0)


def test_a_lease_that_was_lost_spoils_the_measurement(set_up: Stage) -> None:
    address = set_up.settings.database()
    with Runs(set_up) as runs, psycopg.Connection.connect(address, autocommit=True) as db:
        (job_id,) = runs.queued(1)
        db.execute("DELETE FROM jobs WHERE id = %s", [job_id])
        with pytest.raises(BenchError, match="did not get its job"):
            runs.claim(db, job_id)  # type: ignore[arg-type] # the row factory does not matter without a row


def test_inputs_are_distinct() -> None:
    made = {json.dumps(distinct_input(number)) for number in range(100_000)}
    assert len(made) == 100_000


def test_bounds_are_judged_and_reported(tmp_path: Path) -> None:
    bounds = [Bound("seconds", 6.5, 6.0, "s"), Bound("rows", 60_000, 50_000, "rows/s", floor=True)]
    result = Result("Title", ("a",), [["1"]], {"seconds": 6.5}, bounds=bounds)
    printed = io.StringIO()
    output = tmp_path / "results.json"

    report.show(Console(file=printed, width=110), result)
    report.save(output, began=datetime.now(UTC), effort=TINY, machine={}, results={"one": result})

    assert "missed: seconds 6.5 (at most 6 s)" in printed.getvalue()
    assert "met: rows 60,000 (at least 50,000 rows/s)" in printed.getvalue()
    saved = json.loads(output.read_text())["measurements"]["one"]
    assert [bound["met"] for bound in saved["bounds"]] == [False, True]
    assert saved["seconds"] == 6.5


def _counts(db: psycopg.Connection) -> tuple[int, ...]:
    row = db.execute(
        "SELECT (SELECT count(*) FROM job_history), (SELECT count(*) FROM ai_usage_analytics)"
    ).fetchone()
    assert row is not None
    return row


def _facts(db: psycopg.Connection) -> tuple[int, bool, int, int]:
    """Days back to the oldest job, whether none is in the future, results missing, jobs without a call."""
    row = db.execute(
        """
        SELECT (now() AT TIME ZONE 'UTC')::date - min(finished_at AT TIME ZONE 'UTC')::date,
            max(finished_at) <= now(),
            count(*) FILTER (WHERE result->>'text' IS NULL OR started_at > finished_at),
            count(*) FILTER (WHERE NOT EXISTS (
                SELECT FROM ai_usage_analytics AS call
                WHERE call.job_id = job_history.id AND call.finished_at = job_history.finished_at))
        FROM job_history WHERE finished_at < now() - interval '1 day'
            OR user_id LIKE 'user-%'"""
    ).fetchone()
    assert row is not None
    return row[0], row[1], row[2], row[3]
