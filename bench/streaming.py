"""How long a streamed text is under way: from the moment the provider sends it until the client has it.

The client follows the job before the provider speaks, one job at a time, through a worker process and an API
process of their own. The provider's text says when it was sent; both clocks are this machine's.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import closing

import httpx

from bench.announcer import WORDS, announcer
from bench.api import Api, api
from bench.configuration import INTERACTIVE_INPUT
from bench.contenders import orrery
from bench.crew import Crew, Orders
from bench.result import BenchError, Bound, Effort, Result, percentile
from bench.stage import Stage
from tests.rows import Rows

_FEATURE = "emergency_assistant"
_JOBS = 60
_WARM_UP = 3
_MOST_MS = 50.0
_TIMEOUT_SECONDS = 20.0


def measure(stage: Stage, effort: Effort, progress: Callable[[str], None]) -> Result:
    """p50 and p95 of the first text, and of all."""
    jobs = effort.samples(_JOBS)
    progress(f"{jobs} streamed answers, followed one by one")
    stage.reset(latency_seconds=0)
    orders = Orders(orrery.NAME, 4, lanes=("interactive",))
    with announcer() as url:
        with closing(Rows(stage.settings)) as rows:
            rows.assign(
                _FEATURE, rows.model(rows.provider("announcer", url), "announcer"), user="{{ message }}"
            )
        with (
            api(stage.settings) as running,
            Crew(stage.settings, orders, processes=1) as crew,
            _http() as http,
        ):
            crew.go()
            delays = [_delays(running, http) for _ in range(_WARM_UP + jobs)][_WARM_UP:]
            crew.finish()
    figures = {
        name: {"p50_ms": percentile(values, 50), "p95_ms": percentile(values, 95)}
        for name, values in {
            "first": [one[0] for one in delays],
            "all": [delay for one in delays for delay in one],
        }.items()
    }
    return Result(
        title=f"Streamed text, from the provider's send to the client ({jobs} jobs of {WORDS} texts)",
        columns=("text", "p50 ms", "p95 ms"),
        rows=[[name, f"{f['p50_ms']:.1f}", f"{f['p95_ms']:.1f}"] for name, f in figures.items()],
        data={"jobs": jobs, **figures},
        bounds=[Bound("first text, median", figures["first"]["p50_ms"], _MOST_MS, "ms")],
    )


def _http() -> httpx.Client:
    return httpx.Client(timeout=_TIMEOUT_SECONDS, trust_env=False)


def _delays(running: Api, http: httpx.Client) -> list[float]:
    """Milliseconds that each text of one job was under way."""
    headers = {"Authorization": f"Bearer {running.token}"}
    body = {"feature": _FEATURE, "input": INTERACTIVE_INPUT, "stream": True}
    job = http.post(f"{running.url}/api/v1/jobs", json=body, headers=headers).raise_for_status().json()["id"]
    found: list[float] = []
    with http.stream("GET", f"{running.url}/api/v1/jobs/{job}/events", headers=headers) as answer:
        event = ""
        for line in answer.iter_lines():
            now = time.time_ns()
            if line.startswith("event: "):
                event = line.removeprefix("event: ")
            elif line.startswith("data: ") and event == "text":
                sent = json.loads(line.removeprefix("data: "))["text"].split()
                found += [(now - int(at)) / 1e6 for at in sent]
    if len(found) != WORDS:
        raise BenchError(f"Of {WORDS} streamed texts {len(found)} came.")
    return found
