"""`orrery up --sandbox` and the commands around it, as an operator uses them."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from standalone.api_client import ApiClient, ApiError
from standalone.supervisor import orrery
from standalone.up import FIRST_ADMIN
from tests.machine import Machine, environment
from tests.workers.conftest import until


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    home = Path(tempfile.mkdtemp(prefix="orrery-up-"))
    home.chmod(0o755)
    with closing(Machine(home, "--sandbox")) as machine:
        yield machine
        machine.stop()


def test_the_first_start_prints_the_first_login_and_what_runs(machine: Machine) -> None:
    output = machine.output()
    assert f"http://127.0.0.1:{machine.port}" in output
    assert f"First super admin: {FIRST_ADMIN}   password: " in output
    names = [" ".join(worker.cmdline()) for worker in machine.workers()]
    assert len(names) == 3
    assert all("orrery worker" in name for name in names)
    assert sum("interactive" in name for name in names) == 1


def test_every_built_in_feature_answers_its_example(machine: Machine) -> None:
    token = machine.command("token", "admin", "--email", FIRST_ADMIN, "--mfa").strip()
    with machine.api(token) as api:
        features = list(api.pages("/api/v1/features"))
        assert len(features) == 16
        ids = {
            feature["name"]: api.call(
                "POST",
                "/api/v1/jobs",
                {"feature": feature["name"], "input": feature["input_schema"]["example"]},
            )["id"]
            for feature in features
        }
        for feature in features:
            job = api.call("GET", f"/api/v1/jobs/{ids[feature['name']]}?wait=30")
            assert job["state"] == "succeeded", (feature["name"], job["error"])
            _check_result(feature["capability"], job["result"], api)


def test_an_application_token_enqueues_and_reads_its_own_jobs_until_it_is_revoked(machine: Machine) -> None:
    clear = machine.command("token", "create", "--name", "shop").strip()
    assert "\n" not in clear
    body = {"feature": "chat_assistant", "input": {"message": "Hello"}}
    with machine.api(clear) as api:
        job = api.call("POST", "/api/v1/jobs", body)
        assert api.call("GET", f"/api/v1/jobs/{job['id']}?wait=30")["state"] == "succeeded"
        with pytest.raises(ApiError) as refused:
            api.call("GET", "/api/v1/providers")
        assert refused.value.status == 403
        [line] = [line for line in machine.command("token", "list").splitlines() if "shop" in line]
        assert clear not in line
        machine.command("token", "revoke", line.split()[0])
        with pytest.raises(ApiError) as revoked:
            api.call("POST", "/api/v1/jobs", body)
        assert revoked.value.status == 401


def test_jobs_from_the_shell(machine: Machine) -> None:
    output = machine.command("enqueue", "tarot_reading", "--input", 'cards=["The Star"]', "--wait")
    job = json.loads(output)
    assert job["state"] == "succeeded"
    assert json.loads(machine.command("job", job["id"])) == job
    queued = machine.command("enqueue", "chat_assistant", "--input", "message=42").strip()
    assert json.loads(machine.command("job", queued))["input"] == {"message": "42"}
    assert "tarot_readin" in machine.command("enqueue", "tarot_readin", succeeds=False)
    assert "KEY=VALUE" in machine.command("enqueue", "tarot_reading", "--input", "x", succeeds=False)


def test_status_and_env_tell_what_runs(machine: Machine) -> None:
    status = json.loads(machine.command("status", "--json"))
    assert status["running"] is True
    assert "error" not in status["postgresql"]
    assert status["postgresql"]["config_version"] > 1
    assert set(status["queues"]) == {"interactive", "standard", "batch"}
    exports = dict(line.removeprefix("export ").split("=", 1) for line in machine.command("env").splitlines())
    assert exports["ORRERY_DATABASE_URL"].startswith("postgresql://")
    password = exports["ORRERY_DATABASE_URL"].split(":")[2].split("@")[0]
    assert password not in json.dumps(status)
    assert "PostgreSQL" in machine.command("status")


def test_people_are_added_with_a_role_and_a_password(machine: Machine) -> None:
    def create(*arguments: str, password: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*orrery(), "admin", "create", *arguments, "--password-stdin", "--home", str(machine.home)],
            env=environment(),
            input=f"{password}\n",
            capture_output=True,
            text=True,
        )

    ann = ("--email", "Ann@Example.com", "--role", "admin")
    assert "12 to 1024 characters" in create(*ann, password="short").stderr
    assert create(*ann, password="a long password").returncode == 0
    assert "belongs to an admin" in create(*ann, password="a long password").stderr
    token = machine.command("token", "admin", "--email", "ann@example.com", "--mfa").strip()
    with machine.api(token) as api:
        assert api.call("GET", "/api/v1/providers")["items"]
        with pytest.raises(ApiError) as refused:
            api.call("PATCH", "/api/v1/features/cv_draft", {"description": "mine"})
        assert refused.value.status == 403


def test_a_worker_that_dies_is_started_again_and_none_outlives_the_supervisor(machine: Machine) -> None:
    [victim, *others] = machine.workers()
    victim.kill()
    until(lambda: len(machine.workers()) == 3 and victim.pid not in [w.pid for w in machine.workers()])
    assert {other.pid for other in others} <= {worker.pid for worker in machine.workers()}


def test_children_die_with_a_killed_parent_and_the_next_start_adopts_the_engines() -> None:
    home = Path(tempfile.mkdtemp(prefix="orrery-up-"))
    home.chmod(0o755)
    with closing(Machine(home, "--sandbox")) as first:
        parts = first.parts()
        first.process.kill()
        first.process.wait()
        assert len(parts) == 6  # sandbox, API, three workers, scheduler
        assert psutil.wait_procs(parts, timeout=20)[1] == []
        second = Machine(home, "--sandbox")
        second.stop()
        assert "password" not in second.output(), "the login is shown once"
        assert "were not running" in second.command("stop")


def _check_result(capability: str, result: dict[str, Any], api: ApiClient) -> None:
    if capability in ("text", "vision"):
        assert len(result["text"]) > 20
    elif capability == "transcription":
        assert result["text"] == "This is a recording."
    elif capability == "image":
        assert api.download(result["artifact_url"]).startswith(b"\x89PNG")
        assert result["media_type"] == "image/png"
    elif capability == "speech":
        assert api.download(result["artifact_url"])[:4] == b"RIFF"
        assert result["media_type"] == "audio/wav"
    elif capability == "moderation":
        assert result["flagged"] is False
    else:
        assert len(result["embedding"]) > 10
