"""Jobs through the batch APIs of providers, over real HTTP: from the firing to the record."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from standalone.supervisor import Supervisor
from store.database import Identity, Role
from store.settings import Settings
from tests.rows import Rows
from tests.sandbox import Sandbox
from tests.workers.conftest import until
from tests.workers.schedules import Owner, add, owner_of
from workers.client import Client
from workers.doorbells import LANES
from workers.firing import Planned
from workers.run import WorkerProcess
from workers.scheduling import SchedulerProcess

SIGNS = ["aries", "taurus", "gemini", "cancer", "leo", "virgo", "libra", "scorpio", "sagittarius",
         "capricorn", "aquarius", "pisces"]  # fmt: skip
Fire = Callable[..., UUID]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"batch_seconds": 0.3})


@pytest.fixture
def owner(settings: Settings) -> Iterator[Owner]:
    with owner_of(settings) as db:
        yield db


@pytest.fixture
def fire(owner: Owner, client: Client) -> Fire:
    """Fires a schedule that may use batches; returns its group."""
    super_admin = client.acting(Identity(Role.SUPER_ADMIN, UUID(int=1), mfa=True))

    def fire(signs: int = 12, languages: tuple[str, ...] = ("en",), **columns: Any) -> UUID:
        matrix = {"sign": SIGNS[:signs], "language": list(languages)}
        id_ = add(
            owner,
            f"Group {time.monotonic_ns()}",
            "0 6 * * *",
            inputs_matrix=matrix,
            use_batch_api=True,
            **columns,
        )
        row = owner.execute("SELECT * FROM schedules WHERE id = %s", [id_]).fetchone()
        assert row is not None
        group = super_admin.fire(Planned(**{name: row[name] for name in Planned.__slots__}))
        assert group is not None
        return group

    return fire


@pytest.fixture
def text(rows: Rows, sandbox: Sandbox, owner: Owner) -> UUID:
    """The text feature's model, at an OpenAI provider."""
    provider = rows.provider("open", sandbox.openai)
    model = rows.model(provider, "m", prices=("0.01", "0.03"))
    halve(owner, model)
    rows.assign("daily_zodiac_text", model, user="{{ sign }} {{ language }}")
    return model


@pytest.fixture
def scheduler(settings: Settings) -> Iterator[SchedulerProcess]:
    process = SchedulerProcess(settings)
    process.start()
    yield process
    process.stop()


def halve(db: Owner, model: UUID) -> None:
    """Let batches of the model cost half."""
    db.execute(
        "UPDATE model_prices SET batch_input_price_per_1k = input_price_per_1k / 2, "
        "batch_output_price_per_1k = output_price_per_1k / 2 WHERE model_id = %s",
        [model],
    )


def batches(db: Owner) -> list[dict[str, Any]]:
    return db.execute("SELECT * FROM provider_batches ORDER BY id").fetchall()


def group(db: Owner, group_id: UUID) -> dict[str, Any]:
    row = db.execute("SELECT * FROM job_groups WHERE id = %s", [group_id]).fetchone()
    assert row is not None
    return row


def finished(db: Owner, group_id: UUID, *, seconds: float = 40) -> dict[str, Any]:
    until(lambda: group(db, group_id)["finished_at"], seconds=seconds)
    return group(db, group_id)


def calls(db: Owner) -> list[dict[str, Any]]:
    return db.execute("SELECT * FROM ai_usage_analytics ORDER BY job_id, run, n").fetchall()


@pytest.mark.parametrize("protocol", ["openai", "anthropic", "gemini"])
def test_a_group_is_answered_in_one_batch_at_the_batch_rate(
    protocol: str, rows: Rows, sandbox: Sandbox, fire: Fire, owner: Owner, scheduler: SchedulerProcess
) -> None:
    kind = {"openai": "openai_compatible"}.get(protocol, protocol)
    provider = rows.provider("p", getattr(sandbox, protocol), type=kind)
    model = rows.model(provider, "m", prices=("0.01", "0.03"))
    halve(owner, model)
    assignment = rows.assign("daily_zodiac_text", model, user="{{ sign }} {{ language }}")

    found = finished(owner, fire())

    assert (found["succeeded"], found["total"]) == (12, 12)
    [batch] = batches(owner)
    until(lambda: batches(owner)[0]["state"] == "over")
    assert (batch["jobs"], batch["provider"], batch["assignment_id"]) == (12, "p", assignment)
    assert batch["provider_batch_id"]
    made = calls(owner)
    assert len(made) == len({call["job_id"] for call in made}) == 12
    for call in made:
        assert (call["outcome"], call["latency_ms"]) == ("succeeded", None)
        full = (
            Decimal(call["input_tokens"]) * Decimal("0.01") + call["output_tokens"] * Decimal("0.03")
        ) / 1000
        assert call["cost_usd"] == full / 2
    jobs = owner.execute("SELECT * FROM job_history").fetchall()
    assert found["cost_usd"] == sum(job["cost_usd"] for job in jobs) == sum(call["cost_usd"] for call in made)
    for job in jobs:
        assert (job["batch_id"], job["model"], job["config_version"]) == (
            batch["id"],
            "m",
            batch["config_version"],
        )
        assert job["result"]["text"]
    assert sandbox.calls()["batch_lines"] == 12


