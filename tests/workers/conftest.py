"""A worker process inside the test, and what looks at its work."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from store.database import Pool, Role, open_pool
from store.settings import Settings
from workers.client import Client
from workers.doorbells import LANES
from workers.run import WorkerProcess


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    """The applications' client."""
    client = Client(settings)
    yield client
    client.close()


@pytest.fixture
def worker(settings: Settings) -> Iterator[WorkerProcess]:
    """A worker of all lanes with four threads, running."""
    worker = WorkerProcess(settings, lanes=LANES, threads=4)
    worker.start()
    yield worker
    worker.stop()


@pytest.fixture
def db(settings: Settings) -> Iterator[Pool]:
    """Connections of the worker role."""
    pool = open_pool(settings.database(), Role.WORKER, size=4)
    yield pool
    pool.close()


def until(condition: Callable[[], object], *, seconds: float = 15) -> None:
    """Poll until `condition` holds; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come to hold in time"
        time.sleep(0.01)
