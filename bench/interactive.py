"""How soon an interactive job starts while a backlog of batch jobs is being worked.

The processes are those of `orrery up`, started by the same code: the API, one worker for the interactive
lane, two for the others. Interactive jobs arrive one by one at random moments, whether or not those before
have ended. The clock runs from the return of `enqueue` to the claim; all clocks are this machine's.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from uuid import UUID

from bench.configuration import FEATURE, INTERACTIVE_FEATURE, INTERACTIVE_INPUT, distinct_input
from bench.result import BenchError, Bound, Effort, Result, percentile
from bench.stage import Stage
from standalone.up import Layout, free_port, up
from workers.client import Client
from workers.requests import JobRequest

_BACKLOG = 20_000
_JOBS = 100
_WARM_UP = 5
_LATENCIES_MS = (0, 200)  # of the provider; 0 leaves least of the machine to others
_MEAN_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 0.5
_AT_WORK = 100  # batch jobs done: the backlog is being worked
_PATIENCE_SECONDS = 60.0
_MOST_MS = 100.0
_PERCENTILES = (50, 95)
_STARTED = """
SELECT id, state, extract(epoch FROM started_at)::float8 FROM job_history WHERE id = ANY(%s)"""
_WAITING = "SELECT count(*) FROM jobs WHERE lane = 'batch' AND state = 'queued'"


@dataclass(frozen=True, slots=True)
class Starts:
    """One scenario. `waits_ms`: from enqueue's return to the claim. `batch_left`: queued at the end of it."""

    waits_ms: Sequence[float]
    batch_left: int
    batch_per_second: float


def measure(stage: Stage, effort: Effort, progress: Callable[[str], None]) -> Result:
    """p50 and p95 of the way to the claim, for a provider at once and for one of 200 ms."""
    played: dict[int, Starts] = {}
    layout = Layout(port=free_port())
    if effort.quick:
        layout = replace(layout, workers=1)
    backlog = effort.samples(_BACKLOG, least=_AT_WORK * 10)
    for latency in _LATENCIES_MS[-1:] if effort.quick else _LATENCIES_MS:
        progress(f"interactive jobs beside {backlog:,} batch jobs of {latency} ms")
        played[latency] = _play(stage, layout, latency, backlog=backlog, count=effort.samples(_JOBS))
    figures: Mapping[int, Mapping[str, float]] = {
        latency: {f"p{percent}_ms": percentile(starts.waits_ms, percent) for percent in _PERCENTILES}
        for latency, starts in played.items()
    }
    return Result(
        title=f"Interactive start beside {backlog:,} batch jobs",
        columns=("provider", "jobs", "p50 ms", "p95 ms", "longest ms", "batch/s beside", "batch left"),
        rows=[
            [
                f"{latency} ms",
                str(len(starts.waits_ms)),
                *(f"{value:.1f}" for value in figures[latency].values()),
                f"{max(starts.waits_ms):.1f}",
                f"{starts.batch_per_second:.0f}",
                f"{starts.batch_left:,}",
            ]
            for latency, starts in played.items()
        ],
        data={
            "backlog": backlog,
            "layout": asdict(layout) | {"port": None},
            "scenarios": [
                {"latency_ms": latency, **figures[latency], **asdict(starts)}
                for latency, starts in played.items()
            ],
        },
        bounds=[
            Bound(f"{name.removesuffix('_ms')}, provider of {latency} ms,", value, _MOST_MS, "ms")
            for latency, values in figures.items()
            for name, value in values.items()
        ],
    )


def _play(stage: Stage, layout: Layout, latency_ms: int, *, backlog: int, count: int) -> Starts:
    stage.empty_queue()
    stage.reset(latency_seconds=latency_ms / 1000)
    try:
        with closing(Client(stage.settings)) as client, _running(stage, layout):
            for _ in range(_WARM_UP):
                client.result(
                    client.enqueue(INTERACTIVE_FEATURE, INTERACTIVE_INPUT), timeout=_PATIENCE_SECONDS
                )
            before = stage.calls()
            client.enqueue_many([JobRequest(FEATURE, distinct_input(n)) for n in range(backlog)])
            stage.wait_for_calls(before + _AT_WORK, seconds=_PATIENCE_SECONDS)
            began, done = time.monotonic(), stage.calls()
            returned = _arrivals(client, count)
            taken, done = time.monotonic() - began, stage.calls() - done
            left = stage.db.execute(_WAITING).fetchone()
            for job_id in returned:
                client.result(job_id, timeout=_PATIENCE_SECONDS)
    finally:
        stage.empty_queue()
    if left is None or left[0] == 0:
        raise BenchError("The batch jobs were done before the last interactive one came.")
    return Starts(_waits(stage, returned), left[0], (done - count) / taken)


@contextmanager
def _running(stage: Stage, layout: Layout) -> Iterator[None]:
    """The installation of `orrery up` on the stage's engines, with little to say."""
    quiet = stage.settings.model_copy(update={"log_level": "WARNING"})
    with up(quiet, layout, on_step=lambda _: None):
        yield


def _arrivals(client: Client, count: int) -> dict[UUID, float]:
    """Enqueue at moments that know nothing of each other; ids, and when each enqueue returned."""
    returned = {}
    for _ in range(count):
        time.sleep(min(random.expovariate(1 / _MEAN_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS))
        job_id = client.enqueue(INTERACTIVE_FEATURE, INTERACTIVE_INPUT)
        returned[job_id] = time.time()
    return returned


def _waits(stage: Stage, returned: Mapping[UUID, float]) -> list[float]:
    """Milliseconds; 0 where the claim was there before enqueue's return."""
    ended = stage.db.execute(_STARTED, [list(returned)]).fetchall()
    if len(ended) != len(returned) or any(state != "succeeded" for _, state, _ in ended):
        raise BenchError(f"Of {len(returned)} interactive jobs {len(ended)} have a record, or some failed.")
    return [max(started - returned[job_id], 0.0) * 1000 for job_id, _, started in ended]
