"""A process of the API, as `orrery api` starts it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from bench.result import BenchError
from standalone import people
from standalone.api_client import ApiClient
from standalone.supervisor import Supervisor
from standalone.up import free_port
from store.settings import Settings

_READY_SECONDS = 60.0
_STOP_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Api:
    """A running API: its process, where it is, and an application's token."""

    pid: int
    url: str
    token: str


@contextmanager
def api(settings: Settings) -> Iterator[Api]:
    """Start it, and end it afterwards. It dies with this process. Use it from one thread."""
    token = people.create_token(settings, name="bench", owner=None, scopes=())
    port = free_port()
    supervisor = Supervisor(settings.model_copy(update={"log_level": "WARNING"}).environment())
    try:
        child = supervisor.add("api", "--port", str(port))
        url = f"http://127.0.0.1:{port}"
        with ApiClient(url, timeout=5) as client:
            try:
                client.wait_until_ready(seconds=_READY_SECONDS)
            except TimeoutError as error:
                raise BenchError(str(error)) from None
        assert child.process is not None
        yield Api(child.process.pid, url, token)
    finally:
        supervisor.stop(grace_seconds=_STOP_SECONDS)
