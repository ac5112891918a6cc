"""How long an idle worker takes to begin a job: from the job's INSERT to the start of its provider call.

One worker process of the interactive lane, one job at a time, the next only when the last has ended. Pauses
of random length keep the jobs out of step with the workers' polling. All clocks are this machine's.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import closing
from uuid import UUID

from bench.configuration import INTERACTIVE_FEATURE, INTERACTIVE_INPUT
from bench.contenders import orrery
from bench.crew import Crew, Orders
from bench.result import BenchError, Effort, Result, percentile
from bench.stage import Stage
from workers.client import Client

_THREADS = 4
_JOBS = 100
_WARM_UP = 5
_RESULT_SECONDS = 20.0
_PAUSE_SECONDS = (0.05, 0.15)
_WAITS = """
SELECT extract(epoch FROM job_history.started_at - created_at)::float8 * 1000,
       extract(epoch FROM call.started_at - created_at)::float8 * 1000
FROM job_history JOIN ai_usage_analytics AS call ON call.job_id = job_history.id AND call.n = 1
WHERE job_history.id = ANY(%s)"""


def measure(stage: Stage, effort: Effort, progress: Callable[[str], None]) -> Result:
    """p50 and p95 of the way to the claim, and to the call."""
    progress("single jobs on an idle worker")
    stage.reset(latency_seconds=0)
    orders = Orders(orrery.NAME, _THREADS, lanes=("interactive",))
    with (
        closing(Client(stage.settings)) as client,
        Crew(stage.settings, orders, processes=1) as crew,
    ):
        crew.go()
        for _ in range(_WARM_UP):
            _one(client)
        jobs = [_one(client) for _ in range(effort.samples(_JOBS))]
        crew.finish()
    waits = stage.db.execute(_WAITS, [jobs]).fetchall()
    if len(waits) != len(jobs):
        raise BenchError(f"Pick-up: {len(waits)} calls are recorded for {len(jobs)} jobs.")
    figures = {
        name: {"p50_ms": percentile(values, 50), "p95_ms": percentile(values, 95)}
        for name, values in zip(("claim", "call"), zip(*waits, strict=True), strict=True)
    }
    return Result(
        title=f"Idle pick-up, interactive lane ({len(jobs)} single jobs)",
        columns=("from INSERT to", "p50 ms", "p95 ms"),
        rows=[[name, f"{f['p50_ms']:.1f}", f"{f['p95_ms']:.1f}"] for name, f in figures.items()],
        data={"jobs": len(jobs), "threads": _THREADS, **figures},
    )


def _one(client: Client) -> UUID:
    time.sleep(random.uniform(*_PAUSE_SECONDS))
    job_id = client.enqueue(INTERACTIVE_FEATURE, INTERACTIVE_INPUT)
    job = client.result(job_id, timeout=_RESULT_SECONDS)
    if job.state != "succeeded":
        raise BenchError(f"Pick-up: a job {job.state} ({job.error_class}: {job.error_message}).")
    return job_id
