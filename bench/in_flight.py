"""Many slow calls at a time in ONE worker process: what a job costs in CPU, and the process in memory.

Calls in flight are counted by the provider. CPU is the process's own, over the jobs of the steady part.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from statistics import median

from bench.contenders.orrery import Orrery
from bench.crew import Crew
from bench.result import BenchError, Bound, Effort, Result
from bench.stage import Stage
from bench.throughput import STEADY_FROM, STEADY_TO, steady

_THREADS = 512
_LATENCY_SECONDS = 1.0
_QUICK_THREADS, _QUICK_LATENCY_SECONDS = 32, 0.1
_JOBS_EACH = 10  # of each thread
_MOST_ROUNDS = 3
_PATIENCE_SECONDS = 180.0
_PAUSE_SECONDS = 0.1  # between two looks at the provider
_MOST_CPU_MS = 2.5
_MOST_MEGABYTES = 200.0
_LEAST_SHARE_IN_FLIGHT = 0.8


@dataclass(frozen=True, slots=True)
class Flight:
    """One round. `in_flight`: calls that the provider held at a time, the median of the steady part."""

    jobs: int
    jobs_per_second: float
    cpu_ms_per_job: float
    peak_mb: float
    in_flight: float
    most_in_flight: int


def measure(stage: Stage, effort: Effort, progress: Callable[[str], None]) -> Result:
    """Medians of CPU and calls in flight, the most memory of all rounds."""
    threads = _QUICK_THREADS if effort.quick else _THREADS
    latency = _QUICK_LATENCY_SECONDS if effort.quick else _LATENCY_SECONDS
    flights = []
    with closing(Orrery(stage)) as contender:
        for number in range(effort.turns(_MOST_ROUNDS)):
            progress(f"{threads} calls of {latency:g} s at a time: round {number + 1}")
            flights.append(_fly(stage, contender, threads, latency))
    cpu = median(flight.cpu_ms_per_job for flight in flights)
    memory = max(flight.peak_mb for flight in flights)
    in_flight = median(flight.in_flight for flight in flights)
    return Result(
        title=f"{threads} threads in one worker process, calls of {latency:g} s",
        columns=("round", "in flight, median", "most", "jobs/s", "CPU ms/job", "peak MB"),
        rows=[
            [
                str(number),
                f"{flight.in_flight:.0f}",
                str(flight.most_in_flight),
                f"{flight.jobs_per_second:.0f}",
                f"{flight.cpu_ms_per_job:.2f}",
                f"{flight.peak_mb:.0f}",
            ]
            for number, flight in enumerate(flights, start=1)
        ],
        data={
            "threads": threads,
            "latency_seconds": latency,
            "in_flight": in_flight,
            "cpu_ms_per_job": cpu,
            "peak_mb": memory,
            "rounds": [asdict(flight) for flight in flights],
        },
        bounds=[
            Bound("CPU of a job", cpu, _MOST_CPU_MS, "ms"),
            Bound("memory", memory, _MOST_MEGABYTES, "MB"),
            Bound("in flight, of the threads", in_flight / threads, _LEAST_SHARE_IN_FLIGHT, floor=True),
        ],
    )


def _fly(stage: Stage, contender: Orrery, threads: int, latency: float) -> Flight:
    jobs = threads * _JOBS_EACH
    stage.reset(latency_seconds=latency)
    contender.fill(jobs)
    with Crew(stage.settings, contender.orders(threads), processes=1) as crew:
        crew.go()
        held, most = _watch(stage, jobs)
        (report,) = crew.finish()
    if (calls := stage.calls()) != jobs:
        raise BenchError(f"In flight: the provider was called {calls} times for {jobs} jobs.")
    done = steady(contender.finished([report]), [report])
    return Flight(jobs, done.jobs_per_second, done.cpu_ms_per_job, report.peak_mb, held, most)


def _watch(stage: Stage, jobs: int) -> tuple[float, int]:
    """Calls in flight until all are answered: the median of the steady part, and the most."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    seen: list[int] = []
    while True:
        log = stage.call_log()
        if STEADY_FROM <= log["count"] / jobs <= STEADY_TO:
            seen.append(log["in_flight"])
        if log["count"] >= jobs:
            break
        if time.monotonic() > deadline:
            raise BenchError(f"In flight: only {log['count']} of {jobs} calls came.")
        time.sleep(_PAUSE_SECONDS)
    if not seen:
        raise BenchError(f"In flight: {jobs} jobs are too few to look at in between.")
    return median(seen), log["max_in_flight"]
