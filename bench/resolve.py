"""How long the routing decision takes, on the snapshot of a realistic configuration."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from statistics import median

from bench.configuration import FEATURE, INPUT
from bench.result import Effort, Result
from bench.stage import Stage
from routing.resolver import resolve
from routing.values import Request

_BATCHES = 50
_BATCH = 500


def measure(stage: Stage, effort: Effort, progress: Callable[[str], None]) -> Result:
    """Median and fastest of batches, in microseconds per decision; three targets, all usable."""
    progress("routing decisions")
    snapshot = stage.snapshot()
    request = Request(FEATURE, INPUT)
    now = datetime.now(UTC)

    def batch() -> float:
        began = time.perf_counter()
        for _ in range(_BATCH):
            resolve(snapshot, request, now=now)
        return (time.perf_counter() - began) / _BATCH * 1e6

    batches = [batch() for _ in range(effort.samples(_BATCHES))]
    size = {
        "features": len(snapshot.features),
        "assignments": len(snapshot.assignments),
        "models": len(snapshot.models),
        "providers": len(snapshot.providers),
    }
    return Result(
        title="One routing decision",
        columns=("snapshot", "median µs", "best µs"),
        rows=[
            [
                ", ".join(f"{count} {noun}" for noun, count in size.items()),
                f"{median(batches):.1f}",
                f"{min(batches):.1f}",
            ]
        ],
        data={"snapshot": size, "median_us": median(batches), "best_us": min(batches)},
    )
