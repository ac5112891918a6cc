"""A primary that is sick in any way costs little while its backup is well."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import psutil
import psycopg
import pytest
from psycopg.rows import dict_row

from routing.transport import MAX_TEXT
from store.settings import Settings
from tests.fleet import Fleet
from tests.rows import Rows
from tests.sandbox import Sandbox
from tests.workers.conftest import until
from workers.client import Client

FEATURE, INPUT = "cv_draft", {"profile": "Sam, gardener", "job": "Head gardener"}
PROCESSES = 2
DEADLINE = 6.0  # seconds of a job
USUAL = 0.04  # seconds of a call to a host that is well
RETRY_AFTER = 2.5
SPREAD = 1.0  # seconds until all processes know what one was told
DEAD, SHAKY = 1.1, 1.45  # calls a job at most: no call to the primary answers well, or most do
MB = 1_000_000
_SLACK = 16 * MB  # that a worker may grow by beside one answer for each thread


@dataclass(frozen=True)
class Brownout:
    """A fault of the primary. `timeout`: the assignment's; without one the deadline alone ends a call."""

    name: str
    mode: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    most_calls: float = DEAD
    timeout: float | None = None


BROWNOUTS = (
    Brownout("latency x 50", "latency", {"seconds": 50 * USUAL}, timeout=1.0),
    Brownout("30 % of 5xx", "status", {"status": 500, "rate": 0.3}, most_calls=SHAKY),
    Brownout("429 with Retry-After", "status", {"status": 429, "retry_after": RETRY_AFTER}),
    Brownout("truncated body", "truncate"),
    Brownout("garbage JSON", "garbage"),
    Brownout("1 byte/s", "drip", {"seconds": 1.0}),
    Brownout("reset", "reset"),  # now that no thread has a connection left, whose loss it would try again
    Brownout("content-length too small", "length"),
    Brownout("content-length too large", "length", {"bytes": 100_000}, timeout=0.5),
    Brownout("200 with an error", "error_body", {"status": 500}),
    Brownout("1 GB body", "huge"),
)


@dataclass(frozen=True)
class Figures:
    """How jobs fared in a brown-out."""

    jobs: int
    succeeded: int
    calls: int
    sick_calls: int
    longest_call: float
    latest: float  # seconds after its deadline that a job ended
    early: int  # calls to the primary before a Retry-After had passed
    growth: int  # bytes of the worker that grew most
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.succeeded:>5}/{self.jobs:<5}{self.calls / self.jobs:>7.3f}{self.sick_calls:>7}"
            f"{self.longest_call:>9.2f} s{self.latest:>8.2f} s{self.early:>7}{self.growth / MB:>7.1f} MB"
            f"{self.seconds:>7.1f} s"
        )


_HEAD = f"{'':<26}  succeeded  calls   sick    longest  overdue  early  growth     took"


@pytest.mark.parametrize(("jobs", "threads"), [(150, 3), pytest.param(2000, 8, marks=pytest.mark.full)])
def test_brownouts(
    settings: Settings, rows: Rows, sandbox: Sandbox, well: Sandbox, jobs: int, threads: int
) -> None:
    fleet = Fleet(settings)
    try:
        stage = Stage(fleet, rows, sandbox, well, threads)
        stage.warm_up()
        print(f"\n{_HEAD}")
        wrong = {}
        for brownout in BROWNOUTS:
            figures = stage.run(brownout, jobs)
            print(f"{brownout.name:<26}{figures}")
            wrong[brownout.name] = missed(brownout, figures, threads)
    finally:
        fleet.stop()
    assert {name: missing for name, missing in wrong.items() if missing} == {}


@pytest.fixture
def well() -> Iterator[Sandbox]:
    """The backup's host."""
    sandbox = Sandbox()
    yield sandbox
    sandbox.close()


def missed(brownout: Brownout, figures: Figures, threads: int) -> list[str]:
    """What is not as it must be."""
    held = {
        "succeeded": figures.succeeded >= 0.999 * figures.jobs,
        "calls": figures.calls <= brownout.most_calls * figures.jobs,
        "sick": figures.sick_calls > 0,
        "longest": figures.longest_call <= (brownout.timeout or DEADLINE) + 1,
        "overdue": figures.latest <= 1,
        "early": figures.early == 0,
        "growth": figures.growth <= _SLACK + threads * MAX_TEXT,
    }
    return [name for name, is_met in held.items() if not is_met]


