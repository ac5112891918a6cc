"""The statements that change a job row: the fence, the claim that never waits, the rescue."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
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
from workers.jobs import Claimed, Completion, Database, Ending, IdempotencyKey, NewJob

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
    db.execute("UPDATE jobs SET run_at = now() + interval '1 hour', scheduled = true")
    jobs.come_due(db)
    assert _claim(db, job_id) is None
    db.execute("UPDATE jobs SET run_at = now()")
    jobs.come_due(db)
    assert _claim(db, job_id) is not None


def test_completing_moves_the_job_and_its_calls_and_only_once(db: Database, job_id: UUID) -> None:
    claimed = _claim(db, job_id)
    assert claimed is not None
    assert _end(db, claimed)
    assert not _end(db, claimed)
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
    assert _claim(db, job_id) is None, "an expired lease is the rescue's"
    assert jobs.rescue(db, lease_seconds=0.01) == ([job_id], [])
    heir = jobs.claim_suspect(db, lease_seconds=30, worker="alone")
    assert heir is not None
    assert heir.run == 2
    assert not _end(db, silent)
    assert not jobs.put_back(db, silent, [], delay_seconds=0, cost_usd=Decimal(0))
    assert jobs.heartbeat(db, {job_id: silent.lease_token}, lease_seconds=30) == set()
    assert not jobs.was_recorded(db, silent)
    assert jobs.heartbeat(db, {job_id: heir.lease_token}, lease_seconds=30) == {job_id}
    assert _end(db, heir)


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
    assert _end(db, last)
    cost = db.execute("SELECT cost_usd FROM job_history").fetchone()
    assert cost == {"cost_usd": Decimal("1.25")}


def test_an_unknown_cost_stays_unknown(db: Database, job_id: UUID) -> None:
    claimed = _claim(db, job_id)
    assert claimed is not None
    assert _end(db, claimed, Ending(state="succeeded", cost_usd=None))
    assert db.execute("SELECT cost_usd FROM job_history").fetchone() == {"cost_usd": None}


def test_rescue_returns_what_expired_and_nothing_else(db: Database) -> None:
    dead, alive = _queued(db), _queued(db)
    assert _claim(db, dead, lease_seconds=0.01) is not None
    assert _claim(db, alive) is not None
    until(lambda: _expired(db, dead))
    assert jobs.rescue(db, lease_seconds=0.01) == ([dead], [])
    assert jobs.rescue(db, lease_seconds=0.01) == ([], [])
    lost = db.execute("SELECT job_id, run, n, outcome, cost_usd FROM ai_usage_analytics").fetchall()
    assert lost == [{"job_id": dead, "run": 1, "n": 0, "outcome": "lost", "cost_usd": None}]


def test_rescue_waits_a_lease_after_postgresql_came_back(db: Database, job_id: UUID) -> None:
    assert _claim(db, job_id, lease_seconds=0.01) is not None
    until(lambda: _expired(db, job_id))
    uptime = db.execute(
        "SELECT extract(epoch FROM now() - pg_postmaster_start_time())::float8 AS up"
    ).fetchone()
    assert uptime is not None
    assert jobs.rescue(db, lease_seconds=uptime["up"] + 60) == ([], [])
    assert jobs.rescue(db, lease_seconds=0.01) == ([job_id], [])


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


def test_of_many_callers_with_one_idempotency_key_one_enqueues(settings: Settings) -> None:
    once = IdempotencyKey("shop", "order-7", b"hash")
    made: list[UUID] = []

    def enqueue() -> None:
        with psycopg.connect(
            conninfo(settings.database(), Role.CLIENT), autocommit=True, row_factory=dict_row
        ) as api:
            job = _new_job()
            if jobs.insert(api, job, config_version=_version(api), rung=False, once=once):
                made.append(job.id)
            assert jobs.find_key(api, "shop", "order-7") is not None

    threads = [threading.Thread(target=enqueue) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with _connected(settings) as db:
        assert len(made) == 1
        assert jobs.find_key(db, "shop", "order-7") == (b"hash", made[0])
        assert _count(db, "jobs") == 1


def test_a_suspect_runs_alone_and_fails_as_poison_when_it_dies_alone_twice(db: Database) -> None:
    poison, innocent = _suspects(db, 2)
    assert jobs.count_suspects(db) == (2, 0)
    assert _claim(db, poison) is None, "suspects do not run beside others"
    assert jobs.take_unrung(db, "standard", room=9, again_seconds=0) == []
    _dies_alone(db, poison)
    assert jobs.rescue(db, lease_seconds=0.01) == ([poison], [])
    acquitted = _claim_suspect(db)
    assert acquitted is not None
    assert acquitted.id == innocent, "what has not crashed yet goes first"
    assert _end(db, acquitted)
    _dies_alone(db, poison)
    assert jobs.rescue(db, lease_seconds=0.01) == ([], [poison])
    ended = db.execute("SELECT id, error_class, crashes FROM job_history WHERE state = 'failed'").fetchall()
    assert ended == [{"id": poison, "error_class": "poison", "crashes": 2}]


def test_suspects_run_beside_each_other_but_what_has_crashed_only_by_itself_on_its_machine(
    db: Database,
) -> None:
    """One death may be that of a whole container: a second one must not make the innocent in it poison."""
    crashed, first, second = _suspects(db, 3)
    db.execute("UPDATE jobs SET crashes = 1 WHERE id = %s", [crashed])
    claims = [_claim_suspect(db, "here:1"), _claim_suspect(db, "here:2")]
    assert [claim.id for claim in claims if claim] == [first, second]
    assert _claim_suspect(db, "here:3") is None, "others run beside it"
    assert jobs.count_suspects(db) == (1, 2)
    accused = _claim_suspect(db, "there:1")
    assert accused is not None
    assert accused.id == crashed, "another machine has its own fate"
    assert jobs.release(db, {claim.id: claim.lease_token for claim in claims if claim}) == 2
    assert _claim_suspect(db, "there:2") is None, "nobody begins beside it"
    assert _end(db, accused)
    assert _claim_suspect(db, "there:2") is not None


def test_a_more_urgent_job_takes_the_place_of_the_one_rung_for(db: Database) -> None:
    calm, urgent, elsewhere = _queued(db), _queued(db, priority=-1), _queued(db, priority=-9, lane="batch")
    first, second = _claim(db, calm), _claim(db, calm)
    assert first is not None
    assert second is not None
    assert (first.id, second.id) == (urgent, calm)
    assert _claim(db, elsewhere) is not None


def test_a_paused_lane_is_not_claimed_and_its_lost_doorbells_ring_when_it_goes_on(
    db: Database, settings: Settings
) -> None:
    job_id = _queued(db)
    with psycopg.connect(conninfo(settings.database()), autocommit=True) as api:
        api.execute("UPDATE lanes SET is_paused = true WHERE name = 'standard'")
        assert _claim(db, job_id) is None
        assert jobs.take_unrung(db, "standard", room=9, again_seconds=0) == []
        db.execute("UPDATE jobs SET rung_at = now()")  # a doorbell that was answered during the pause
        api.execute("UPDATE lanes SET is_paused = false, resumed_at = now() WHERE name = 'standard'")
        assert jobs.take_unrung(db, "standard", room=9, again_seconds=60) == [(job_id, "text")]
        assert _claim(db, job_id) is not None


def test_cancelling_ends_queued_and_running_jobs_and_the_run_records_nothing_more(db: Database) -> None:
    queued, running = _queued(db), _queued(db)
    claimed = _claim(db, running)
    assert claimed is not None
    cancelled = db.execute("SELECT cancel_jobs(%s) AS id", [[queued, running, uuid4()]]).fetchall()
    assert sorted(row["id"] for row in cancelled) == sorted([queued, running])
    assert not _end(db, claimed)
    assert not jobs.was_recorded(db, claimed)
    states = db.execute("SELECT DISTINCT state, error_class FROM job_history").fetchall()
    assert states == [{"state": "cancelled", "error_class": "cancelled"}]
    assert _count(db, "jobs") == 0


def test_one_ending_of_a_group_that_is_not_ours_does_not_touch_the_others(db: Database) -> None:
    claims = [claim for _ in range(3) if (claim := _claim(db, _queued(db))) is not None]
    stranger = replace(claims[1], lease_token=uuid4())
    group = [Completion(claim, DONE, []) for claim in (claims[0], stranger, claims[2])]
    assert jobs.complete(db, group) == {claims[0].id, claims[2].id}
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
        claims = [claim for job_id in ids if (claim := _claim(db, job_id)) is not None]
    leases = {claim.id: claim.lease_token for claim in claims}
    backwards = dict(reversed(leases.items()))
    failures: list[BaseException] = []
    ends = time.monotonic() + 1.0

    def hammer(held: dict[UUID, UUID]) -> None:
        try:
            with _connected(settings) as db:
                for plan in ("hashjoin", "mergejoin", "seqscan"):  # as in a large table: one look-up per id
                    db.execute(f"SET enable_{plan} = off".encode())
                while time.monotonic() < ends:
                    assert len(jobs.heartbeat(db, held, lease_seconds=30)) == 60
                    assert jobs.rescue(db, lease_seconds=0.001) == ([], [])
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


def _new_job(priority: int = 0, lane: str = "standard") -> NewJob:
    return NewJob(
        id=new_id(), feature="cv_draft", capability="text", lane=lane, input={"a": 1}, priority=priority
    )


def _queued(db: Database, priority: int = 0, lane: str = "standard") -> UUID:
    job = _new_job(priority, lane)
    assert jobs.insert(db, job, config_version=_version(db), rung=False)
    return job.id


def _claim(db: Database, job_id: UUID, lease_seconds: float = 30) -> Claimed | None:
    return jobs.claim(db, job_id, lease_seconds=lease_seconds, worker="test")


def _suspects(db: Database, count: int) -> list[UUID]:
    """Jobs whose process died."""
    ids = [_queued(db) for _ in range(count)]
    for job_id in ids:
        assert _claim(db, job_id, lease_seconds=0.01) is not None
    until(lambda: all(_expired(db, job_id) for job_id in ids))
    assert jobs.rescue(db, lease_seconds=0.01) == (ids, [])
    return ids


def _claim_suspect(db: Database, worker: str = "here:1", lease_seconds: float = 30) -> Claimed | None:
    return jobs.claim_suspect(db, lease_seconds=lease_seconds, worker=worker)


def _dies_alone(db: Database, job_id: UUID) -> None:
    claimed = _claim_suspect(db, lease_seconds=0.01)
    assert claimed is not None
    assert claimed.id == job_id
    until(lambda: _expired(db, job_id))


def _end(db: Database, claimed: Claimed, ending: Ending = DONE) -> bool:
    return jobs.complete(db, [Completion(claimed, ending, [])]) == {claimed.id}


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
