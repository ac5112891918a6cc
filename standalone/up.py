"""`orrery up`: everything on one machine."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis

from standalone import people, sandbox_rows
from standalone.api_client import ApiClient
from standalone.api_server import is_loopback
from standalone.machine import Step, installation
from standalone.schema import migrate
from standalone.signals import heard
from standalone.supervisor import STOP_MARGIN_SECONDS, TEND_SECONDS, Supervisor
from store.settings import Settings, SettingsError

FIRST_ADMIN = "admin@localhost"
_READY_SECONDS = 120.0  # a crowded machine takes its time to import


@dataclass(frozen=True, slots=True)
class Layout:
    """What runs: `workers` processes for standard and batch, and one more for interactive.

    `forgets`: what an earlier run has left in Redis (doorbells, limits, breakers that opened) goes first.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 2
    threads: int = 8
    sandbox: bool = False
    forgets: bool = False


@dataclass(frozen=True, slots=True)
class Running:
    """An installation that is up."""

    settings: Settings
    supervisor: Supervisor
    api_url: str
    sandbox_url: str | None

    def api(self) -> ApiClient:
        """A client that acts as the operator of this machine."""
        token = people.admin_jwt(self.settings, email=people.oldest_super_admin(self.settings), mfa=True)
        return ApiClient(self.api_url, token)


@contextmanager
def up(
    settings: Settings,
    layout: Layout,
    *,
    on_step: Step,
    on_first_password: Callable[[str], None] = lambda _: None,
) -> Iterator[Running]:
    """Start engines, API, workers, a scheduler and, if asked, the sandbox; stop them at the end.

    `on_first_password` gets the first super admin's password as soon as it exists, on the very first start.
    """
    _refuse_taken(layout)
    with installation(settings, on_step=on_step) as reached:
        on_step("migrating the database")
        migrate(reached)
        password = people.ensure_first_admin(reached, email=FIRST_ADMIN)
        if password is not None:
            on_first_password(password)
        reached = reached.model_copy(update={"second_factor_postponable": is_loopback(layout.host)})
        if layout.forgets:
            with redis.Redis.from_url(reached.redis()) as server:
                server.flushdb()
        supervisor = Supervisor(reached.environment())
        try:
            on_step("starting the API, the workers and the scheduler")
            api_url = f"http://{_reachable(layout.host)}:{layout.port}"
            sandbox_url = _start(supervisor, reached.home, layout)
            running = Running(reached, supervisor, api_url, sandbox_url)
            _wait_until_ready(running)
            if sandbox_url is not None:
                on_step("pointing the features at the sandbox")
                with running.api() as api:
                    sandbox_rows.install(api, sandbox_url)
            yield running
        finally:
            supervisor.stop(grace_seconds=reached.grace_seconds + STOP_MARGIN_SECONDS)


def serve_until_signalled(running: Running, on_ready: Callable[[], None]) -> None:
    """Keep the children running until SIGTERM or SIGINT."""
    signals = heard()
    on_ready()
    while not signals:
        time.sleep(TEND_SECONDS)
        running.supervisor.tend()


def free_port() -> int:
    """A TCP port of the loopback address that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _start(supervisor: Supervisor, home: Path, layout: Layout) -> str | None:
    sandbox_url = None
    if layout.sandbox:
        port = _kept_port(home / "sandbox.json")
        supervisor.add("sandbox", "--port", str(port))
        sandbox_url = f"http://127.0.0.1:{port}"
    supervisor.add("api", "--host", layout.host, "--port", str(layout.port))
    threads = ("--threads", str(layout.threads))
    supervisor.add("worker", "--lanes", "interactive", *threads)
    for _ in range(layout.workers):
        supervisor.add("worker", "--lanes", "standard,batch", *threads)
    supervisor.add("scheduler")
    return sandbox_url


def _refuse_taken(layout: Layout) -> None:
    """Before anything starts: another installation's API must not be taken for ours."""
    family = socket.AF_INET6 if ":" in layout.host else socket.AF_INET
    try:
        socket.create_server((layout.host, layout.port), family=family).close()
    except OSError as error:
        raise SettingsError(
            f"Port {layout.port} of {layout.host} cannot be had: {error.strerror}. "
            "Choose another with --port."
        ) from None


def _reachable(host: str) -> str:
    """An address for us to call where the API listens on all of them."""
    return "127.0.0.1" if host in ("0.0.0.0", "::", "") else f"[{host}]" if ":" in host else host  # noqa: S104


def _kept_port(path: Path) -> int:
    """The sandbox's port of last time if it is free: its providers' rows name it."""
    if path.exists():
        port = int(json.loads(path.read_text())["port"])
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    port = free_port()
    path.write_text(json.dumps({"port": port}))
    return port


def _wait_until_ready(running: Running) -> None:
    with ApiClient(running.api_url, timeout=5) as api:
        api.wait_until_ready(seconds=_READY_SECONDS)
    if running.sandbox_url is not None:
        with ApiClient(running.sandbox_url, timeout=5) as sandbox:
            sandbox.wait_until_ready("/_sandbox/health", seconds=_READY_SECONDS)