def test_text_then_speech(
    text: UUID, rows: Rows, sandbox: Sandbox, fire: Fire, owner: Owner, scheduler: SchedulerProcess,
    worker: WorkerProcess,
) -> None:  # fmt: skip
    """What follows waits for a batch as well; where the provider has none for it, it is done live."""
    voices = rows.model(rows.provider("voices", sandbox.openai), "tts", capabilities=["speech"])
    rows.assign("daily_zodiac_tts", voices, user="{{ text }}", parameters={"voice": "alloy"})

    found = finished(owner, fire(then=[{"feature_name": "daily_zodiac_tts"}]))

    assert (found["succeeded"], found["total"], found["expected"]) == (24, 24, 24)
    assert [batch["feature"] for batch in batches(owner)] == ["daily_zodiac_text"]
    spoken = owner.execute("SELECT * FROM job_history WHERE feature = 'daily_zodiac_tts'").fetchall()
    assert len({job["artifact_key"] for job in spoken}) == 12


def test_speech_comes_out_of_a_batch_where_there_is_one(
    text: UUID, rows: Rows, sandbox: Sandbox, fire: Fire, owner: Owner, scheduler: SchedulerProcess
) -> None:
    voices = rows.model(
        rows.provider("voices", sandbox.gemini, type="gemini"), "tts", capabilities=["speech"]
    )
    rows.assign("daily_zodiac_tts", voices, user="{{ text }}", parameters={"voice": "Kore"})

    found = finished(owner, fire(4, then=[{"feature_name": "daily_zodiac_tts"}]))

    assert (found["succeeded"], found["failed"]) == (8, 0)
    assert {batch["feature"] for batch in batches(owner)} == {"daily_zodiac_text", "daily_zodiac_tts"}
    spoken = owner.execute("SELECT * FROM job_history WHERE feature = 'daily_zodiac_tts'").fetchall()
    assert len({job["artifact_key"] for job in spoken}) == 4
    assert {job["result"]["media_type"] for job in spoken} == {"audio/wav"}


def test_lines_that_fail_go_live(
    text: UUID, sandbox: Sandbox, fire: Fire, owner: Owner, scheduler: SchedulerProcess, worker: WorkerProcess
) -> None:
    sandbox.fault("batch_line_errors", protocol="openai", rate=0.5, status=500)

    found = finished(owner, fire())

    assert (found["succeeded"], found["failed"]) == (12, 0)
    made = calls(owner)
    failed = [call for call in made if call["outcome"] == "failed"]
    assert 0 < len(failed) < 12
    assert {call["error_class"] for call in failed} == {"server_error"}
    assert len(made) == 12 + len(failed)
    again = {call["job_id"]: call["run"] for call in made if call["outcome"] == "succeeded"}
    assert all(again[call["job_id"]] == 2 for call in failed)


def test_what_cannot_be_in_a_batch_is_done_live(
    rows: Rows, sandbox: Sandbox, fire: Fire, owner: Owner, scheduler: SchedulerProcess, worker: WorkerProcess
) -> None:
    provider = rows.provider("plain", sandbox.openai, settings={"batches": False})
    rows.assign("daily_zodiac_text", rows.model(provider, "m"), user="{{ sign }}")
    found = finished(owner, fire())
    assert found["succeeded"] == 12
    assert batches(owner) == []
    assert sandbox.calls()["batch_lines"] == 0


def test_a_batch_that_is_refused_goes_live(
    rows: Rows, sandbox: Sandbox, fire: Fire, owner: Owner, scheduler: SchedulerProcess, worker: WorkerProcess
) -> None:
    bad = rows.model(rows.provider("bad", sandbox.openai, key="bad-key"), "m")
    good = rows.model(rows.provider("good", sandbox.openai), "m")
    rows.assign("daily_zodiac_text", bad, good, user="{{ sign }}")
    found = finished(owner, fire())
    assert found["succeeded"] == 12
    [batch] = batches(owner)
    assert batch["state"] == "over"
    assert batch["error"]


