"""What dropping a day costs those who work meanwhile: throughput with and without, and how long it holds up.

Rounds come in pairs, with a day that goes in the middle and without; who begins alternates. A keeper drops
the day, as it would in a scheduler. In both another session asks for the locks that a worker takes
when it records a job: the longest it waited is what a drop held anybody up, lock queue included.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, replace
from statistics import median

import psycopg

from bench.contenders.orrery import Orrery
from bench.history import beside
from bench.past import count, invent_day
from bench.result import BenchError, Bound, Effort, Result
from bench.runs import Runs
from bench.stage import Stage
from bench.throughput import Scenario, Turn, fitting, turn
from standalone.api_client import ApiClient
from store.database import Pool, Role, open_pool
from workers.artifacts import Artifacts
from workers.keeper import Keeper

_ROWS = 300_000
_PATTERNS = 24  # real jobs that the day is copied from
_OLDEST_DAYS = 40
_MOST_ROUNDS = 3
_SCENARIO, _QUICK_SCENARIO = Scenario(0, 2, 8), Scenario(0, 1, 4)
_MOST_STALL_MS, _LEAST_RATIO = 250.0, 0.9
_PATIENCE_SECONDS = 60.0
_LOOK_SECONDS = 0.02
_ASK_SECONDS = 0.005
_LOCKS = "LOCK TABLE ONLY job_history, ONLY ai_usage_analytics IN ROW EXCLUSIVE MODE"
_POLICY = "UPDATE retention SET keep_days = %s"
_DAYS = """
SELECT count(to_regclass(parent || to_char((now() AT TIME ZONE 'UTC')::date - %s::integer, '_YYYYMMDD')))
FROM unnest(ARRAY['job_history', 'ai_usage_analytics']) AS parent"""


@dataclass(frozen=True, slots=True)
class Pair:
    """A round with a day that went, and one without. `stall_ms`: the longest that a recorder waited for its
    locks while the day went, and `before_ms` before (workers start then). `turns`: the keeper's."""

    with_drop: Turn
    without: Turn
    stall_ms: float
    before_ms: float
    turns: int

    @property
    def ratio(self) -> float:
        """Of the rates."""
        return self.with_drop.jobs_per_second / self.without.jobs_per_second


def measure(stage: Stage, effort: Effort, progress: Callable[[str], None]) -> Result:
    """The longest stall of all rounds, and the median ratio within pairs."""
    rows = effort.samples(_ROWS)
    with ExitStack() as opened:
        at = opened.enter_context(beside(stage, "bench_retention"))
        contender = opened.enter_context(closing(Orrery(at)))
        pool = opened.enter_context(open_pool(at.settings.database(), Role.WORKER, size=3))
        ages = range(_OLDEST_DAYS, _OLDEST_DAYS - effort.turns(_MOST_ROUNDS), -1)
        _write(at, pool, ages, rows, progress)
        pairs = _play(at, contender, pool, ages, effort, progress)
    stall, ratios = max(pair.stall_ms for pair in pairs), [pair.ratio for pair in pairs]
    return Result(
        title=f"Dropping a day of {rows:,} jobs and their calls under load",
        columns=("pairs", "without/s", "with/s", "with : without", "before ms", "longest stall ms"),
        rows=[
            [
                str(len(pairs)),
                f"{median(pair.without.jobs_per_second for pair in pairs):.0f}",
                f"{median(pair.with_drop.jobs_per_second for pair in pairs):.0f}",
                f"{median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})",
                f"{max(pair.before_ms for pair in pairs):.0f}",
                f"{stall:.0f}",
            ]
        ],
        data={
            "rows": rows,
            "stall_ms": stall,
            "with_to_without": median(ratios),
            "pairs": [asdict(pair) for pair in pairs],
        },
        bounds=[
            Bound("longest stall", stall, _MOST_STALL_MS, "ms"),
            Bound("with a drop : without", median(ratios), _LEAST_RATIO, floor=True),
        ],
    )


