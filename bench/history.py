"""What a long history costs: throughput with a million finished jobs on record, against none.

Two databases of the same server, with the same configuration, take turns; who begins alternates. The empty
one is emptied again before each of its turns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, replace
from statistics import median

import psycopg
from pydantic import SecretStr
from sqlalchemy import make_url

from bench.contenders.orrery import Orrery
from bench.past import count, invent
from bench.result import Bound, Effort, Result
from bench.runs import Runs
from bench.stage import Stage, configure
from bench.throughput import Round, Scenario, fitting, turn
from standalone.schema import migrate
from store.database import Role, open_pool

_ROWS = 1_000_000
_PATTERNS = 24  # real jobs that the past is copied from
_SCENARIO, _QUICK_SCENARIO = Scenario(0, 2, 8), Scenario(0, 1, 4)
_LEAST_RATIO = 0.9
_EMPTY, _FULL = "empty", "full"


def measure(stage: Stage, effort: Effort, progress: Callable[[str], None]) -> Result:
    """Both rates and the ratio within pairs; medians."""
    rows = effort.samples(_ROWS)
    scenario = _QUICK_SCENARIO if effort.quick else _SCENARIO
    with ExitStack() as opened:
        stages = {name: opened.enter_context(beside(stage, f"bench_{name}")) for name in (_EMPTY, _FULL)}
        contenders = {name: opened.enter_context(closing(Orrery(at))) for name, at in stages.items()}
        progress(f"writing {rows:,} finished jobs and their calls")
        with Runs(stages[_FULL]) as runs:
            runs.finished(_PATTERNS)
        partitions, megabytes = invent(stages[_FULL].db, rows)
        with closing(open_pool(stages[_FULL].settings.database(), Role.WORKER, size=1)) as pool:
            count(pool)
        stages[_FULL].db.execute("VACUUM (ANALYZE)")
        stages[_FULL].db.execute("CHECKPOINT")
        pairs = _play(stages, contenders, scenario, effort, progress)
    ratios = [pair[_FULL].jobs_per_second / pair[_EMPTY].jobs_per_second for pair in pairs]
    rates = {name: median(pair[name].jobs_per_second for pair in pairs) for name in (_EMPTY, _FULL)}
    return Result(
        title=f"Throughput with {rows:,} finished jobs on record ({scenario})",
        columns=("pairs", "empty/s", "full/s", "full : empty", "partitions", "MB"),
        rows=[
            [
                str(len(pairs)),
                f"{rates[_EMPTY]:.0f}",
                f"{rates[_FULL]:.0f}",
                f"{median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})",
                str(partitions),
                f"{megabytes:,}",
            ]
        ],
        data={
            "rows": rows,
            "partitions": partitions,
            "database_mb": megabytes,
            "full_to_empty": median(ratios),
            "pairs": [{name: asdict(done) for name, done in pair.items()} for pair in pairs],
        },
        bounds=[Bound("full : empty", median(ratios), _LEAST_RATIO, floor=True)],
    )


def _play(
    stages: Mapping[str, Stage],
    contenders: Mapping[str, Orrery],
    scenario: Scenario,
    effort: Effort,
    progress: Callable[[str], None],
) -> list[Round]:
    jobs = scenario.fewest_jobs
    if not effort.quick:
        jobs = fitting(stages[_EMPTY], contenders[_EMPTY], scenario, effort)
    pairs: list[Round] = []
    for number in range(1 if effort.quick else effort.rounds):
        progress(f"{jobs} jobs with and without a past: pair {number + 1}")
        pair = {}
        for name in (_EMPTY, _FULL) if number % 2 == 0 else (_FULL, _EMPTY):
            if name == _EMPTY:
                stages[name].db.execute("TRUNCATE job_history, ai_usage_analytics")
            pair[name] = turn(stages[name], contenders[name], scenario, jobs)
        pairs.append(pair)
    return pairs


@contextmanager
def beside(stage: Stage, name: str) -> Iterator[Stage]:
    """The stage with another database on the same server: migrated, configured, dropped at the end."""
    url = make_url(stage.settings.database()).set(database=name).render_as_string(hide_password=False)
    settings = stage.settings.model_copy(update={"database_url": SecretStr(url)})
    stage.db.execute(f"CREATE DATABASE {name} STRATEGY FILE_COPY".encode())
    try:
        migrate(settings)
        configure(settings, stage.sandbox)
        with psycopg.connect(url, autocommit=True) as db:
            yield replace(stage, settings=settings, db=db)
    finally:
        stage.db.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
