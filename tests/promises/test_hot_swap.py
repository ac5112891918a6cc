"""Strict hot swap: a job whose claim begins after a change was answered runs with the change."""

from __future__ import annotations

import threading
import time
from datetime import datetime
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from standalone.api_client import ApiClient
from store.database import Role, conninfo
from tests.fleet import Fleet
from tests.sandbox import Sandbox
from tests.workers.conftest import until
from workers.client import Client

TEXT = "cv_draft"
INPUT = {"profile": "Sam, gardener", "job": "Head gardener"}


@pytest.mark.parametrize("swaps", [15, pytest.param(100, marks=pytest.mark.full)])
def test_no_job_claimed_after_a_swap_runs_with_what_was_before(
    fleet: Fleet, sandbox: Sandbox, swaps: int
) -> None:
    """Swaps model, prompt, key and base URL under load of four worker processes.

    Each swap `k` writes the provider (key and base URL, in one PATCH) and then the assignment (model and
    prompt, in one PATCH). Keys end in the parity of the base URL they belong to, and the model and the prompt
    carry the swap's number, so a mixed snapshot shows.
    """
    other = Sandbox()
    api = fleet.api()
    try:
        _run(fleet, api, (sandbox, other), swaps)
    finally:
        other.close()


def _run(fleet: Fleet, api: ApiClient, sandboxes: tuple[Sandbox, Sandbox], swaps: int) -> None:
    provider = api.call("POST", "/api/v1/providers", {**_provider(sandboxes, 0), **_PROVIDER})
    models = [_model(api, provider["id"], f"model-{k}") for k in range(swaps + 1)]
    body = {"feature_name": TEXT, **_assignment(models, 0)}
    assignment = api.call("POST", "/api/v1/feature-assignments", body)
    for _ in range(4):
        fleet.worker(lanes="standard", threads=3)
    client = Client(fleet.settings)
    stopped = threading.Event()
    ids: list[Any] = []
    load = threading.Thread(target=_enqueue_until, args=(stopped, client, ids))
    load.start()
    answered: list[tuple[datetime, int, int]] = []
    target = conninfo(fleet.settings.database(), Role.CLIENT)
    with psycopg.connect(target, autocommit=True, row_factory=dict_row) as db:
        try:
            until(lambda: _ended(db) > 5, seconds=30)
            for k in range(1, swaps + 1):
                api.call("PATCH", f"/api/v1/providers/{provider['id']}", _provider(sandboxes, k))
                api.call("PATCH", f"/api/v1/feature-assignments/{assignment['id']}", _assignment(models, k))
                answered.append((*_now(db), k))
                time.sleep(0.02)
        finally:
            stopped.set()
            load.join()
        until(lambda: _ended(db) == len(ids), seconds=60)
        jobs = db.execute(
            "SELECT state, started_at, config_version, model, prompt_version, error_message FROM job_history"
        ).fetchall()
    client.close()
    print(f"{swaps} swaps under load, {len(jobs)} jobs")
    assert {job["state"] for job in jobs} == {"succeeded"}, jobs[0]
    assert sum(_is_stale(job, answered) for job in jobs) == 0
    assert len({job["model"] for job in jobs}) > swaps // 3, "swaps happened under load"
    for job in jobs:
        assert job["model"] == f"model-{job['prompt_version'] - 1}", "model and prompt of one version"
    for parity, sandbox in enumerate(sandboxes):
        calls = sandbox.calls()["calls"]
        assert calls
        for call in calls:
            assert int(call["key"][-1]) % 2 == parity, "key and base URL of one version"


_PROVIDER = {"slug": "swapped", "name": "Swapped", "type": "openai", "allow_private_network": True}


def _provider(sandboxes: tuple[Sandbox, Sandbox], k: int) -> dict[str, Any]:
    return {"base_url": sandboxes[k % 2].openai, "api_key": f"sk-swap-{k:06d}"}


def _assignment(models: list[str], k: int) -> dict[str, Any]:
    return {
        "model_id": models[k],
        "prompt_template": {"user": f"Swap {k}: a CV for {{{{ profile }}}} as {{{{ job }}}}"},
    }


def _model(api: ApiClient, provider_id: str, name: str) -> str:
    body = {"provider_id": provider_id, "model_id": name, "name": name}
    return str(api.call("POST", "/api/v1/models", body)["id"])


def _enqueue_until(stopped: threading.Event, client: Client, ids: list[Any]) -> None:
    while not stopped.is_set():
        ids.append(client.enqueue(TEXT, INPUT))
        stopped.wait(0.01)  # a load the workers keep up with


def _now(db: psycopg.Connection[Any]) -> tuple[datetime, int]:
    row = db.execute("SELECT clock_timestamp() AS at, (SELECT version FROM config_state)").fetchone()
    assert row is not None
    return row["at"], row["version"]


def _ended(db: psycopg.Connection[Any]) -> int:
    row = db.execute("SELECT count(*) FROM job_history").fetchone()
    assert row is not None
    return int(row["count"])


def _is_stale(job: dict[str, Any], answered: list[tuple[datetime, int, int]]) -> bool:
    """Whether the claim began after a swap's answer and yet ran with an older version."""
    newest = max((version for at, version, _ in answered if at < job["started_at"]), default=0)
    return bool(job["config_version"] < newest)
