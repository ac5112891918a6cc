"""Lanes and processes as people see them: how fast jobs run, what runs where, and why jobs failed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.rows import dict_row

from store.ids import new_id
from store.settings import Settings
from tests.usage_rows import call, record, with_days
from workers import lanes, lists, presence, records
from workers.doorbells import Doorbells

Owner = psycopg.Connection[dict[str, Any]]

MINUTE = timedelta(minutes=1)


@pytest.fixture
def owner(settings: Settings) -> Iterator[Owner]:
    with psycopg.connect(settings.database(), autocommit=True, row_factory=dict_row) as db:
        with_days(db, 3)
        yield db


def now(owner: Owner) -> datetime:
    """This minute, by the database's clock."""
    row = owner.execute("SELECT date_trunc('minute', now()) AS at").fetchone()
    assert row is not None
    at: datetime = row["at"]
    return at


def test_runs_are_counted_by_the_minute_and_not_their_tries(owner: Owner) -> None:
    minute = now(owner)
    first = {"job_id": uuid4(), "started_at": minute - 3 * MINUTE}
    record(
        owner,
        call(**first, finished_at=minute - 2 * MINUTE, outcome="failed"),
        call(**first, n=2, finished_at=minute - MINUTE),
        call(**first, run=2, finished_at=minute - MINUTE, lane="batch"),
        call(finished_at=minute - 90 * MINUTE),
    )
    pace = lanes.pace(owner, 30)
    assert pace.since >= minute - 29 * MINUTE
    counted = {(each.lane, each.minute): (each.started, each.finished) for each in pace.minutes}
    assert counted == {
        ("batch", minute - 3 * MINUTE): (1, 0),
        ("standard", minute - 3 * MINUTE): (1, 0),
        ("batch", minute - MINUTE): (0, 1),
        ("standard", minute - MINUTE): (0, 1),
    }


def test_of_more_calls_than_are_read_only_whole_minutes_are_told(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "_MOST_CALLS", 5)
    minute = now(owner)
    assert lanes.pace(owner, 30).minutes == []
    for back in (1, 1, 2, 2, 2, 2):
        record(owner, call(finished_at=minute - back * MINUTE, started_at=minute - back * MINUTE))
    pace = lanes.pace(owner, 30)
    assert pace.since == minute - MINUTE
    assert [(each.minute, each.finished) for each in pace.minutes] == [(minute - MINUTE, 2)]


def _job(owner: Owner, job_id: UUID, **columns: Any) -> None:
    names = {
        "id": job_id,
        "feature": "cv_draft",
        "capability": "text",
        "lane": "batch",
        "input": "{}",
        **columns,
    }
    owner.execute(
        f"INSERT INTO jobs ({', '.join(names)}) VALUES ({', '.join(['%s'] * len(names))})".encode(),
        list(names.values()),
    )


def test_of_each_process_the_jobs_that_began_first_are_told(owner: Owner) -> None:
    at = datetime.now(UTC)
    ids = [new_id() for _ in range(5)]
    for number, job_id in enumerate(ids[:4]):
        worker = "a:1" if number < 3 else "b:2"
        _job(owner, job_id, state="running", worker=worker, started_at=at - number * MINUTE)
    _job(owner, ids[4])
    running = presence.running(owner, most=2)
    assert [(job.worker, job.id) for job in running] == [("b:2", ids[3]), ("a:1", ids[2]), ("a:1", ids[1])]
    assert [(each.lane, each.started) for each in lanes.pace(owner, 30).minutes] == [("batch", 1)] * 4


_WAITING = """
INSERT INTO jobs (id, feature, capability, lane, priority, input, run_at, scheduled)
SELECT gen_random_uuid(), 'cv_draft', 'text', 'batch', 0, '{}', now() + %s::interval, %s
FROM generate_series(1, %s)"""


@pytest.fixture
def doorbells(settings: Settings) -> Iterator[Doorbells]:
    with closing(Doorbells(settings.redis())) as doorbells:
        yield doorbells


def test_lanes_with_many_jobs_are_estimated_and_hardly_read(
    owner: Owner, doorbells: Doorbells, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "_MOST_COUNTED", 500)
    at = datetime.now(UTC)
    first = new_id()
    _job(owner, first, state="running", worker="a:1", started_at=at, priority=5, run_at=at - 60 * MINUTE)
    second = new_id()
    _job(owner, second, priority=5, run_at=at - 60 * MINUTE)
    owner.execute(_WAITING, ["-1 min", False, 30_000])
    owner.execute(_WAITING, ["1 day", True, 2_000])
    owner.execute("ANALYZE jobs")
    with owner.transaction():
        before = _rows_read(owner)
        batch = lanes.states(owner, doorbells)[2]
        running = presence.running(owner, most=2)
        pace = lanes.pace(owner, 30)
        read = _rows_read(owner) - before
    assert read < 20_000
    assert not batch.is_exact
    assert batch.queued == pytest.approx(30_001, rel=0.1)
    assert batch.scheduled == pytest.approx(2_000, rel=0.3)
    assert batch.oldest_age_seconds == pytest.approx(3600, abs=60)
    assert (batch.running, [job.id for job in running]) == (1, [first]), "behind what is more urgent"
    assert [(each.lane, each.started) for each in pace.minutes] == [("batch", 1)]


def test_what_is_due_counts_as_queued_before_a_feeder_has_seen_it(owner: Owner, doorbells: Doorbells) -> None:
    owner.execute(_WAITING, ["-1 min", True, 3])
    batch = lanes.states(owner, doorbells)[2]
    assert (batch.queued, batch.scheduled, batch.is_exact) == (3, 0, True)
    assert batch.oldest_age_seconds == pytest.approx(60, abs=30)


def _rows_read(db: Owner) -> int:
    [row] = db.execute(
        "SELECT coalesce(sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)), 0)::int AS rows "
        "FROM pg_stat_xact_user_tables WHERE relname = 'jobs'"
    ).fetchall()
    return int(row["rows"])


_ENDED = """
INSERT INTO job_history (
    id, feature, capability, lane, priority, state, input, metadata, created_at, run_at, finished_at, run,
    retries, calls, error_class)
VALUES (%s, 'cv_draft', 'text', 'batch', 0, %s, '{}', '{}', now(), now(), now(), 1, 0, 1, %s)"""


def test_why_jobs_failed_and_which_were_repeated(owner: Owner) -> None:
    ended = [("failed", "timeout")] * 2 + [
        ("failed", "auth"),
        ("cancelled", "cancelled"),
        ("succeeded", None),
    ]
    ids = [new_id() for _ in ended]
    for job_id, (state, error_class) in zip(ids, ended, strict=True):
        owner.execute(_ENDED, [job_id, state, error_class])
    since = datetime.now(UTC) - timedelta(days=1)
    found = lists.failures(owner, since=since, most=100)
    assert [(each.error_class, each.jobs) for each in found] == [("timeout", 2), ("auth", 1)]
    assert [each.error_class for each in lists.failures(owner, since=since, most=1)] == ["auth"]
    assert lists.failures(owner, since=datetime.now(UTC) + MINUTE, most=100) == []
    _job(owner, new_id(), retry_of=ids[0])
    assert records.repeated(owner, ids) == {ids[0]}
    assert records.repeated(owner, []) == set()
