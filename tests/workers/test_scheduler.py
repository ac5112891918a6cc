"""Schedules fire each instant once, whoever dies and whatever is edited."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from standalone.supervisor import Child, Supervisor
from store.database import Pool, Role, open_pool
from store.settings import Settings
from tests.rows import Rows
from tests.sandbox import Sandbox
from tests.workers.conftest import until
from tests.workers.schedules import Owner, add, fires, owner_of, stop_clock
from tests.workers.test_cron import instants
from workers.cron import parse
from workers.firing import prepare
from workers.scheduler import PUNCTUAL, Scheduler, next_step

BEGIN = datetime(2027, 3, 26, 22, 17, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def owner(settings: Settings, rows: Rows, sandbox: Sandbox) -> Iterator[Owner]:
    rows.assign("daily_zodiac_text", rows.model(rows.provider("p", sandbox.openai), "m"), user="{{ sign }}")
    with owner_of(settings) as db:
        stop_clock(db, BEGIN)
        yield db


@pytest.fixture
def scheduler(db: Pool) -> Iterator[Scheduler]:
    scheduler = Scheduler(db)
    yield scheduler
    scheduler.stop()


def catch_up(scheduler: Scheduler) -> int:
    turns = 0
    while scheduler.turn():
        turns += 1
        assert turns < 10_000
    return turns


def jobs(db: Owner) -> list[dict[str, Any]]:
    return db.execute("SELECT * FROM jobs ORDER BY id").fetchall()


def test_an_instant_becomes_the_jobs_of_its_matrix(scheduler: Scheduler, owner: Owner) -> None:
    schedule = add(
        owner,
        "Signs",
        "0 6 * * *",
        timezone="Asia/Tokyo",
        inputs_matrix={"sign": ["aries", "leo"], "language": ["en", "de"], "date": "{{ date }}"},
        then=[{"feature_name": "daily_zodiac_tts"}],
        deadline_minutes=90,
        plan="premium",
        priority=-7,
    )
    catch_up(scheduler)
    assert jobs(owner) == []
    stop_clock(owner, datetime(2027, 3, 27, 21, 0, 5, tzinfo=UTC))  # 06:00 of the 28th in Tokyo

    assert scheduler.turn()
    assert not scheduler.turn()

    made = jobs(owner)
    assert [job["input"] for job in made] == [
        {"sign": sign, "language": language, "date": "2027-03-28"}
        for sign in ("aries", "leo")
        for language in ("en", "de")
    ]
    [group] = owner.execute("SELECT * FROM job_groups").fetchall()
    assert (group["schedule_id"], group["expected"], group["total"]) == (schedule, 8, 4)
    [fire] = owner.execute("SELECT * FROM fires").fetchall()
    assert (fire["instant"], fire["kind"], fire["group_id"], fire["jobs"], fire["error"]) == (
        datetime(2027, 3, 27, 21, tzinfo=UTC), "scheduled", group["id"], 4, None,
    )  # fmt: skip
    for job in made:
        assert (job["group_id"], job["chain_id"], job["plan"], job["priority"]) == (
            group["id"], job["id"], "premium", -7,
        )  # fmt: skip
        assert job["metadata"]["schedule"] == "Signs"
        assert job["follow_ups"][0]["feature_name"] == "daily_zodiac_tts"
        assert job["deadline_at"] == group["deadline_at"] is not None


def test_what_the_configuration_refuses_is_noted_and_raised_as_an_alert(
    scheduler: Scheduler, owner: Owner, rows: Rows
) -> None:
    schedule = add(owner, "Bad", "* * * * *", inputs_matrix={"sign": 7})
    rows.change_feature("tarot_reading", is_active=False)
    unserved = add(
        owner, "Unserved", "* * * * *", feature_name="tarot_reading", inputs_matrix={"cards": [["sun"]]}
    )
    catch_up(scheduler)
    stop_clock(owner, BEGIN + timedelta(minutes=1))

    catch_up(scheduler)

    assert jobs(owner) == []
    errors = {row["schedule_id"]: row["error"] for row in owner.execute("SELECT * FROM fires")}
    assert "7 is not one of" in errors[schedule]
    assert "tarot_reading" in errors[unserved]
    alerts = owner.execute("SELECT noun_id FROM alerts WHERE kind = 'schedule_failed'").fetchall()
    assert {alert["noun_id"] for alert in alerts} == {str(schedule), str(unserved)}


@pytest.mark.parametrize(("policy", "hours"), [("all", [2, 3, 4, 5]), ("latest", [5]), ("none", [])])
def test_what_nobody_was_there_for(policy: str, hours: list[int], scheduler: Scheduler, owner: Owner) -> None:
    schedule = add(owner, "Hourly", "0 * * * *", catch_up=policy)
    catch_up(scheduler)
    midnight = datetime(2027, 4, 1, tzinfo=UTC)
    stop_clock(owner, midnight + HOUR)
    catch_up(scheduler)
    assert fires(owner, schedule)[-1] == midnight + HOUR, "an instant that is met fires, whatever the policy"
    before = len(fires(owner, schedule))

    stop_clock(owner, midnight + 5 * HOUR + PUNCTUAL)
    catch_up(scheduler)

    assert fires(owner, schedule)[before:] == [midnight + hour * HOUR for hour in hours]


def test_a_paused_schedule_owes_nothing(scheduler: Scheduler, owner: Owner) -> None:
    schedule = add(owner, "Paused", "0 * * * *", catch_up="all")
    catch_up(scheduler)
    owner.execute("UPDATE schedules SET is_active = false")
    stop_clock(owner, BEGIN + 10 * HOUR)
    assert catch_up(scheduler) == 0
    owner.execute("UPDATE schedules SET is_active = true")
    catch_up(scheduler)
    assert fires(owner, schedule) == []
    stop_clock(owner, BEGIN + 11 * HOUR)
    catch_up(scheduler)
    assert len(fires(owner, schedule)) == 1


def test_an_edit_lets_no_old_instant_fire(scheduler: Scheduler, owner: Owner) -> None:
    schedule = add(owner, "Edited", "30 * * * *", catch_up="all")
    catch_up(scheduler)
    stop_clock(owner, BEGIN + 2 * HOUR)
    owner.execute("UPDATE schedules SET cron = '15 * * * *'")
    catch_up(scheduler)
    stop_clock(owner, BEGIN + 3 * HOUR)
    catch_up(scheduler)
    assert fires(owner, schedule) == [datetime(2027, 3, 27, 1, 15, tzinfo=UTC)]


def test_an_edit_of_what_is_no_time_owes_what_was_owed(scheduler: Scheduler, owner: Owner) -> None:
    schedule = add(owner, "Renamed", "0 * * * *", catch_up="all")
    catch_up(scheduler)
    stop_clock(owner, BEGIN + 2 * HOUR)
    owner.execute("UPDATE schedules SET name = 'Another'")
    catch_up(scheduler)
    assert len(fires(owner, schedule)) == 2


def test_schedulers_pass_each_other_by(settings: Settings, owner: Owner) -> None:
    names = [add(owner, f"s{n}", "*/10 * * * *", catch_up="all") for n in range(6)]
    pool = open_pool(settings.database(), Role.WORKER, size=8)
    schedulers = [Scheduler(pool) for _ in range(4)]
    catch_up(schedulers[0])
    stop_clock(owner, BEGIN + 2 * HOUR)
    with ThreadPoolExecutor(4) as threads:
        assert sum(threads.map(catch_up, schedulers)) == 6 * 12
    pool.close()
    expected = [datetime(2027, 3, 26, 22, 20, tzinfo=UTC) + timedelta(minutes=10 * n) for n in range(12)]
    for name in names:
        assert fires(owner, name) == expected
    assert len(jobs(owner)) == 72


def test_a_change_of_the_configuration_meanwhile_is_seen(
    scheduler: Scheduler, owner: Owner, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs that were checked against what is no longer so are not stored: they are checked again."""
    add(owner, "Moved", "* * * * *")
    catch_up(scheduler)
    stop_clock(owner, BEGIN + timedelta(minutes=1))
    changed: list[bool] = []

    def slow(*given: Any) -> Any:
        made = prepare(*given)
        if not changed:
            changed.append(True)
            rows.change_feature("daily_zodiac_text", lane="standard")
        return made

    monkeypatch.setattr("workers.scheduler.prepare", slow)
    catch_up(scheduler)
    [job] = jobs(owner)
    assert job["lane"] == "standard"


