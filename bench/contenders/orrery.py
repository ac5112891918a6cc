"""Orrery as it is: jobs through `workers.client`, run by `WorkerProcess`, recorded in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from uuid import UUID

from bench.configuration import FEATURE, INPUT
from bench.crew import Orders, Report
from bench.result import BenchError
from store.settings import Settings
from workers.client import Client
from workers.run import WorkerProcess

if TYPE_CHECKING:
    from bench.stage import Stage

NAME = "orrery"

_LANES = ("standard", "batch")
_ENQUEUERS = 8
_STILL_QUEUED = "SELECT count(*) FROM jobs WHERE id = ANY(%s)"
_FINISHED = "SELECT state, extract(epoch FROM finished_at)::float8 FROM job_history WHERE id = ANY(%s)"


class Orrery:
    """Fills the queue as an application would; the database knows what became of the jobs."""

    def __init__(self, stage: Stage) -> None:
        self._db = stage.db
        self._client = Client(stage.settings)
        self._ids: list[UUID] = []

    def orders(self, threads: int) -> Orders:
        return Orders(NAME, threads, lanes=_LANES)

    def fill(self, jobs: int) -> None:
        with ThreadPoolExecutor(_ENQUEUERS) as threads:
            self._ids = list(threads.map(lambda _: self._client.enqueue(FEATURE, INPUT), range(jobs)))

    def finished(self, reports: Sequence[Report]) -> list[float]:
        queued = self._db.execute(_STILL_QUEUED, [self._ids]).fetchone()
        ended = self._db.execute(_FINISHED, [self._ids]).fetchall()
        succeeded = sorted(at for state, at in ended if state == "succeeded")
        if queued != (0,) or len(ended) != len(self._ids) or len(succeeded) != len(self._ids):
            raise BenchError(
                f"Orrery: of {len(self._ids)} jobs {len(succeeded)} succeeded, {len(ended)} have a record."
            )
        return succeeded

    def close(self) -> None:
        self._client.close()


class _Staff:
    """A product's worker process. When jobs ended is read from their records."""

    def __init__(self, orders: Orders) -> None:
        self.finished: Sequence[float] = ()
        self.failed = 0
        self._process = WorkerProcess(Settings(), lanes=orders.lanes, threads=orders.threads)

    def start(self) -> None:
        self._process.start()

    def stop(self) -> None:
        self._process.stop()


def staff(orders: Orders) -> _Staff:
    """A worker process of the lanes in `orders`."""
    return _Staff(orders)
