"""What a contender is."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Protocol, cast

from bench.crew import Orders, Report


class Worker(Protocol):
    """A contender inside a worker process."""

    @property
    def finished(self) -> Sequence[float]:
        """When jobs succeeded (Unix seconds), where the process itself knows."""

    @property
    def failed(self) -> int:
        """Runs that failed, where the process itself knows."""

    def start(self) -> None:
        """Begin to take jobs."""

    def stop(self) -> None:
        """Finish the jobs at hand and close."""


class Contender(Protocol):
    """A contender as the leader of the round sees it."""

    def orders(self, threads: int) -> Orders:
        """What its worker processes are told."""

    def fill(self, jobs: int) -> None:
        """Put `jobs` jobs into its queue. No worker runs meanwhile."""

    def finished(self, reports: Sequence[Report]) -> list[float]:
        """When each job of the last `fill` succeeded (Unix seconds), in order.

        Raises BenchError unless each of them succeeded exactly once.
        """

    def close(self) -> None:
        """Close its connections."""


def staff(orders: Orders) -> Worker:
    """The worker that `orders` ask for, connected but not started."""
    return cast(Worker, import_module(f"bench.contenders.{orders.contender}").staff(orders))
