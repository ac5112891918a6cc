"""Rows per second of a bulk from Python, stage by stage: COPY, the INSERT that commits, and the checks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from statistics import median
from typing import Any
from unittest.mock import patch

from bench.configuration import FEATURE, distinct_input
from bench.result import BenchError, Bound, Effort, Result
from bench.stage import Stage
from workers.bulk import Bulk
from workers.client import Client
from workers.requests import JobRequest

_ROWS = 100_000
_MOST_ROUNDS = 3
_LEAST_COPIED = 50_000  # rows per second
_STAGES = ("check and the rest", "COPY", "INSERT", "all")


def measure(stage: Stage, effort: Effort, progress: Callable[[str], None]) -> Result:
    """Bulks of 100,000 jobs with inputs that all differ; medians."""
    rows = effort.samples(_ROWS)
    requests = [JobRequest(FEATURE, distinct_input(n), user_id=f"user-{n}") for n in range(rows)]
    rounds = []
    with closing(Client(stage.settings)) as client:
        for number in range(effort.turns(_MOST_ROUNDS)):
            progress(f"a bulk of {rows:,} rows: round {number + 1}")
            rounds.append(_seconds(client, stage, requests))
    rates = {name: rows / median(taken[name] for taken in rounds) for name in _STAGES}
    return Result(
        title=f"A bulk of {rows:,} rows ({len(rounds)} rounds, medians)",
        columns=("", "rows/s", "µs/row"),
        rows=[[name, f"{rate:,.0f}", f"{1e6 / rate:.1f}"] for name, rate in rates.items()],
        data={"rows": rows, "rows_per_second": rates, "rounds_seconds": rounds},
        bounds=[Bound("COPY", rates["COPY"], _LEAST_COPIED, "rows/s", floor=True)],
        note="No two inputs are alike: each is checked against its schema.",
    )


def _seconds(client: Client, stage: Stage, requests: Sequence[JobRequest]) -> dict[str, float]:
    """Seconds of each stage of one bulk."""
    with _clocked("_copy") as copied, _clocked("_insert") as inserted:
        began = time.perf_counter()
        stored = client.enqueue_many(requests)
        taken = time.perf_counter() - began
    found = stage.db.execute("SELECT count(*) FROM jobs").fetchone()
    stage.empty_queue()
    if found != (len(requests),) or len(set(stored)) != len(requests):
        raise BenchError(f"Of {len(requests)} rows {found} were stored.")
    rest = taken - sum(copied) - sum(inserted)
    return dict(zip(_STAGES, (rest, sum(copied), sum(inserted), taken), strict=True))


@contextmanager
def _clocked(name: str) -> Iterator[list[float]]:
    """Notes the seconds of each call of a method of the product's bulk."""
    method = getattr(Bulk, name)
    taken: list[float] = []

    def clocked(*arguments: Any) -> Any:
        began = time.perf_counter()
        try:
            return method(*arguments)
        finally:
            taken.append(time.perf_counter() - began)

    with patch.object(Bulk, name, clocked):
        yield taken