def _write(at: Stage, pool: Pool, ages: range, rows: int, progress: Callable[[str], None]) -> None:
    with Runs(at) as runs:
        runs.finished(_PATTERNS)
    for age in ages:
        progress(f"writing {rows:,} jobs of {age} days ago, and their calls")
        invent_day(at.db, rows, age=age)
    count(pool)
    at.db.execute("VACUUM (ANALYZE)")
    at.db.execute("CHECKPOINT")


def _play(
    at: Stage,
    contender: Orrery,
    pool: Pool,
    ages: range,
    effort: Effort,
    progress: Callable[[str], None],
) -> list[Pair]:
    scenario = _QUICK_SCENARIO if effort.quick else _SCENARIO
    jobs = scenario.fewest_jobs if effort.quick else fitting(at, contender, scenario, effort)
    keeper = Keeper(pool, Artifacts(at.settings.artifacts_url))
    pairs: list[Pair] = []
    for number, age in enumerate(ages):
        progress(f"{jobs} jobs with and without a day that goes: pair {number + 1}")
        without = _undisturbed(at, contender, scenario, jobs) if number % 2 else None
        with _recording(at) as recorder:
            drop = _Drop(at, keeper, age, jobs // 2, recorder)
            drop.start()
            with_drop = turn(at, contender, scenario, jobs)
            drop.join()
        if _is_there(at.db, age):
            raise BenchError(f"The day was not dropped in {drop.turns} turns.")
        without = without or _undisturbed(at, contender, scenario, jobs)
        longest = recorder.longest_ms
        pairs.append(Pair(with_drop, without, longest[True], longest[False], drop.turns))
    return pairs


def _undisturbed(at: Stage, contender: Orrery, scenario: Scenario, jobs: int) -> Turn:
    with _recording(at):
        return turn(at, contender, scenario, jobs)


class _Recorder(threading.Thread):
    """Asks for the locks of a record every few milliseconds."""

    def __init__(self, at: Stage) -> None:
        super().__init__(daemon=True)
        self._url = at.settings.database()
        self.goes, self.ended = threading.Event(), threading.Event()
        self.longest_ms = {False: 0.0, True: 0.0}  # before and while a day goes

    def run(self) -> None:
        with psycopg.connect(self._url) as db:
            while not self.ended.is_set():
                goes = self.goes.is_set()
                began = time.perf_counter()
                db.execute(_LOCKS)
                took = (time.perf_counter() - began) * 1000
                db.commit()
                self.longest_ms[goes] = max(self.longest_ms[goes], took)
                time.sleep(_ASK_SECONDS)


class _Drop(threading.Thread):
    """Drops a day once half of a round's calls are answered."""

    def __init__(self, at: Stage, keeper: Keeper, age: int, half: int, recorder: _Recorder) -> None:
        super().__init__(daemon=True)
        self._at = at
        self._keeper = keeper
        self._age = age
        self._half = half
        self._recorder = recorder
        self.turns = 0

    def run(self) -> None:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        with ApiClient(self._at.sandbox.url) as own:  # a client serves one thread
            at = replace(self._at, control=own)
            while at.calls() < self._half and time.monotonic() < deadline:
                time.sleep(_LOOK_SECONDS)
        with psycopg.connect(self._at.settings.database(), autocommit=True) as db:
            db.execute(_POLICY, [self._age - 1])
            self._recorder.goes.set()
            while _is_there(db, self._age) and time.monotonic() < deadline:
                self._keeper.turn()
                self.turns += 1
            self._recorder.goes.clear()


@contextmanager
def _recording(at: Stage) -> Iterator[_Recorder]:
    recorder = _Recorder(at)
    recorder.start()
    try:
        yield recorder
    finally:
        recorder.ended.set()
        recorder.join()


def _is_there(db: psycopg.Connection, age: int) -> bool:
    return db.execute(_DAYS, [age]).fetchone() != (0,)
