"""Providers that nobody calls are probed, by one process of all."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from routing.transport import Transport
from store.database import Pool
from store.settings import Settings
from store.vault import Keyring, Vault
from tests.rows import Rows
from tests.sandbox import Sandbox
from tests.workers.conftest import until
from workers import provider_health, recent
from workers.doorbells import LANES
from workers.prober import Prober
from workers.run import WorkerProcess

Owner = psycopg.Connection[dict[str, Any]]


@pytest.fixture
def owner(settings: Settings) -> Iterator[Owner]:
    with psycopg.connect(settings.database(), autocommit=True, row_factory=dict_row) as db:
        yield db


@pytest.fixture
def prober(db: Pool, settings: Settings) -> Iterator[Prober]:
    transport = Transport()
    yield Prober(db, transport, Vault(Keyring.load(settings)), pause_seconds=300)
    transport.close()


def age(owner: Owner, seconds: int) -> None:
    """All that is known of providers happened so much earlier."""
    owner.execute("UPDATE ai_providers SET created_at = created_at - %s * interval '1 s'", [seconds])
    owner.execute(
        "UPDATE provider_health SET last_probe_at = last_probe_at - %(by)s * interval '1 s', "
        "last_success_at = last_success_at - %(by)s * interval '1 s'",
        {"by": seconds},
    )


def test_a_provider_that_nobody_called_for_a_while_is_probed_once(
    prober: Prober, db: Pool, rows: Rows, sandbox: Sandbox, owner: Owner
) -> None:
    provider = rows.provider("quiet", sandbox.openai)
    rows.provider("off", sandbox.openai, is_active=False)
    assert prober.turn() == 0, "it is new"
    age(owner, 301)

    with ThreadPoolExecutor(4) as processes:
        assert sum(processes.map(lambda _: prober.turn(), range(4))) == 1

    assert sandbox.calls()["count"] == 1
    with db.connection() as connection:
        health = provider_health.health(connection, provider)
    assert health.last_probe is not None
    assert (health.last_probe.ok, health.last_probe.error) == (True, None)
    assert (health.last_success_at, health.last_error, health.breakers) == (None, None, [])
    assert prober.turn() == 0
    age(owner, 301)
    assert prober.turn() == 1


def test_a_provider_that_is_called_is_not_probed(
    prober: Prober, rows: Rows, sandbox: Sandbox, owner: Owner
) -> None:
    provider = rows.provider("busy", sandbox.openai)
    age(owner, 900)
    owner.execute(
        "INSERT INTO provider_health (provider_id, last_success_at) VALUES (%s, now() - interval '299 s')",
        [provider],
    )
    assert prober.turn() == 0


def test_a_refused_key_is_an_alert_and_no_breaker_hears_of_a_failure(
    prober: Prober, db: Pool, rows: Rows, sandbox: Sandbox, owner: Owner
) -> None:
    refused = rows.provider("refused", sandbox.openai, key="bad-key")
    sick = rows.provider("sick", sandbox.anthropic, type="anthropic")
    sandbox.fault("status", protocol="anthropic", status=503)
    age(owner, 301)

    assert prober.turn() == 2

    [alert] = owner.execute("SELECT kind, noun, noun_id, message FROM alerts").fetchall()
    assert (alert["kind"], alert["noun"], alert["noun_id"]) == ("key_refused", "providers", str(refused))
    assert "bad-key" not in alert["message"]
    with db.connection() as connection:
        for health in provider_health.healths(connection, [refused, sick]).values():
            assert health.last_probe is not None
            assert not health.last_probe.ok
            assert health.last_probe.error
            assert (health.last_error, health.breakers) == (None, [])


def test_a_worker_probes_in_a_thread_of_its_own(
    settings: Settings, rows: Rows, sandbox: Sandbox, owner: Owner
) -> None:
    rows.provider("quiet", sandbox.openai)
    worker = WorkerProcess(settings.model_copy(update={"probe_seconds": 0.2}), lanes=LANES[:1], threads=1)
    worker.start()
    try:
        until(lambda: owner.execute("SELECT FROM provider_health WHERE last_probe_ok").fetchall())
    finally:
        worker.stop()


def test_fastest_hears_of_probes_that_are_the_newest_word(
    prober: Prober, db: Pool, rows: Rows, sandbox: Sandbox, owner: Owner
) -> None:
    well, sick = rows.provider("well", sandbox.openai), rows.provider("sick", sandbox.openai, key="bad-key")
    called = rows.provider("called", sandbox.openai)
    age(owner, 301)
    assert prober.turn() == 3
    owner.execute(
        "UPDATE provider_health SET last_success_at = now() + interval '1 s' WHERE provider_id = %s", [called]
    )

    with db.connection() as connection:
        probes = recent.count(connection).probe_ms

    assert probes.keys() == {well, sick}
    assert 0 <= probes[well] < math.inf
    assert probes[sick] == math.inf
