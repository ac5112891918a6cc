"""The stage of a run: durable engines, a configured installation, a sandbox; all gone afterwards."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import redis

from bench import configuration
from bench.result import BenchError
from routing import prompts
from routing.providers import codec
from routing.providers.wire import HttpRequest
from routing.resolver import resolve
from routing.snapshot import Snapshot, load
from routing.values import Request
from standalone.api_client import ApiClient
from standalone.engines import Engines
from standalone.machine import with_endpoints
from standalone.schema import migrate
from store.database import Role, open_pool
from store.settings import Settings
from tests.rows import CANARY, Rows
from tests.sandbox import Sandbox

_PAUSE_SECONDS = 0.05  # between two looks at the sandbox's count


@dataclass(frozen=True, slots=True)
class Stage:
    """What measurements play on. `db` is the owner's connection, in autocommit."""

    settings: Settings
    sandbox: Sandbox
    control: ApiClient
    db: psycopg.Connection
    redis: redis.Redis

    def reset(self, *, latency_seconds: float) -> None:
        """Empty Valkey and the sandbox's call log; the sandbox then answers after `latency_seconds`."""
        self.redis.flushdb()
        self.sandbox.reset()
        if latency_seconds:
            self.sandbox.fault("latency", seconds=latency_seconds)

    def empty_queue(self) -> None:
        """Take out all jobs that have not ended, and their doorbells. No worker runs meanwhile."""
        self.db.execute("TRUNCATE jobs")
        self.redis.flushdb()

    def calls(self) -> int:
        """Calls that the sandbox has answered since `reset`."""
        return int(self.call_log()["count"])

    def call_log(self) -> dict[str, Any]:
        """The totals of the sandbox's call log: `count`, `in_flight`, `max_in_flight` among them."""
        totals: dict[str, Any] = self.control.call("GET", "/_sandbox/calls?limit=0")
        return totals

    def wait_for_calls(self, count: int, *, seconds: float) -> None:
        """Return once the sandbox has answered `count` calls. BenchError after `seconds`."""
        deadline = time.monotonic() + seconds
        while (seen := self.calls()) < count:
            if time.monotonic() > deadline:
                raise BenchError(f"Only {seen} of {count} calls came within {seconds:.0f} s.")
            time.sleep(_PAUSE_SECONDS)

    def snapshot(self) -> Snapshot:
        """The configuration as a worker has it."""
        pool = open_pool(self.settings.database(), Role.WORKER, size=1)
        with pool, pool.connection() as db:
            return load(db, with_keys=True)

    def provider_request(self) -> HttpRequest:
        """Byte for byte the request that Orrery's workers send for the job of the benchmark."""
        request = Request(configuration.FEATURE, configuration.INPUT)
        plan = resolve(self.snapshot(), request, now=datetime.now(UTC))
        route = plan.routes[0]
        call = prompts.compose(plan.feature, plan.assignment, route, request)
        return codec(route, call.capability).encode(call, CANARY)


@contextmanager
def stage() -> Iterator[Stage]:
    """Set everything up; tear everything down, whatever happens in between.

    PostgreSQL runs with the settings of `orrery up`: fsync and synchronous commits are on.
    """
    home = Path(tempfile.mkdtemp(prefix="orrery-bench-"))
    home.chmod(0o711)  # the account that the engines drop to must get through
    try:
        with Engines(home) as engines:
            settings = with_endpoints(Settings(home=home), engines.endpoints)
            migrate(settings)
            with _sandbox() as sandbox:
                configure(settings, sandbox)
                with (
                    ApiClient(sandbox.url) as control,
                    psycopg.connect(settings.database(), autocommit=True) as db,
                    redis.Redis.from_url(settings.redis()) as client,
                ):
                    yield Stage(settings, sandbox, control, db, client)
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def _sandbox() -> Iterator[Sandbox]:
    sandbox = Sandbox()
    try:
        yield sandbox
    finally:
        sandbox.close()


def configure(settings: Settings, sandbox: Sandbox) -> None:
    """Write the configuration of the benchmarks into a migrated database."""
    rows = Rows(settings)
    try:
        configuration.write(rows, sandbox.openai)
    finally:
        rows.close()
