"""Fixtures that start real engines: one PostgreSQL and one Valkey for the run, a fresh database per test."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
import redis
from pydantic import SecretStr

from standalone.engines import Endpoints, Engines
from store.migrations import upgrade
from store.settings import Settings
from store.vault import Keyring
from tests.rows import Rows
from tests.sandbox import Sandbox

_TEMPLATE = "orrery_template"
_ROOM = 2 * 1024**3  # bytes
_FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "400"}


@pytest.fixture(scope="session")
def run_id() -> str:
    """The same for all processes of one run."""
    return os.environ.get("PYTEST_XDIST_TESTRUNUID") or uuid.uuid4().hex


@pytest.fixture(scope="session")
def engines(run_id: str) -> Iterator[Endpoints]:
    """The run's engines, shared by its processes; the last to leave stops them and removes their folder.

    Other servers, say an older PostgreSQL or a Redis, are tried with ORRERY_TEST_DATABASE_URL (a superuser's)
    and ORRERY_TEST_REDIS_URL.
    """
    given = os.environ.get("ORRERY_TEST_DATABASE_URL"), os.environ.get("ORRERY_TEST_REDIS_URL")
    if given[0] and given[1]:
        yield Endpoints(given[0], given[1])
        return
    home = _roomy() / f"orrery-tests-{run_id[:12]}"
    engines = Engines(home, postgres_settings=_FAST)
    with _locked(home.with_suffix(".lock")):  # one process may come while another, the last for now, leaves
        home.mkdir(mode=0o755, exist_ok=True)
        endpoints = engines.start()
    try:
        yield endpoints
    finally:
        with _locked(home.with_suffix(".lock")):
            engines.close()
            if not _in_use(endpoints):
                shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def template(engines: Endpoints, run_id: str) -> str:
    """Name of a migrated database that tests copy."""
    lock = Path(tempfile.gettempdir()) / f"orrery-tests-{run_id[:12]}.lock"
    with _locked(lock), psycopg.connect(engines.database_url, autocommit=True) as db:
        found = db.execute("SELECT FROM pg_database WHERE datname = %s", [_TEMPLATE]).fetchone()
        if found is None:
            db.execute(f"CREATE DATABASE {_TEMPLATE}_new".encode())
            upgrade(database_named(engines.database_url, f"{_TEMPLATE}_new"))
            db.execute(f"ALTER DATABASE {_TEMPLATE}_new RENAME TO {_TEMPLATE}".encode())
    return _TEMPLATE


@pytest.fixture
def database_url(engines: Endpoints, template: str) -> Iterator[str]:
    """A migrated database of the test's own, as its owner."""
    name = f"test_{uuid.uuid4().hex[:16]}"
    with psycopg.connect(engines.database_url, autocommit=True) as db:
        db.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY".encode())
        yield database_named(engines.database_url, name)
        db.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture
def redis_url(engines: Endpoints) -> str:
    """An empty Valkey database that no other process of the run uses."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    url = f"{engines.redis_url.rsplit('/', 1)[0]}/{worker % 16}"
    client = redis.Redis.from_url(url)
    client.flushdb()
    client.close()
    return url


@pytest.fixture
def settings(database_url: str, redis_url: str, tmp_path: Path) -> Settings:
    """Settings of an installation of the test's own, with a keyring."""
    Keyring.create(tmp_path / "master.keys")
    return Settings(
        home=tmp_path,
        database_url=SecretStr(database_url),
        redis_url=SecretStr(redis_url),
        feeder_seconds=0.1,
        grace_seconds=5,
        probe_seconds=0,
    )


@pytest.fixture
def rows(settings: Settings) -> Iterator[Rows]:
    """Writes configuration rows."""
    rows = Rows(settings)
    yield rows
    rows.close()


@pytest.fixture(scope="session")
def sandbox_process() -> Iterator[Sandbox]:
    """One sandbox per test process."""
    sandbox = Sandbox()
    yield sandbox
    sandbox.close()


@pytest.fixture
def sandbox(sandbox_process: Sandbox) -> Sandbox:
    """The sandbox without faults, nothing called yet."""
    sandbox_process.reset()
    return sandbox_process


def _roomy() -> Path:
    """Memory where there is enough of it: each test copies and drops a database of 800 files, which takes
    0.1 s there and up to 3 s on a file system that has just deleted as many."""
    memory = Path("/dev/shm")
    if memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free >= _ROOM:
        return memory
    return Path(tempfile.gettempdir())


def database_named(url: str, name: str) -> str:
    """The URL of another database on the same server."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _in_use(endpoints: Endpoints) -> bool:
    try:
        psycopg.connect(endpoints.database_url, connect_timeout=1).close()
    except psycopg.OperationalError:
        return False
    return True