class Stage:
    """Workers between a sick host and a well one."""

    def __init__(self, fleet: Fleet, rows: Rows, sick: Sandbox, well: Sandbox, threads: int) -> None:
        self._settings, self._rows, self._sick, self._well = fleet.settings, rows, sick, well
        self._waiting = 2 * PROCESSES * threads
        self._backup = rows.model(rows.provider("well", well.anthropic, type="anthropic"), "well")
        workers = [fleet.worker(lanes="standard", threads=threads) for _ in range(PROCESSES)]
        self._workers = [psutil.Process(worker.pid) for worker in workers]

    def warm_up(self) -> None:
        """Have each thread load what its first calls need."""
        self._rows.assign(FEATURE, self._backup, user="{{ profile }}")
        self._sent(5 * self._waiting, seconds=60)

    def run(self, brownout: Brownout, jobs: int) -> Figures:
        """Send jobs, and count what becomes of them."""
        primary = self._rows.provider(f"sick-{uuid4().hex}", self._sick.openai)
        model = self._rows.model(primary, "sick")
        timeout = brownout.timeout
        self._rows.assign(FEATURE, model, self._backup, user="{{ profile }}", timeout_seconds=timeout)
        self._well.reset()
        self._well.fault("latency", seconds=USUAL)
        self._sick.reset()
        self._sick.fault(brownout.mode, **brownout.fields)
        before, started = self._resident(), time.monotonic()
        ids, peaks = self._sent(jobs, seconds=DEADLINE)
        seconds = time.monotonic() - started
        until(lambda: self._sick.calls()["in_flight"] == 0)
        sick = self._sick.calls()
        with self._connection() as db:
            ended = db.execute(_ENDED, [ids]).fetchone()
            called = db.execute(_CALLED, [ids]).fetchone()
        assert ended is not None
        assert called is not None
        return Figures(
            jobs=jobs,
            succeeded=ended["succeeded"],
            calls=sick["count"] + self._well.calls()["count"],
            sick_calls=sick["count"],
            longest_call=called["longest"] / 1000,
            latest=ended["latest"],
            early=_early(sick["calls"]) + called["early"],
            growth=max(peak - one for peak, one in zip(peaks, before, strict=True)),
            seconds=seconds,
        )

    def _sent(self, jobs: int, *, seconds: float) -> tuple[list[UUID], list[int]]:
        """Enqueue jobs, only as many at a time as the workers soon begin. The jobs, and what each worker's
        memory came to."""
        client, ids, peaks = Client(self._settings), list[UUID](), self._resident()
        give_up = time.monotonic() + 60 + jobs / 5
        with self._connection() as db:
            while (ended := _count(db, ids)) < jobs:
                assert time.monotonic() < give_up, "jobs do not end"
                for _ in range(min(jobs - len(ids), self._waiting - (len(ids) - ended))):
                    ids.append(client.enqueue(FEATURE, INPUT, deadline_seconds=seconds))
                peaks = [max(pair) for pair in zip(peaks, self._resident(), strict=True)]
                time.sleep(0.02)
        client.close()
        return ids, peaks

    def _resident(self) -> list[int]:
        return [worker.memory_info().rss for worker in self._workers]

    def _connection(self) -> psycopg.Connection[dict[str, Any]]:
        return psycopg.connect(self._settings.database(), autocommit=True, row_factory=dict_row)


def _count(db: psycopg.Connection[dict[str, Any]], ids: list[UUID]) -> int:
    row = db.execute("SELECT count(*) AS ended FROM job_history WHERE id = ANY(%s)", [ids]).fetchone()
    assert row is not None
    return int(row["ended"])


_ENDED = """
SELECT count(*) FILTER (WHERE state = 'succeeded') AS succeeded,
    extract(epoch FROM max(finished_at - deadline_at))::float8 AS latest
FROM job_history WHERE id = ANY(%s)"""

_CALLED = f"""
WITH calls AS MATERIALIZED (
    SELECT worker, model, status, latency_ms, started_at, finished_at FROM ai_usage_analytics
    WHERE called AND job_id = ANY(%s)
), refused AS MATERIALIZED (
    SELECT worker, model, finished_at FROM calls WHERE status = 429
)
SELECT max(latency_ms) AS longest, count(*) FILTER (WHERE EXISTS (
    SELECT FROM refused
    WHERE refused.worker = calls.worker AND refused.model = calls.model
        AND calls.started_at > refused.finished_at
        AND calls.started_at < refused.finished_at + {RETRY_AFTER} * interval '1 second')) AS early
FROM calls"""


def _early(calls: list[dict[str, Any]]) -> int:
    """Calls that began while a refusal that every process knew of still held."""
    refused = [_began(call) + call["ms"] / 1000 for call in calls if call["status"] == 429]
    return sum(any(told + SPREAD <= _began(call) < told + RETRY_AFTER for told in refused) for call in calls)


def _began(call: dict[str, Any]) -> float:
    return datetime.fromisoformat(call["at"]).timestamp()
