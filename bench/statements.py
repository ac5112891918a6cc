"""How long the two statements of a job's run take, each alone on one connection; nothing else goes on."""

from __future__ import annotations

import time
from collections.abc import Callable

import psycopg
from psycopg.rows import dict_row

from bench.result import Effort, Result, percentile
from bench.runs import Runs
from bench.stage import Stage
from store.database import Role, conninfo
from workers import jobs

_JOBS = 1000
_WARM_UP = 50
_PERCENTILES = (50, 95, 99)


def measure(stage: Stage, effort: Effort, progress: Callable[[str], None]) -> Result:
    """p50, p95 and p99 of claim and of complete, for jobs that wait in a queue of as many."""
    progress("single claims and completions")
    taken: dict[str, list[float]] = {"claim": [], "complete": []}
    address = conninfo(stage.settings.database(), Role.WORKER, application="orrery bench")
    with (
        Runs(stage) as runs,
        psycopg.Connection.connect(address, autocommit=True, row_factory=dict_row) as db,
    ):
        for job_id in runs.queued(effort.samples(_JOBS) + _WARM_UP):
            began = time.perf_counter()
            claimed = runs.claim(db, job_id)
            taken["claim"].append((time.perf_counter() - began) * 1000)
            completion = runs.completion(claimed)
            began = time.perf_counter()
            ended = jobs.complete(db, [completion])
            taken["complete"].append((time.perf_counter() - began) * 1000)
            runs.must_end(ended, [completion])
    figures = {
        name: {f"p{percent}_ms": percentile(values[_WARM_UP:], percent) for percent in _PERCENTILES}
        for name, values in taken.items()
    }
    counted = len(taken["claim"]) - _WARM_UP
    return Result(
        title=f"One statement ({counted} jobs, one connection)",
        columns=("", *(f"p{percent} ms" for percent in _PERCENTILES)),
        rows=[[name, *(f"{value:.2f}" for value in f.values())] for name, f in figures.items()],
        data={"jobs": counted, **figures},
        note="From call to return, in workers.jobs. A completion waits for the disk, a claim does not.",
    )
