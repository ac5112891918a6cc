"""The worker processes of a round: made ready, let go together, stopped, asked what they did."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.result import BenchError
from store.settings import Settings

_ROOT = Path(__file__).parents[1]
_STOP_SECONDS = 40.0


@dataclass(frozen=True, slots=True)
class Orders:
    """What a worker process is to be: whose, with how many threads; `lanes` and the request as they apply."""

    contender: str
    threads: int
    lanes: Sequence[str] = ()
    url: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    body: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """What a worker process did.

    `finished` and `failed`: when jobs ended, where the process knows (Unix seconds). `cpu`: samples of
    (Unix seconds, CPU seconds that the process has used). `peak_mb`: the most memory that it held at a time.
    """

    finished: Sequence[float]
    failed: int
    cpu: Sequence[tuple[float, float]]
    peak_mb: float = 0.0

    def cpu_at(self, instant: float) -> float:
        """CPU seconds used until `instant`, interpolated between samples."""
        earlier = max((s for s in self.cpu if s[0] <= instant), default=self.cpu[0])
        later = min((s for s in self.cpu if s[0] > instant), default=self.cpu[-1])
        if later[0] <= earlier[0]:
            return earlier[1]
        share = (instant - earlier[0]) / (later[0] - earlier[0])
        return earlier[1] + share * (later[1] - earlier[1])


class Crew:
    """Worker processes with the same orders. As a context manager: ready on entry, gone on exit.

    They live by their standard input: when it ends, so do they, also if the benchmark was killed.
    """

    def __init__(self, settings: Settings, orders: Orders, *, processes: int) -> None:
        self._environment = {**os.environ, **settings.environment()}
        self._orders = json.dumps(asdict(orders))
        self._count = processes
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        try:
            for _ in range(self._count):
                self._processes.append(self._started())
            for process in self._processes:
                _expect_ready(process)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def go(self) -> None:
        """Let all begin to take jobs."""
        for process in self._processes:
            _tell(process, "go")

    def finish(self) -> list[Report]:
        """Stop all after the jobs they are at, and hear their reports."""
        for process in self._processes:
            _tell(process, "stop")
        return [_report(process) for process in self._processes]

    def _started(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "bench.worker"],
            cwd=_ROOT,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        _tell(process, self._orders)
        return process

    def _end(self) -> None:
        for process in self._processes:
            if process.stdin is not None and not process.stdin.closed:
                process.stdin.close()
        for process in self._processes:
            try:
                process.wait(timeout=_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()
        self._processes.clear()


def _tell(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    try:
        process.stdin.write(f"{line}\n")
        process.stdin.flush()
    except BrokenPipeError:
        raise BenchError("A worker process died; its words are above.") from None


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def _expect_ready(process: subprocess.Popen[str]) -> None:
    if _line(process) != "ready":
        raise BenchError("A worker process did not get ready; its words are above.")


def _report(process: subprocess.Popen[str]) -> Report:
    line = _line(process)
    if not line:
        raise BenchError("A worker process died; its words are above.")
    values = json.loads(line)
    cpu = [(at, used) for at, used in values["cpu"]]
    return Report(values["finished"], values["failed"], cpu, values["peak_mb"])
