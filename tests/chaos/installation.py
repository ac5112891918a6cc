"""An installation to be harmed: engines in a home of their own, the sandbox, workers that may be killed."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

import psycopg
import redis
from psycopg.rows import DictRow, dict_row
from pydantic import SecretStr

from standalone.api_client import ApiClient
from standalone.engines import Engines
from standalone.engines.account import service_account
from standalone.engines.postgres import Postgres
from standalone.engines.process import Engine, Launcher, ensure
from standalone.engines.process import stop as stop_engine
from standalone.engines.state import State
from standalone.engines.valkey import Valkey
from store.migrations import upgrade
from store.settings import Settings
from store.vault import Keyring
from tests.fleet import Fleet
from tests.rows import Rows
from tests.sandbox import Sandbox
from tests.workers.conftest import until

FEATURE = "cv_draft"
LANE = "standard"


class Installation:
    """Runs from `with` to its end; nothing of it is left then, whatever happened inside.

    Args:
        processes: worker processes, each with `threads` threads.
        lease_seconds: how long a worker may be silent.
        call_seconds: how long the sandbox takes to answer.
    """

    def __init__(
        self,
        *,
        processes: int,
        threads: int,
        lease_seconds: float,
        call_seconds: float,
    ) -> None:
        self.threads = threads
        self.processes = processes
        self._call_seconds = call_seconds
        self._folder = Path(tempfile.mkdtemp(prefix="orrery-chaos-"))
        self._folder.chmod(0o755)  # the engines' account must pass
        self._engines = Engines(self._folder / "engines")
        self._lease_seconds = lease_seconds
        self._workers: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            for worker in self._workers:
                worker.send_signal(signal.SIGCONT)
            if kind is None:
                self._stop_workers()
                # One that still loads finds out only then that its parent is gone.
                until(lambda: not self._survivors(), seconds=60)
        finally:
            self._remove()

    def connect(self) -> psycopg.Connection[DictRow]:
        """A connection as the owner."""
        return psycopg.connect(
            self.settings.database(), autocommit=True, row_factory=dict_row, connect_timeout=2
        )

    def logs(self) -> str:
        """What the workers have logged."""
        return self._fleet.logs()

    def all_work(self) -> bool:
        """Whether every worker has jobs in flight."""
        return len(self._busy()) == len(self._workers)

    def tend(self) -> int:
        """Start workers in the place of those that died; how many those were."""
        dead = [worker for worker in self._workers if worker.poll() is not None]
        for worker in dead:
            self._replace(worker)
        return len(dead)

    def calls(self) -> int:
        """How many calls the sandbox has had."""
        client = ApiClient(self.sandbox.url)  # a new connection: the sandbox closes those that idle
        try:
            return int(client.call("GET", "/_sandbox/calls")["count"])
        finally:
            client.close()

    # --- faults -----------------------------------------------------------------------------------------

    def kill_worker(self) -> None:
        """kill -9 of a worker that has jobs in flight; another takes its place."""
        worker = self._busy_worker()
        worker.kill()
        worker.wait()
        self._replace(worker)

    def stop_worker(self, seconds: float) -> None:
        """A worker with jobs in flight is suspended for so long, and goes on."""
        worker = self._busy_worker()
        worker.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        worker.send_signal(signal.SIGCONT)

    def flush_valkey(self) -> None:
        """FLUSHALL."""
        with redis.Redis.from_url(self.settings.redis()) as client:
            client.flushall()

    def empty_valkey(self, *, down_seconds: float = 0.0) -> None:
        """kill -9 of Valkey; it comes back later, at the same place and empty."""
        self._end(self._valkey, signal.SIGKILL)
        shutil.rmtree(self._valkey.folder / "appendonlydir")
        time.sleep(down_seconds)
        ensure(self._valkey, self._launcher)

    def suspend_valkey(self, seconds: float) -> None:
        """Valkey accepts connections and says nothing."""
        pid = self._valkey.pid()
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        time.sleep(seconds)
        os.kill(pid, signal.SIGCONT)

    def restart_postgres(self, *, immediate: bool, down_seconds: float = 0.0) -> None:
        """Fast or immediate shutdown (the latter loses what was not flushed, as a crash does); a start."""
        self._end(self._postgres, signal.SIGQUIT if immediate else signal.SIGINT)
        time.sleep(down_seconds)
        ensure(self._postgres, self._launcher)

    def terminate_backends(self) -> None:
        """pg_terminate_backend of half of the connections, whoever's they are."""
        with self.connect() as db:
            db.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend'"
                " AND pid <> pg_backend_pid() AND datname = current_database() AND random() < 0.5"
            )

    # --- inside -----------------------------------------------------------------------------------------

    def _start(self) -> None:
        endpoints = self._engines.start()
        upgrade(endpoints.database_url)
        Keyring.create(self._folder / "master.keys")
        self.settings = Settings(
            home=self._folder,
            database_url=SecretStr(endpoints.database_url),
            redis_url=SecretStr(endpoints.redis_url),
            lease_seconds=self._lease_seconds,
            feeder_seconds=0.2,
            grace_seconds=5,
        )
        home = self._folder / "engines"
        state = State.load(home)
        assert state is not None
        self._valkey = Valkey(home, state.valkey_port, state.valkey_password)
        self._postgres = Postgres(home, state.postgres_port, state.postgres_password)
        self._launcher = Launcher(home, service_account(self._postgres.folder), {}, lambda _: None)
        self.sandbox = Sandbox()
        self.sandbox.fault("latency", seconds=self._call_seconds)
        rows = Rows(self.settings)
        model = rows.model(rows.provider("sandbox", self.sandbox.openai), "m")
        rows.assign(FEATURE, model, user="{{ profile }}")
        rows.close()
        self._fleet = Fleet(self.settings)
        self._workers = [self._worker() for _ in range(self.processes)]

    def _worker(self) -> subprocess.Popen[bytes]:
        return self._fleet.worker(lanes=LANE, threads=self.threads)

    def _busy_worker(self) -> subprocess.Popen[bytes]:
        until(self._busy, seconds=60)
        return random.choice(self._busy() or self._workers)

    def _busy(self) -> list[subprocess.Popen[bytes]]:
        """The workers that have jobs in flight, as far as the database can be asked."""
        with suppress(psycopg.OperationalError), self.connect() as db:
            rows = db.execute("SELECT DISTINCT worker FROM jobs WHERE state = 'running'").fetchall()
            pids = {int(row["worker"].rpartition(":")[2]) for row in rows}
            return [worker for worker in self._workers if worker.pid in pids]
        return []

    def _replace(self, worker: subprocess.Popen[bytes]) -> None:
        self._workers[self._workers.index(worker)] = self._worker()

    def _stop_workers(self) -> None:
        """As an operator stops them. Those that were killed before are not among them.

        One whose program still loads has no say in how it ends: the signal ends it, and its code is no 0.
        """
        until(self._all_serve, seconds=60)
        for worker in self._workers:
            worker.terminate()
        codes = [worker.wait(timeout=20) for worker in self._workers]
        assert set(codes) == {0}, f"a worker ended badly: {codes}\n{self.logs()[-4000:]}"

    def _all_serve(self) -> bool:
        logs = self.logs()
        return all(f" {worker.pid} workers.run: Worker serves" in logs for worker in self._workers)

    def _end(self, engine: Engine, number: signal.Signals) -> None:
        pid = engine.pid()
        assert pid is not None, f"{engine.title} does not run"
        os.kill(pid, number)
        until(lambda: engine.pid() is None, seconds=30)

    def _survivors(self) -> list[int]:
        """Processes that carry this installation's folder in their environment, and are no zombies."""
        marks = f"ORRERY_HOME={self._folder}".encode()
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                if marks in path.read_bytes().split(b"\0"):
                    found.append(int(path.parent.name))
            except OSError:
                continue  # it ended while we looked
        return found

    def _remove(self) -> None:
        for pid in self._survivors():
            os.kill(pid, signal.SIGKILL)
        for worker in self._workers:
            worker.wait(timeout=10)
        if hasattr(self, "sandbox"):
            self.sandbox.close()
        for engine in (getattr(self, "_valkey", None), getattr(self, "_postgres", None)):
            if engine is not None and engine.pid() is not None:
                stop_engine(engine)
        self._engines.close()
        shutil.rmtree(self._folder, ignore_errors=True)
