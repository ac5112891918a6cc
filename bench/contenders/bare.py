"""The least that can be done: a dramatiq actor that sends the request. Nothing is recorded."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

import httpx

from bench.contenders.actor import ActorWorker, broker
from bench.crew import Orders, Report
from bench.result import BenchError
from store.settings import Settings

if TYPE_CHECKING:
    from bench.stage import Stage

NAME = "bare"


class Bare:
    """Fills the queue with numbers; only the worker processes know what became of them."""

    def __init__(self, stage: Stage) -> None:
        self._request = stage.provider_request()
        self._broker, self._actor = broker(stage.settings.redis(), NAME, lambda _: None)
        self._jobs = 0

    def orders(self, threads: int) -> Orders:
        request = self._request
        return Orders(
            NAME, threads, url=request.url, headers=tuple(request.headers.items()), body=request.body.decode()
        )

    def fill(self, jobs: int) -> None:
        self._jobs = jobs
        for number in range(jobs):
            self._actor.send(number)

    def finished(self, reports: Sequence[Report]) -> list[float]:
        finished = sorted(at for report in reports for at in report.finished)
        failed = sum(report.failed for report in reports)
        if failed or len(finished) != self._jobs:
            raise BenchError(f"Bare: of {self._jobs} jobs {len(finished)} succeeded; {failed} runs failed.")
        return finished

    def close(self) -> None:
        self._broker.close()


def staff(orders: Orders) -> ActorWorker:
    """An actor that posts the request with its thread's kept-alive client."""
    headers = dict(orders.headers)
    body = orders.body.encode()
    local = threading.local()

    def perform(number: int) -> None:
        client: httpx.Client | None = getattr(local, "client", None)
        if client is None:
            client = local.client = httpx.Client(timeout=60)
        response = client.post(orders.url, headers=headers, content=body)
        response.raise_for_status()
        if not response.json()["choices"][0]["message"]["content"]:
            raise ValueError(f"Job {number} got an empty answer.")

    return ActorWorker(Settings().redis(), NAME, perform, threads=orders.threads)