def test_a_batch_that_never_ends_is_done_live_before_the_deadline(
    text: UUID, sandbox: Sandbox, fire: Fire, owner: Owner, scheduler: SchedulerProcess, worker: WorkerProcess
) -> None:
    sandbox.fault("batch_never", protocol="openai")
    group_id = fire(deadline_minutes=10)
    until(lambda: [batch for batch in batches(owner) if batch["state"] == "submitted"])
    until(lambda: batches(owner)[0]["completed"] == 6)
    [batch] = batches(owner)
    deadline = group(owner, group_id)["deadline_at"]
    assert batch["live_at"] <= deadline - timedelta(minutes=4)
    owner.execute("UPDATE provider_batches SET live_at = now()")

    found = finished(owner, group_id)

    assert (found["succeeded"], found["failed"]) == (12, 0)
    assert found["finished_at"] < deadline
    until(lambda: batches(owner)[0]["state"] == "over")
    assert batches(owner)[0]["gone_live"]
    made = calls(owner)
    assert len([call for call in made if call["outcome"] == "succeeded"]) == 12
    late = [call for call in made if call["outcome"] == "superseded"]
    assert len(late) == 6, "what the batch had answered when it was cancelled was billed"
    assert all(call["cost_usd"] > 0 for call in late)


def test_a_batch_that_expires_ends_what_it_answered(
    text: UUID, sandbox: Sandbox, fire: Fire, owner: Owner, scheduler: SchedulerProcess, worker: WorkerProcess
) -> None:
    sandbox.fault("batch_expire", protocol="openai")
    found = finished(owner, fire())
    assert (found["succeeded"], found["failed"]) == (12, 0)
    runs = [call["run"] for call in calls(owner) if call["outcome"] == "succeeded"]
    assert sorted(runs) == [1] * 6 + [2] * 6


@pytest.mark.parametrize("protocol", ["openai", "anthropic", "gemini"])
def test_a_submission_that_nobody_saw_the_end_of_is_found_again(
    protocol: str, rows: Rows, sandbox: Sandbox, fire: Fire, owner: Owner, scheduler: SchedulerProcess
) -> None:
    kind = {"openai": "openai_compatible"}.get(protocol, protocol)
    provider = rows.provider("p", getattr(sandbox, protocol), type=kind)
    rows.assign("daily_zodiac_text", rows.model(provider, "m"), user="{{ sign }}")
    sandbox.fault("batch_lost", protocol=protocol)
    found = finished(owner, fire())
    assert found["succeeded"] == 12
    assert sandbox.calls()["batch_lines"] == 12, "it was not submitted twice"
    assert len(calls(owner)) == 12


def test_a_submission_of_unknown_end_does_not_keep_jobs_from_their_deadline(
    text: UUID, sandbox: Sandbox, fire: Fire, owner: Owner, settings: Settings, worker: WorkerProcess
) -> None:
    """Whoever sent it died, and its provider's list does not answer."""
    sandbox.fault("status", protocol="openai", status=503)
    process = SchedulerProcess(settings)
    process.start()
    group_id = fire(3)
    until(lambda: batches(owner))
    process.stop()
    owner.execute("UPDATE provider_batches SET state = 'sending', sent_at = now(), live_at = now()")
    process = SchedulerProcess(settings)
    process.start()
    try:
        until(lambda: batches(owner)[0]["gone_live"])
        sandbox.heal()
        assert finished(owner, group_id)["succeeded"] == 3
        until(lambda: batches(owner)[0]["state"] == "over")
    finally:
        process.stop()
    assert sandbox.calls()["batch_lines"] == 0


def test_a_batch_whose_model_is_removed_goes_live(
    text: UUID, rows: Rows, sandbox: Sandbox, fire: Fire, owner: Owner, scheduler: SchedulerProcess,
    worker: WorkerProcess,
) -> None:  # fmt: skip
    sandbox.fault("batch_never", protocol="openai")
    group_id = fire(3)
    until(lambda: [batch for batch in batches(owner) if batch["state"] == "submitted"])
    other = rows.model(rows.provider("other", sandbox.anthropic, type="anthropic"), "a")
    rows.assign("daily_zodiac_text", other, user="{{ sign }}")
    owner.execute("DELETE FROM ai_models WHERE id = %s", [text])
    assert finished(owner, group_id)["succeeded"] == 3
    assert batches(owner)[0]["state"] == "over"
    assert "removed" in batches(owner)[0]["error"]


