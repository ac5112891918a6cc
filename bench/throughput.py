"""Jobs per second: Orrery, a bare dramatiq actor and a naive actor doing the same provider call.

Each round fills a contender's queue while no worker runs, then lets its worker processes go together, so that
the rate of enqueueing limits nobody. The rate is taken in the steady state: from the job that ends as 15 %
are done (clients, connections and snapshots are made by then) to the one that ends as 95 % are done (later
threads run out of work). A round counts only if the sandbox was called once for each job and each job
succeeded. Contenders take turns within each round, and ratios are taken within each round: what disturbs the
machine disturbs all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from bench.contenders import bare, naive, orrery
from bench.contenders.contract import Contender
from bench.crew import Crew, Report
from bench.result import BenchError, Effort, Result
from bench.stage import Stage

Progress = Callable[[str], None]

CONTENDERS: Mapping[str, Callable[[Stage], Contender]] = {
    orrery.NAME: orrery.Orrery,
    bare.NAME: bare.Bare,
    naive.NAME: naive.Naive,
}

STEADY_FROM, STEADY_TO = 0.15, 0.95
"""Shares of the jobs between whose ends figures are taken."""
_MOST_JOBS = 20_000
_ROUND_SECONDS = 120.0
_MOST_SLOW_ROUNDS = 3  # where the provider is slow, orrery : bare differs by 1-3 % between rounds


@dataclass(frozen=True, slots=True)
class Scenario:
    """How slow the provider is, and who works."""

    latency_ms: int
    processes: int
    threads: int

    def __str__(self) -> str:
        return f"{self.latency_ms} ms, {self.processes}x{self.threads}"

    @property
    def fewest_jobs(self) -> int:
        """Five for each thread: fewer would hardly have a steady part."""
        return self.processes * self.threads * 5


SCENARIOS = (Scenario(0, 2, 8), Scenario(200, 2, 8), Scenario(200, 2, 16))


@dataclass(frozen=True, slots=True)
class Turn:
    """One contender's part of a round. `cpu_ms_per_job`: of the worker processes alone."""

    jobs: int
    jobs_per_second: float
    cpu_ms_per_job: float


Round = Mapping[str, Turn]


def measure(stage: Stage, effort: Effort, progress: Progress) -> Result:
    """All scenarios, one after the other."""
    with ExitStack() as opened:
        contenders = {name: opened.enter_context(closing(make(stage))) for name, make in CONTENDERS.items()}
        played = {scenario: _play(stage, effort, scenario, contenders, progress) for scenario in SCENARIOS}
    return Result(
        title="Throughput (medians; ratios paired within rounds)",
        columns=(
            *("provider, workers", *(f"{name}/s" for name in CONTENDERS)),
            *(*(f"{orrery.NAME} : {other}" for other in _others()), "CPU ms/job"),
        ),
        rows=[_row(scenario, rounds) for scenario, rounds in played.items()],
        data={"scenarios": [_data(scenario, rounds) for scenario, rounds in played.items()]},
        note="bare records nothing; naive opens an HTTP client and a database connection for each job. "
        "CPU: of the worker processes, in the order of the rates.",
    )


def turn(stage: Stage, contender: Contender, scenario: Scenario, jobs: int) -> Turn:
    """Fill the queue, let the workers go, and take the rate. BenchError unless all jobs succeeded once."""
    stage.reset(latency_seconds=scenario.latency_ms / 1000)
    contender.fill(jobs)
    orders = contender.orders(scenario.threads)
    with Crew(stage.settings, orders, processes=scenario.processes) as crew:
        crew.go()
        stage.wait_for_calls(jobs, seconds=_ROUND_SECONDS)
        reports = crew.finish()
    calls = stage.calls()
    if calls != jobs:
        raise BenchError(f"{orders.contender}: the sandbox was called {calls} times for {jobs} jobs.")
    return steady(contender.finished(reports), reports)


def steady(finished: Sequence[float], reports: Sequence[Report]) -> Turn:
    """Rate and CPU in the steady part of a turn; `finished` in order."""
    jobs = len(finished)
    first, last = int(jobs * STEADY_FROM), int(jobs * STEADY_TO) - 1
    began, ended = finished[first], finished[last]
    if last <= first or ended <= began:
        raise BenchError(f"{jobs} jobs are too few to take a rate from.")
    cpu = sum(report.cpu_at(ended) - report.cpu_at(began) for report in reports)
    done = last - first
    return Turn(jobs, done / (ended - began), cpu * 1000 / done)


def _play(
    stage: Stage,
    effort: Effort,
    scenario: Scenario,
    contenders: Mapping[str, Contender],
    progress: Progress,
) -> list[Round]:
    progress(f"{scenario}: {'one round' if effort.quick else 'finding the size of a round'}")
    if effort.quick:
        return [{name: turn(stage, c, scenario, scenario.fewest_jobs) for name, c in contenders.items()}]
    sizes = {name: fitting(stage, c, scenario, effort) for name, c in contenders.items()}
    rounds: list[Round] = []
    wanted = effort.turns(_MOST_SLOW_ROUNDS) if scenario.latency_ms else effort.rounds
    for number in range(1, wanted + 1):
        progress(f"{scenario}: round {number} of {wanted}")
        rounds.append({name: turn(stage, c, scenario, sizes[name]) for name, c in contenders.items()})
    return rounds


def fitting(stage: Stage, contender: Contender, scenario: Scenario, effort: Effort) -> int:
    """Jobs that take the contender about `effort.seconds`. Few are tried first; warming up slows those."""
    jobs = scenario.fewest_jobs
    while True:
        rate = turn(stage, contender, scenario, jobs).jobs_per_second
        wanted = min(max(round(rate * effort.seconds), scenario.fewest_jobs), _MOST_JOBS)
        if wanted < 2 * jobs:
            return wanted
        jobs = wanted


def _ratios(rounds: Sequence[Round], other: str) -> list[float]:
    return [r[orrery.NAME].jobs_per_second / r[other].jobs_per_second for r in rounds]


def _others() -> Iterator[str]:
    return (name for name in CONTENDERS if name != orrery.NAME)


def _row(scenario: Scenario, rounds: Sequence[Round]) -> list[str]:
    rates = [f"{median(r[name].jobs_per_second for r in rounds):.0f}" for name in CONTENDERS]
    ratios = [_spread(_ratios(rounds, other)) for other in _others()]
    cpu = " / ".join(f"{median(r[name].cpu_ms_per_job for r in rounds):.1f}" for name in CONTENDERS)
    return [str(scenario), *rates, *ratios, cpu]


def _spread(ratios: Sequence[float]) -> str:
    return f"{median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"


def _data(scenario: Scenario, rounds: Sequence[Round]) -> dict[str, Any]:
    medians = {
        f"{name}_{figure}": median(getattr(r[name], figure) for r in rounds)
        for name in CONTENDERS
        for figure in ("jobs_per_second", "cpu_ms_per_job")
    }
    ratios = {f"orrery_to_{other}": median(_ratios(rounds, other)) for other in _others()}
    return {
        **asdict(scenario),
        "medians": {**medians, **ratios},
        "rounds": [{name: asdict(done) for name, done in r.items()} for r in rounds],
    }
