"""Keys are rotated under load: master keys and provider keys, and no job fails by it."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import psycopg
import pytest

from standalone.api_client import ApiClient
from standalone.keys import rotate
from standalone.supervisor import orrery
from store.sealed import SEALED_COLUMNS
from store.vault import Keyring, envelope_head
from tests.fleet import Fleet
from tests.rows import Rows
from tests.sandbox import Sandbox
from tests.workers.conftest import until
from workers.client import Client

TEXT = "cv_draft"
INPUT = {"profile": "Sam, gardener", "job": "Head gardener"}


@pytest.mark.parametrize(("jobs", "rotations"), [(150, 3), pytest.param(2000, 20, marks=pytest.mark.full)])
def test_no_job_fails_while_keys_are_rotated(
    fleet: Fleet, sandbox: Sandbox, jobs: int, rotations: int
) -> None:
    """Each rotation replaces the provider's key and then the master key, with jobs in the middle of calls."""
    api = fleet.api()
    provider = _configured(api, sandbox)
    sandbox.fault("latency", seconds=0.05)
    for _ in range(2):
        fleet.worker(lanes="standard", threads=4)
    first = Keyring.load(fleet.settings).current
    with psycopg.connect(fleet.settings.database(), autocommit=True) as db, _load(fleet, jobs) as sent:
        for k in range(1, rotations + 1):
            _some_more_end(db)
            body = {"api_key": f"sk-rotated-{k:04d}"}
            assert api.call("POST", f"/api/v1/providers/{provider}/rotate-key", body)["key_version"] == k + 1
            assert rotate(fleet.settings).is_complete
        _some_more_end(db)
    with psycopg.connect(fleet.settings.database(), autocommit=True) as db:
        until(lambda: _ended(db) == len(sent), seconds=180)
        ended = db.execute(
            "SELECT state, error_message, count(*), count(DISTINCT key_version) "
            "FROM job_history GROUP BY state, error_message"
        ).fetchall()
        stale = sum(_stale(db, Keyring.load(fleet.settings).current))
    print(f"{rotations} rotations of both keys under {len(sent)} jobs")
    assert [(state, count) for state, _, count, _ in ended] == [("succeeded", len(sent))], ended
    assert ended[0][3] == rotations + 1, "every key was called with"
    assert stale == 0
    assert first not in Keyring.load(fleet.settings).kids
    assert api.call("GET", f"/api/v1/providers/{provider}"), "whoever was logged in still is"
    assert api.call("POST", f"/api/v1/providers/{provider}/test")["ok"]


def test_the_command_rotates_and_prints_no_key(fleet: Fleet, rows: Rows) -> None:
    rows.provider("p", "http://127.0.0.1:9/v1")
    before = fleet.settings.keyring_file.read_text()
    ended = subprocess.run(
        [*orrery(), "keys", "rotate"],
        env={**os.environ, **fleet.settings.environment()},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "Secrets wrapped anew: 1 (ai_providers 1)." in ended.stdout
    assert f"{before.partition(':')[0]} retired" in ended.stdout
    for entry in (before + fleet.settings.keyring_file.read_text()).split():
        assert entry.partition(":")[2] not in ended.stdout + ended.stderr


@contextmanager
def _load(fleet: Fleet, jobs: int) -> Iterator[list[UUID]]:
    """That many jobs at once, and then one after the other until the end."""
    client = Client(fleet.settings)
    sent = [client.enqueue(TEXT, INPUT) for _ in range(jobs)]
    stopped = threading.Event()

    def trickle() -> None:
        while not stopped.wait(0.02):
            sent.append(client.enqueue(TEXT, INPUT))

    thread = threading.Thread(target=trickle)
    thread.start()
    try:
        yield sent
    finally:
        stopped.set()
        thread.join()
        client.close()


def _some_more_end(db: psycopg.Connection[Any]) -> None:
    before = _ended(db)
    until(lambda: _ended(db) >= before + 20, seconds=60)


def _configured(api: ApiClient, sandbox: Sandbox) -> str:
    body = {"slug": "p", "name": "P", "type": "openai", "base_url": sandbox.openai, "api_key": "sk-rotated-0"}
    provider = api.call("POST", "/api/v1/providers", {**body, "allow_private_network": True})
    model = api.call("POST", "/api/v1/models", {"provider_id": provider["id"], "model_id": "m", "name": "M"})
    api.call("POST", "/api/v1/feature-assignments", {"feature_name": TEXT, "model_id": model["id"]})
    return str(provider["id"])


def _ended(db: psycopg.Connection[Any]) -> int:
    row = db.execute("SELECT count(*) FROM job_history").fetchone()
    assert row is not None
    return int(row[0])


def _stale(db: psycopg.Connection[Any], kid: str) -> list[int]:
    head = envelope_head(kid)
    found = []
    for column in SEALED_COLUMNS:
        statement = f"SELECT count(*) FROM {column.table} WHERE substring({column.column} FOR %s) <> %s"
        row = db.execute(statement.encode(), [len(head), head]).fetchone()
        assert row is not None
        found.append(int(row[0]))
    return found