def test_cancelled_jobs_cost_what_their_lines_cost_and_nobody_waits_for_them(
    text: UUID, sandbox: Sandbox, fire: Fire, owner: Owner, scheduler: SchedulerProcess, client: Client
) -> None:
    sandbox.fault("batch_never", protocol="openai")
    group_id = fire(4)
    until(lambda: [batch for batch in batches(owner) if batch["state"] == "submitted"])
    ids = [row["id"] for row in owner.execute("SELECT id FROM jobs")]

    assert client.cancel_many(ids) == 4

    assert group(owner, group_id)["cancelled"] == 4
    until(lambda: batches(owner)[0]["state"] == "over")
    assert {call["outcome"] for call in calls(owner)} == {"superseded"}
    assert len(calls(owner)) == 2


def test_a_budget_that_blocks_is_obeyed(
    text: UUID, fire: Fire, owner: Owner, scheduler: SchedulerProcess, worker: WorkerProcess
) -> None:
    owner.execute(
        "INSERT INTO budgets (id, scope, period, limit_usd, action) "
        "VALUES (gen_random_uuid(), 'global', 'day', 0.0001, 'block')"
    )
    found = finished(owner, fire(3))
    assert (found["succeeded"], found["failed"]) == (0, 3)
    errors = owner.execute("SELECT DISTINCT error_class FROM job_history").fetchall()
    assert errors == [{"error_class": "budget"}]


def test_the_price_is_that_of_when_it_was_sent(
    text: UUID, rows: Rows, sandbox: Sandbox, fire: Fire, owner: Owner, scheduler: SchedulerProcess
) -> None:
    sandbox.fault("batch_delay", protocol="openai", seconds=1.5)
    group_id = fire(2)
    until(lambda: [batch for batch in batches(owner) if batch["state"] == "submitted"])
    owner.execute(
        "INSERT INTO model_prices (id, model_id, valid_from, input_price_per_1k, output_price_per_1k) "
        "VALUES (gen_random_uuid(), %s, now(), 100, 100)", [text],
    )  # fmt: skip
    finished(owner, group_id)
    assert all(call["cost_usd"] < 1 for call in calls(owner))


def test_the_daily_generation_with_a_scheduler_and_a_worker_killed_in_between(
    text: UUID, rows: Rows, sandbox: Sandbox, fire: Fire, owner: Owner, settings: Settings
) -> None:
    """12 signs x 3 languages: 36 texts in batches, 36 recordings, nothing twice."""
    voices = rows.model(rows.provider("voices", sandbox.openai), "tts", capabilities=["speech"])
    rows.assign("daily_zodiac_tts", voices, user="{{ text }}", parameters={"voice": "alloy"})
    sandbox.fault("batch_delay", protocol="openai", seconds=2.0)
    environment = settings.model_copy(update={"lease_seconds": 2.0, "log_level": "ERROR"}).environment()
    supervisor = Supervisor(environment)
    scheduler = supervisor.add("scheduler")
    supervisor.add("scheduler")
    worker = supervisor.add("worker", "--lanes", ",".join(LANES[1:]), "--threads", "2")
    supervisor.add("worker", "--lanes", ",".join(LANES[1:]), "--threads", "2")
    try:
        group_id = fire(
            12, ("en", "de", "ar"), then=[{"feature_name": "daily_zodiac_tts"}], deadline_minutes=60
        )
        until(lambda: batches(owner), seconds=30)
        for child in (scheduler, worker):
            assert child.process is not None
            os.kill(child.process.pid, signal.SIGKILL)

        def is_finished() -> bool:
            supervisor.tend()
            return group(owner, group_id)["finished_at"] is not None

        until(is_finished, seconds=90)
    finally:
        supervisor.stop(grace_seconds=10)
    found = group(owner, group_id)
    assert (found["succeeded"], found["failed"], found["total"], found["expected"]) == (72, 0, 72, 72)
    recorded = owner.execute(
        "SELECT feature, count(*) AS jobs, count(DISTINCT artifact_key) AS artifacts FROM job_history "
        "GROUP BY 1 ORDER BY 1"
    ).fetchall()
    assert recorded == [
        {"feature": "daily_zodiac_text", "jobs": 36, "artifacts": 0},
        {"feature": "daily_zodiac_tts", "jobs": 36, "artifacts": 36},
    ]
    assert owner.execute("SELECT FROM jobs").fetchall() == []
    texts = [
        call
        for call in calls(owner)
        if call["feature"] == "daily_zodiac_text" and call["outcome"] == "succeeded"
    ]
    assert len({call["job_id"] for call in texts}) == len(texts) == 36
    for call in texts:
        full = (
            Decimal(call["input_tokens"]) * Decimal("0.01") + call["output_tokens"] * Decimal("0.03")
        ) / 1000
        assert call["cost_usd"] == full / 2
    assert sandbox.calls()["batch_lines"] == 36
