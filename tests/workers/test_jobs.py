"""The statements that change a job row: the fence, the claim that never waits, the rescue."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.rows import dict_row

from store.database import Role, conninfo
from store.ids import new_id
from store.settings import Settings
from tests.workers.conftest import until
from workers import jobs
from workers.jobs import Claimed, Database, Ending, NewJob

DONE = Ending(state="succeeded", result={"text": "done"}, cost_usd=Decimal("0.5"))


@pytest.fixture
def db(settings: Settings) -> Iterator[Database]:
    with _connected(settings) as connection:
        yield connection


@pytest.fixture
def job_id(db: Database) -> UUID:
    """A queued job."""
    return _queued(db)


def test_a_job_is_claimed_once_and_carries_the_configuration_version_of_the_claim(
    db: Database, job_id: UUID
) -> None:
    claimed = _claim(db, job_id)
    assert claimed is not None
    assert claimed.run == 1
    assert claimed.current_version == _version(db)
    assert _claim(db, job_id) is None


def test_a_claim_never_waits_for_a_locked_row(db: Database, settings: Settings, job_id: UUID) -> None:
    with _connected(settings) as other, other.transaction():
        other.execute("SELECT FROM jobs WHERE id = %s FOR UPDATE", [job_id])
        db.execute("SET lock_timeout = '1ms'")  # a claim that waited would fail
        assert _claim(db, job_id) is None
    assert _claim(db, job_id) is not None


def test_a_job_whose_time_has_not_come_is_not_claimed(db: Database, job_id: UUID) -> None:
    db.execute("UPDATE jobs SET run_at = now() + interval '1 hour'")
    assert _claim(db, job_id) is None


def test_completing_moves_the_job_and_its_calls_and_only_once(db: Database, job_id: UUID) -> None:
    claimed = _claim(db, job_id)
    assert claimed is not None
    assert jobs.complete(db, claimed, DONE, [])
    assert not jobs.complete(db, claimed, DONE, [])
    assert _count(db, "jobs") == 0
    row = db.execute("SELECT state, lease_token, cost_usd, run FROM job_history").fetchone()
    assert row == {
        "state": "succeeded",
        "lease_token": claimed.lease_token,
        "cost_usd": Decimal("0.5"),
        "run": 1,
    }
    assert jobs.was_recorded(db, claimed)


def test_a_worker_whose_lease_was_taken_can_neither_end_nor_put_back_the_job(
    db: Database, job_id: UUID
) -> None:
    silent = _claim(db, job_id, lease_seconds=0.01)
    assert silent is not None
    until(lambda: _expired(db, job_id))
    heir = _claim(db, job_id, lease_seconds=0.01)  # patience after a restart is a lease, too
    assert heir is not None
    assert heir.run == 2
    assert not jobs.complete(db, silent, DONE, [])
    assert not jobs.put_back(db, silent, [], delay_seconds=0, cost_usd=Decimal(0))
    assert jobs.heartbeat(db, {job_id: silent.lease_token}, lease_seconds=30) == set()
    assert not jobs.was_recorded(db, silent)
    assert jobs.heartbeat(db, {job_id: heir.lease_token}, lease_seconds=30) == {job_id}
    assert jobs.complete(db, heir, DONE, [])


def test_putting_back_keeps_the_job_and_adds_up_what_was_spent(db: Database, job_id: UUID) -> None:
    for spent in ("0.25", "0.5"):
        claimed = _claim(db, job_id)
        assert claimed is not None
        assert jobs.put_back(db, claimed, [], delay_seconds=0, cost_usd=Decimal(spent))
    row = db.execute("SELECT state, retries, run, cost_usd, rung_at, lease_token FROM jobs").fetchone()
    assert row == {
        "state": "queued",
        "retries": 2,
        "run": 2,
        "cost_usd": Decimal("0.75"),
        "rung_at": None,
        "lease_token": None,
    }
    last = _claim(db, job_id)
    assert last is not None
    assert jobs.complete(db, last, DONE, [])
    cost = db.execute("SELECT cost_usd FROM job_history").fetchone()
    assert cost == {"cost_usd": Decimal("1.25")}


def test_an_unknown_cost_stays_unknown(db: Database, job_id: UUID) -> None:
    claimed = _claim(db, job_id)
    assert claimed is not None
    assert jobs.complete(db, claimed, Ending(state="succeeded", cost_usd=None), [])
    assert db.execute("SELECT cost_usd FROM job_history").fetchone() == {"cost_usd": None}


def test_rescue_returns_what_expired_and_nothing_else(db: Database) -> None:
    dead, alive = _queued(db), _queued(db)
    assert _claim(db, dead, lease_seconds=0.01) is not None
    assert _claim(db, alive) is not None
    until(lambda: _expired(db, dead))
    assert jobs.rescue(db, lease_seconds=0.01) == [dead]
    assert jobs.rescue(db, lease_seconds=0.01) == []


def test_rescue_waits_a_lease_after_postgresql_came_back(db: Database, job_id: UUID) -> None:
    assert _claim(db, job_id, lease_seconds=0.01) is not None
    until(lambda: _expired(db, job_id))
    uptime = db.execute(
        "SELECT extract(epoch FROM now() - pg_postmaster_start_time())::float8 AS up"
    ).fetchone()
    assert uptime is not None
    assert jobs.rescue(db, lease_seconds=uptime["up"] + 60) == []
    assert jobs.rescue(db, lease_seconds=0.01) == [job_id]


def test_release_gives_back_only_what_is_still_ours(db: Database) -> None:
    mine, theirs = _queued(db), _queued(db)
    claimed = _claim(db, mine)
    assert claimed is not None
    assert _claim(db, theirs) is not None
    assert jobs.release(db, {mine: claimed.lease_token, theirs: uuid4()}) == 1
    assert _claim(db, mine) is not None
    assert _claim(db, theirs) is None


def test_enqueueing_against_an_outdated_configuration_stores_nothing(db: Database) -> None:
    job = _new_job()
    assert not jobs.insert(db, job, config_version=_version(db) - 1, rung=True)
    assert _count(db, "jobs") == 0
    assert jobs.insert(db, job, config_version=_version(db), rung=True)
    assert jobs.insert(db, job, config_version=_version(db), rung=True), "the same id again is harmless"
    assert _count(db, "jobs") == 1


def test_due_jobs_are_rung_for_in_the_order_of_priority_and_age_and_only_once(db: Database) -> None:
    old, urgent, later = (_queued(db, priority=priority) for priority in (0, -5, 0))
    assert [job_id for job_id, _ in jobs.take_unrung(db, "standard", room=2, again_seconds=60)] == [
        urgent,
        old,
    ]
    assert [job_id for job_id, _ in jobs.take_unrung(db, "standard", room=9, again_seconds=60)] == [later]
    assert jobs.take_unrung(db, "standard", room=9, again_seconds=60) == []
    assert len(jobs.take_unrung(db, "standard", room=9, again_seconds=0)) == 3, "lost doorbells ring again"
    assert jobs.take_unrung(db, "batch", room=9, again_seconds=0) == []


def test_heartbeats_releases_and_rescues_of_many_jobs_never_deadlock(settings: Settings) -> None:
    with _connected(settings) as db:
        ids = [_queued(db) for _ in range(60)]
        claims = [claim for job_id in ids if (claim := _claim(db, job_id, lease_seconds=0.05)) is not None]
    leases = {claim.id: claim.lease_token for claim in claims}
    backwards = dict(reversed(leases.items()))
    failures: list[BaseException] = []
    ends = time.monotonic() + 1.0

    def hammer(held: dict[UUID, UUID]) -> None:
        try:
            with _connected(settings) as db:
                while time.monotonic() < ends:
                    jobs.heartbeat(db, held, lease_seconds=0.001)
                    jobs.rescue(db, lease_seconds=0.001)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=hammer, args=[held]) for held in (leases, backwards) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def _connected(settings: Settings) -> Database:
    target = conninfo(settings.database(), Role.WORKER)
    return psycopg.connect(target, autocommit=True, row_factory=dict_row)


def _new_job(priority: int = 0) -> NewJob:
    return NewJob(
        id=new_id(), feature="cv_draft", capability="text", lane="standard", input={"a": 1}, priority=priority
    )


def _queued(db: Database, priority: int = 0) -> UUID:
    job = _new_job(priority)
    assert jobs.insert(db, job, config_version=_version(db), rung=False)
    return job.id


def _claim(db: Database, job_id: UUID, lease_seconds: float = 30) -> Claimed | None:
    return jobs.claim(db, job_id, lease_seconds=lease_seconds, worker="test")


def _version(db: Database) -> int:
    row = db.execute("SELECT version FROM config_state").fetchone()
    assert row is not None
    return int(row["version"])


def _count(db: Database, table: str) -> int:
    row = db.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()
    assert row is not None
    return int(row["count"])


def _expired(db: Database, job_id: UUID) -> bool:
    return (
        db.execute("SELECT FROM jobs WHERE id = %s AND lease_until < now()", [job_id]).fetchone() is not None
    )