class Oracle:
    """What must have fired: the plans of each schedule, and from when until when each held."""

    def __init__(self) -> None:
        self.plans: dict[UUID, list[tuple[datetime, str, str]]] = {}

    def plan(self, schedule: UUID, since: datetime, cron: str, timezone: str) -> None:
        self.plans.setdefault(schedule, []).append((since, cron, timezone))

    def expected(self, schedule: UUID, until: datetime) -> list[datetime]:
        plans = self.plans[schedule]
        ends = [since for since, _, _ in plans[1:]] + [until]
        found: list[datetime] = []
        for (since, cron, timezone), end in zip(plans, ends, strict=True):
            first = since.date() - timedelta(days=2)
            days = (end.date() - first).days + 3
            found += [at for at in instants(cron, ZoneInfo(timezone), first, days) if since < at <= end]
        return found


@pytest.mark.parametrize(
    ("days", "step"),
    [(30, timedelta(hours=53)), pytest.param(366, timedelta(hours=77), marks=pytest.mark.full)],
)
def test_a_stretch_of_time_with_four_schedulers_that_die(
    days: int, step: timedelta, settings: Settings, owner: Owner
) -> None:
    """Three zones, changes of the clocks, edits: each instant once, against a search through all minutes."""
    chance = random.Random(days)
    zones = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]
    crons = ["30 2 * * *", "15 * * * *", "0,30 1,2 * * *", "45 */3 * * *"]
    oracle = Oracle()
    for zone in zones:
        for number, cron in enumerate(crons):
            schedule = add(owner, f"{zone} {number}", cron, timezone=zone, catch_up="all")
            oracle.plan(schedule, BEGIN, cron, zone)
    supervisor = Supervisor({**settings.environment(), "ORRERY_LOG_LEVEL": "ERROR"})
    children = [supervisor.add("scheduler") for _ in range(4)]
    now, end, kills = BEGIN, BEGIN + timedelta(days=days), 0
    try:
        while now < end:
            now = min(end, now + step)
            stop_clock(owner, now)
            if chance.random() < 0.3:
                time.sleep(chance.random() / 2)  # into the middle of it
                _kill(chance.choice(children))
                kills += 1
            deadline = time.monotonic() + 60
            while _owed(owner):
                supervisor.tend()
                time.sleep(0.01)
                assert time.monotonic() < deadline, "schedulers do not come to an end"
            if chance.random() < 0.4:
                schedule, zone, cron = (
                    chance.choice(list(oracle.plans)),
                    chance.choice(zones),
                    chance.choice(crons),
                )
                plan = oracle.plans[schedule][-1]
                if plan[1:] != (cron, zone):
                    owner.execute(
                        "UPDATE schedules SET cron = %s, timezone = %s WHERE id = %s", [cron, zone, schedule]
                    )
                    oracle.plan(schedule, now, cron, zone)
    finally:
        supervisor.stop(grace_seconds=10)
    total = 0
    for schedule in oracle.plans:
        fired = fires(owner, schedule)
        assert fired == oracle.expected(schedule, end)
        total += len(fired)
    print(f"\n{total} firings, {kills} schedulers killed, {sum(map(len, oracle.plans.values())) - 12} edits")
    counted = owner.execute(
        "SELECT count(*) AS jobs, count(DISTINCT group_id) AS groups FROM jobs"
    ).fetchone()
    assert counted == {"jobs": total, "groups": total}
    assert kills > 0
    assert total > days * 25


def _kill(child: Child) -> None:
    if child.process is not None:
        os.kill(child.process.pid, signal.SIGKILL)
        child.process.wait()


def _owed(db: Owner) -> bool:
    row = db.execute(
        "SELECT count(*) AS owed FROM schedule_state WHERE next_at IS NULL OR next_at <= schedule_now()"
    ).fetchone()
    assert row is not None
    return bool(row["owed"])


def test_next_step_of_a_long_pause_is_found_at_once() -> None:
    """A year of minutes is not walked through."""
    cron, now = parse("* * * * *", "Europe/Berlin"), datetime(2027, 5, 1, tzinfo=UTC)
    step = next_step(cron, "latest", cursor=now - timedelta(days=365), now=now)
    assert (step.instant, step.cursor, step.next_at) == (now, now, now + timedelta(minutes=1))


def test_a_scheduler_runs_in_a_thread_of_its_own(
    settings: Settings, scheduler: Scheduler, owner: Owner
) -> None:
    schedule = add(owner, "Soon", "* * * * *")
    scheduler.start()
    until(lambda: not _owed(owner))
    stop_clock(owner, BEGIN + timedelta(minutes=3))
    until(lambda: fires(owner, schedule))
