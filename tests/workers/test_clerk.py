"""What a worker process writes down beside its jobs: that it lives, what its calls add up to, what fails."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from store.database import Pool
from store.settings import Settings
from store.tables import AIModel
from tests.rows import Rows
from tests.sandbox import Sandbox
from tests.workers.conftest import until
from workers import alerts, presence
from workers.client import Client
from workers.doorbells import LANES, Doorbells
from workers.feeder import Feeder
from workers.presence import Presence
from workers.run import WorkerProcess

TEXT = "daily_zodiac_text"
ARIES = {"sign": "aries", "language": "en"}
PROMPT = "Write the horoscope for {{ sign }}."

Owner = psycopg.Connection[dict[str, Any]]


@pytest.fixture
def owner(settings: Settings) -> Iterator[Owner]:
    with psycopg.connect(settings.database(), autocommit=True, row_factory=dict_row) as db:
        yield db


def listed(db: Pool) -> list[presence.WorkerState]:
    with db.connection() as connection:
        return presence.states(connection)


def kinds(owner: Owner) -> list[str]:
    return [row["kind"] for row in owner.execute("SELECT kind FROM alerts ORDER BY kind")]


def test_a_worker_is_listed_while_it_runs(
    db: Pool, settings: Settings, client: Client, rows: Rows, sandbox: Sandbox
) -> None:
    rows.assign(TEXT, rows.model(rows.provider("primary", sandbox.openai), "text-1"), user=PROMPT)
    sandbox.fault("latency", seconds=3)
    settings = settings.model_copy(update={"lease_seconds": 1.5})
    worker = WorkerProcess(settings, lanes=["batch", "interactive"], threads=3)
    worker.start()
    try:
        until(lambda: listed(db))
        client.enqueue(TEXT, ARIES)
        until(lambda: listed(db)[0].in_flight == 1)
        [state] = listed(db)
        assert (state.state, state.lanes, state.threads) == ("running", ["batch", "interactive"], 3)
        assert state.id == worker.id
    finally:
        worker.stop()
    assert listed(db) == []


def test_a_worker_is_lost_once_it_missed_three_beats(db: Pool, owner: Owner) -> None:
    with db.connection() as connection:
        for name in ("early", "late"):
            presence.arrive(connection, Presence(f"host:{name}", LANES, 4, "1.0", beat_seconds=10))
        owner.execute("UPDATE workers SET last_seen_at = now() - interval '29 s' WHERE id = 'host:early'")
        owner.execute("UPDATE workers SET last_seen_at = now() - interval '31 s' WHERE id = 'host:late'")
        assert {worker.id: worker.state for worker in listed(db)} == {
            "host:early": "running",
            "host:late": "lost",
        }
        presence.beat(connection, Presence("host:late", LANES, 4, "1.0", 10), in_flight=2, is_stopping=True)
        assert [(worker.id, worker.state) for worker in listed(db)][1] == ("host:late", "stopping")
        owner.execute("UPDATE workers SET last_seen_at = now() - interval '25 h' WHERE id = 'host:early'")
        presence.forget_lost(connection)
        assert [worker.id for worker in listed(db)] == ["host:late"]


def test_calls_of_jobs_are_counted_while_workers_run(
    client: Client, worker: WorkerProcess, rows: Rows, sandbox: Sandbox, owner: Owner
) -> None:
    rows.assign(TEXT, rows.model(rows.provider("primary", sandbox.openai), "text-1"), user=PROMPT)
    jobs = [client.result(client.enqueue(TEXT, ARIES, user_id="u1")) for _ in range(5)]
    until(lambda: owner.execute("SELECT FROM usage_hourly HAVING sum(calls) = 5").fetchall())
    [row] = owner.execute("SELECT provider, model, feature, outcome, cost_usd FROM usage_hourly")
    assert (row["provider"], row["model"], row["feature"]) == ("primary", "text-1", TEXT)
    assert row["outcome"] == "succeeded"
    assert row["cost_usd"] == sum(job.cost_usd or 0 for job in jobs)
    assert kinds(owner) == []


def test_an_open_breaker_is_reported_and_so_is_an_unknown_price(
    client: Client, worker: WorkerProcess, rows: Rows, sandbox: Sandbox, owner: Owner
) -> None:
    sick = rows.provider("sick", sandbox.openai)
    backup = rows.model(rows.provider("well", sandbox.anthropic, type="anthropic"), "text-2", prices=None)
    rows.assign(TEXT, rows.model(sick, "text-1"), backup, user=PROMPT, max_retries=0)
    sandbox.fault("status", protocol="openai", status=503)
    for _ in range(6):
        client.result(client.enqueue(TEXT, ARIES))
    until(lambda: owner.execute("SELECT FROM worker_breakers").fetchall())
    [breaker] = owner.execute("SELECT worker_id, provider_id, state FROM worker_breakers")
    assert breaker == {"worker_id": worker.id, "provider_id": sick, "state": "open"}
    until(lambda: kinds(owner) == ["breaker_open", "unknown_price"])


def _stranded(owner: Owner, client: Client, rows: Rows, sandbox: Sandbox, seconds: int) -> None:
    rows.assign(TEXT, rows.model(rows.provider("primary", sandbox.openai), "text-1"), user=PROMPT)
    client.enqueue(TEXT, ARIES)
    owner.execute("UPDATE jobs SET run_at = now() - %s * interval '1 second'", [seconds])


@pytest.mark.parametrize(
    ("seconds", "lanes", "paused", "raised"),
    [
        (31, [], False, ["lane_unserved"]),
        (31, ["interactive"], False, ["lane_unserved"]),
        (31, ["batch"], False, []),
        (31, [], True, []),
        (5, [], False, []),
    ],
)
def test_jobs_that_wait_for_nobody_are_reported(
    seconds: int,
    lanes: list[str],
    paused: bool,
    raised: list[str],
    db: Pool,
    client: Client,
    rows: Rows,
    sandbox: Sandbox,
    owner: Owner,
) -> None:
    _stranded(owner, client, rows, sandbox, seconds)
    owner.execute("UPDATE lanes SET is_paused = %s WHERE name = 'batch'", [paused])
    with db.connection() as connection:
        if lanes:
            presence.arrive(connection, Presence("host:1", lanes, 4, "1.0", beat_seconds=10))
        alerts.raise_unserved_lanes(connection)
    assert kinds(owner) == raised


def test_a_lost_worker_serves_nobody(
    db: Pool, client: Client, rows: Rows, sandbox: Sandbox, owner: Owner
) -> None:
    _stranded(owner, client, rows, sandbox, 31)
    with db.connection() as connection:
        presence.arrive(connection, Presence("host:1", LANES, 4, "1.0", beat_seconds=10))
        owner.execute("UPDATE workers SET last_seen_at = now() - interval '1 min'")
        alerts.raise_unserved_lanes(connection)
    assert kinds(owner) == ["lane_unserved"]


def test_models_that_retire_are_reported_while_they_are_assigned(
    db: Pool, rows: Rows, sandbox: Sandbox, owner: Owner
) -> None:
    today = datetime.now(UTC).date()
    provider = rows.provider("primary", sandbox.openai)
    dates = {"gone": -1, "soon": 30, "later": 31, "idle": 5, "off": 5}
    models = {
        name: rows.model(provider, name, retires_at=today + timedelta(days=days))
        for name, days in dates.items()
    }
    rows.assign(TEXT, models["gone"], models["soon"], models["later"], models["off"])
    rows.change(AIModel, models["off"], is_active=False)
    with db.connection() as connection:
        alerts.raise_retiring_models(connection)
        alerts.raise_retiring_models(connection)
    found = owner.execute("SELECT kind, noun_id, count, message FROM alerts ORDER BY kind").fetchall()
    assert [(alert["kind"], alert["noun_id"], alert["count"]) for alert in found] == [
        ("model_retired", str(models["gone"]), 2),
        ("model_retires", str(models["soon"]), 2),
    ]
    assert TEXT in found[0]["message"]


def test_a_job_that_kills_its_processes_is_reported(
    db: Pool, settings: Settings, client: Client, rows: Rows, sandbox: Sandbox, owner: Owner
) -> None:
    _stranded(owner, client, rows, sandbox, 0)
    owner.execute(
        "UPDATE jobs SET state = 'running', suspect = true, alone = true, crashes = 1, run = 2, "
        "lease_token = gen_random_uuid(), lease_until = now() - interval '1 s', started_at = now()"
    )
    doorbells = Doorbells(settings.redis())
    feeder = Feeder(db, doorbells, window=10, lease_seconds=0.01, pause_seconds=0)

    def is_reported() -> bool:
        feeder.turn()
        return kinds(owner) == ["poison_job"]

    until(is_reported)
    doorbells.close()


def test_an_acknowledged_alert_takes_what_goes_on_and_opens_anew_after_an_hour(
    db: Pool, owner: Owner
) -> None:
    found = [alerts.Alert("quota_exhausted", "providers", "p1", "used up")]
    with db.connection() as connection:
        for _ in range(2):
            alerts.raise_all(connection, found)
        owner.execute("UPDATE alerts SET acknowledged_at = now()")
        alerts.raise_all(connection, found)
        assert [row["count"] for row in owner.execute("SELECT count FROM alerts")] == [3]
        owner.execute("UPDATE alerts SET last_seen_at = now() - interval '61 min'")
        alerts.raise_all(connection, found)
    counts = owner.execute(
        "SELECT count, acknowledged_at IS NULL AS open FROM alerts ORDER BY count"
    ).fetchall()
    assert counts == [{"count": 1, "open": True}, {"count": 3, "open": False}]
