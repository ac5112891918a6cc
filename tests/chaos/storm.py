"""Jobs under fire: a steady load, faults one after the other and then mixed, and a count of what became."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg

from tests.chaos.installation import FEATURE, Installation
from tests.workers.conftest import until
from workers.client import Client

INPUT = {"profile": "Sam, gardener", "job": "Head gardener"}


@dataclass(frozen=True, slots=True)
class Fault:
    """Something bad. `dying`: calls in flight that it may take with it, as processes (None = all of them)."""

    name: str
    happen: Callable[[Installation], None]
    dying: int | None = 0


@dataclass(frozen=True, slots=True)
class Weather:
    """What befalls an installation.

    Attributes:
        jobs: accepted at least.
        backlog: jobs kept waiting, so that workers always have some.
        singles: faults that happen one by one.
        calm_seconds: before the first and after each of them; with 0, nothing is measured.
        settle_seconds: from the end of a fault until throughput is measured again.
        storm: faults that follow in random order, 2 to 4 s apart.
    """

    jobs: int
    backlog: int
    singles: Sequence[Fault]
    calm_seconds: float
    settle_seconds: float
    storm: Sequence[Fault] = ()


@dataclass(slots=True)
class Report:
    """What became of the jobs; `str()` is for people."""

    accepted: int
    refused: int
    lost: int
    recorded_twice: int
    unasked: int
    states: dict[str, int]
    error_classes: dict[str, int]
    runs: dict[int, int]
    usage: dict[str, int]
    usage_rows: int
    called_rows: int
    sandbox_calls: int
    most_calls_in_doubt: int
    succeeded_twice: int
    faults: dict[str, int]
    recovery: list[tuple[str, float, float]]
    """Name of a fault, jobs per second before it and after it."""
    pulse: str
    """Jobs ended in each second, and in brackets the faults as they began."""
    seconds: float

    def __str__(self) -> str:
        lines = [f"{name:>20}  {getattr(self, name)}" for name in self.__slots__ if name != "recovery"]
        for name, before, after in self.recovery:
            ratio = after / before if before else float("nan")
            lines.append(f"{name:>36}  {before:6.1f} -> {after:6.1f} jobs/s  {ratio:5.2f}")
        return "\n".join(lines)


def run(installation: Installation, weather: Weather) -> Report:
    """Let it happen, wait until every accepted job has ended, and count."""
    began = time.monotonic()
    load = _Load(installation, weather.backlog)
    happened: list[tuple[Fault, datetime, datetime]] = []
    with load:
        until(lambda: load.broke or installation.all_work(), seconds=60)
        time.sleep(weather.calm_seconds)
        for fault in weather.singles:
            _happen(fault, installation, happened)
            time.sleep(weather.settle_seconds + weather.calm_seconds)
        alone = len(happened)
        for fault in random.sample(weather.storm, len(weather.storm)):
            _happen(fault, installation, happened)
            time.sleep(random.uniform(2, 4))
        until(lambda: len(load.accepted) >= weather.jobs or load.broke, seconds=600)
    assert load.broke is None, f"enqueue raised what it does not promise: {load.broke!r}"
    with installation.connect() as db:
        until(lambda: _live(db) == 0, seconds=300)
    report = _count(installation, load, [fault for fault, _, _ in happened])
    report.recovery = _recovery(installation, weather, happened[:alone]) if weather.calm_seconds else []
    report.pulse = _pulse(installation, happened)
    report.seconds = round(time.monotonic() - began, 1)
    return report


@dataclass(slots=True)
class _Load:
    """Enqueues, from a thread of its own, whatever keeps the backlog full. Use it in a `with`."""

    installation: Installation
    backlog: int
    accepted: list[UUID] = field(default_factory=list)
    refused: int = 0
    broke: Exception | None = None
    _stopped: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> _Load:
        self._thread = threading.Thread(target=self._run, name="load")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._thread is not None
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        client = Client(self.installation.settings)
        try:
            while not self._stopped.is_set():
                self._fill(client)
                self._stopped.wait(0.1)
        except Exception as error:
            self.broke = error
        finally:
            client.close()

    def _fill(self, client: Client) -> None:
        """Once the backlog is full, or the database did not answer, return."""
        try:
            with self.installation.connect() as db:
                missing = self.backlog - _live(db)
            for _ in range(missing):
                if self._stopped.is_set():
                    return
                self.accepted.append(client.enqueue(FEATURE, INPUT))
        except psycopg.OperationalError:
            self.refused += 1


def _happen(fault: Fault, installation: Installation, happened: list[Any]) -> None:
    began = datetime.now(UTC)
    fault.happen(installation)
    happened.append((fault, began, datetime.now(UTC)))
    died = installation.tend()
    assert died == 0, f"{died} workers did not survive: {fault.name}\n{installation.logs()[-4000:]}"


def _live(db: psycopg.Connection[Any]) -> int:
    row = db.execute("SELECT count(*) FROM jobs").fetchone()
    assert row is not None
    return int(row["count"])


def _count(installation: Installation, load: _Load, faults: Sequence[Fault]) -> Report:
    with installation.connect() as db:
        history = db.execute("SELECT id, state, error_class, run FROM job_history").fetchall()
        usage = db.execute("SELECT job_id, outcome, called FROM ai_usage_analytics").fetchall()
    times = Counter(row["id"] for row in history)
    accepted = set(load.accepted)
    succeeded = Counter(row["job_id"] for row in usage if row["outcome"] == "succeeded")
    every = installation.processes
    dying = sum(every if fault.dying is None else fault.dying for fault in faults)
    return Report(
        accepted=len(accepted),
        refused=load.refused,
        lost=len(accepted - times.keys()),
        recorded_twice=sum(count > 1 for count in times.values()),
        unasked=len(times.keys() - accepted),
        states=dict(Counter(row["state"] for row in history)),
        error_classes=dict(Counter(row["error_class"] for row in history if row["error_class"])),
        runs=dict(sorted(Counter(row["run"] for row in history).items())),
        usage=dict(Counter(row["outcome"] for row in usage)),
        usage_rows=len(usage),
        called_rows=sum(row["called"] for row in usage),
        sandbox_calls=installation.calls(),
        most_calls_in_doubt=dying * installation.threads,
        succeeded_twice=sum(count > 1 for count in succeeded.values()),
        faults=dict(Counter(fault.name for fault in faults)),
        recovery=[],
        pulse="",
        seconds=0.0,
    )


def _recovery(
    installation: Installation, weather: Weather, happened: Sequence[tuple[Fault, datetime, datetime]]
) -> list[tuple[str, float, float]]:
    """Jobs per second in the calm before each fault and, once settled, after it."""
    calm, settle = timedelta(seconds=weather.calm_seconds), timedelta(seconds=weather.settle_seconds)
    ended = _ended(installation)

    def rate(since: datetime) -> float:
        return len([at for at in ended if since <= at < since + calm]) / weather.calm_seconds

    return [(fault.name, rate(began - calm), rate(end + settle)) for fault, began, end in happened]


def _pulse(installation: Installation, happened: Sequence[tuple[Fault, datetime, datetime]]) -> str:
    ended = _ended(installation)
    first = min(ended)
    beats = Counter(int((at - first).total_seconds()) for at in ended)
    marks = [(int((began - first).total_seconds()), fault.name) for fault, began, _ in happened]
    return " ".join(
        "".join(f"[{name}] " for at, name in marks if at == second) + str(beats[second])
        for second in range(max(beats) + 1)
    )


def _ended(installation: Installation) -> list[datetime]:
    with installation.connect() as db:
        return [row["finished_at"] for row in db.execute("SELECT finished_at FROM job_history")]
