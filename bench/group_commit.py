"""Completions per second: the group completer against one transaction for each job.

`grouped` and `single` have the same threads and the same pool of connections, sized as a worker process has
it: the difference is the grouping alone. `serial` is one thread that ends one job after the other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import median

from bench.result import BenchError, Bound, Effort, Result
from bench.runs import Runs
from bench.stage import Stage
from workers import jobs
from workers.jobs import Completion

_THREADS = (8, 64)
_JOBS = 1000
_MOST_ROUNDS = 3
_LEAST_OF_SINGLE = 1.0
_LEAST_OF_SERIAL = {64: 4.0}  # by threads

End = Callable[[Completion], bool]
Round = Mapping[str, float]
"""Completions per second."""


def measure(stage: Stage, effort: Effort, progress: Callable[[str], None]) -> Result:
    """For each number of threads: the rates, and ratios within rounds; medians."""
    played = {threads: _play(stage, threads, effort, progress) for threads in _THREADS}
    return Result(
        title="Completions (medians; ratios paired within rounds)",
        columns=("threads", "grouped/s", "single/s", "serial/s", "grouped : single", "grouped : serial"),
        rows=[_row(threads, rounds) for threads, rounds in played.items()],
        data={
            "threads": {
                str(threads): {
                    "to_single": median(_ratios(rounds, "single")),
                    "to_serial": median(_ratios(rounds, "serial")),
                    "rounds_per_second": list(rounds),
                }
                for threads, rounds in played.items()
            }
        },
        bounds=[
            Bound(f"grouped : {other}, {threads} threads", median(_ratios(rounds, other)), least, floor=True)
            for threads, rounds in played.items()
            for other, least in (("single", _LEAST_OF_SINGLE), ("serial", _LEAST_OF_SERIAL.get(threads)))
            if least is not None
        ],
    )


def _play(stage: Stage, threads: int, effort: Effort, progress: Callable[[str], None]) -> list[Round]:
    """The rounds; who begins alternates."""
    count = effort.samples(_JOBS, least=2 * threads)
    rounds: list[Round] = []
    with Runs(stage, threads=threads) as runs:
        tools = runs.tools

        def grouped(completion: Completion) -> bool:
            with tools.leases.held(completion.job):
                return tools.completer.complete(completion)

        def single(completion: Completion) -> bool:
            with tools.leases.held(completion.job), tools.pool.connection() as db:
                return bool(jobs.complete(db, [completion]))

        contenders = [("grouped", grouped, threads), ("single", single, threads), ("serial", single, 1)]
        for number in range(effort.turns(_MOST_ROUNDS)):
            progress(f"completions by {threads} threads: round {number + 1}")
            rates: dict[str, float] = {}
            for name, end, hands in contenders if number % 2 == 0 else reversed(contenders):
                with tools.pool.connection() as db:
                    completions = [runs.completion(claimed) for claimed in runs.claimed(db, count)]
                rates[name] = _rate(end, completions, hands)
            rounds.append(rates)
    return rounds


def _rate(end: End, completions: Sequence[Completion], threads: int) -> float:
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda _: time.sleep(0.01), range(threads)))  # so that all threads are there
        began = time.perf_counter()
        ended = list(pool.map(end, completions))
        taken = time.perf_counter() - began
    if not all(ended):
        raise BenchError(f"Of {len(ended)} completions {len(ended) - sum(ended)} found their lease lost.")
    return len(ended) / taken


def _ratios(rounds: Sequence[Round], other: str) -> list[float]:
    return [rates["grouped"] / rates[other] for rates in rounds]


def _row(threads: int, rounds: Sequence[Round]) -> list[str]:
    rates = [f"{median(r[name] for r in rounds):.0f}" for name in ("grouped", "single", "serial")]
    ratios = (_ratios(rounds, "single"), _ratios(rounds, "serial"))
    return [str(threads), *rates, *(f"{median(r):.2f} ({min(r):.2f}-{max(r):.2f})" for r in ratios)]
