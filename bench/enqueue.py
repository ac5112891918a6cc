"""How long one enqueue takes, beside the least that is as durable: an INSERT of the same input, committed."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from statistics import median

from psycopg.types.json import Jsonb

from bench.configuration import FEATURE, INPUT
from bench.result import Effort, Result, percentile
from bench.stage import Stage
from workers.client import Client

_PAIRS = 300
_WARM_UP = 20
_TABLE = """
CREATE TABLE IF NOT EXISTS plain_jobs (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, feature text, input jsonb, created_at timestamptz)"""
_INSERT = "INSERT INTO plain_jobs (feature, input, created_at) VALUES (%s, %s, now()) RETURNING id"


def measure(stage: Stage, effort: Effort, progress: Callable[[str], None]) -> Result:
    """Pairs of one enqueue and one plain INSERT, in turn, from one thread, with no worker about."""
    progress("single enqueues")
    stage.reset(latency_seconds=0)
    stage.db.execute(_TABLE)
    with closing(Client(stage.settings)) as client:

        def enqueue() -> None:
            client.enqueue(FEATURE, INPUT)

        def insert() -> None:
            stage.db.execute(_INSERT, [FEATURE, Jsonb(INPUT)])

        pairs = [(_took(enqueue), _took(insert)) for _ in range(_WARM_UP + effort.samples(_PAIRS))]
    stage.db.execute("DELETE FROM jobs")
    pairs = pairs[_WARM_UP:]
    figures = {
        name: {"p50_ms": percentile(values, 50), "p95_ms": percentile(values, 95)}
        for name, values in zip(("orrery", "plain_insert"), zip(*pairs, strict=True), strict=True)
    }
    ratio = median(enqueued / inserted for enqueued, inserted in pairs)
    return Result(
        title=f"One enqueue ({len(pairs)} pairs; orrery : plain INSERT {ratio:.2f})",
        columns=("", "p50 ms", "p95 ms"),
        rows=[[name, f"{f['p50_ms']:.2f}", f"{f['p95_ms']:.2f}"] for name, f in figures.items()],
        data={"pairs": len(pairs), **figures, "orrery_to_plain_insert": ratio},
        note="An enqueue checks the input and rings the doorbell too; both wait for the disk.",
    )


def _took(act: Callable[[], None]) -> float:
    """Milliseconds."""
    began = time.perf_counter()
    act()
    return (time.perf_counter() - began) * 1000
