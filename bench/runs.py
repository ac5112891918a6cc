"""Jobs as a worker holds them: claimed, and with the record that it would write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType
from typing import Self
from uuid import UUID

from bench.configuration import FEATURE, INPUT
from bench.result import BenchError
from bench.stage import Stage
from workers import jobs, lifecycle
from workers.client import Client
from workers.completer import Completer
from workers.jobs import Claimed, Completion, Database
from workers.requests import JobRequest
from workers.runtime import Runtime

_LEASE_SECONDS = 600.0  # nobody prolongs these


class Runs:
    """Enqueues and claims jobs; the records are copies of one that a real run against the sandbox made.

    Has the tools of a worker process with as many `threads`. As a context manager: leaves no job behind.
    """

    def __init__(self, stage: Stage, *, threads: int = 1) -> None:
        self._stage = stage
        self._client = Client(stage.settings)
        self._runtime = Runtime(stage.settings, purpose="bench", threads=threads)
        self.tools = self._runtime.tools

    def __enter__(self) -> Self:
        self._stage.reset(latency_seconds=0)
        with self.tools.pool.connection() as db:
            (claimed,) = self.claimed(db, 1)
            self._sample = self._run(claimed)
            self.must_end(jobs.complete(db, [self._sample]), [self._sample])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._runtime.close()
        self._client.close()
        self._stage.empty_queue()

    def queued(self, count: int) -> list[UUID]:
        """New jobs, durably stored."""
        return self._client.enqueue_many([JobRequest(FEATURE, INPUT) for _ in range(count)])

    def claim(self, db: Database, job_id: UUID) -> Claimed:
        """Claim a queued job."""
        claimed = jobs.claim(db, job_id, lease_seconds=_LEASE_SECONDS, worker=self.tools.worker)
        if claimed is None or claimed.id != job_id:
            raise BenchError("A claim did not get its job.")
        return claimed

    def claimed(self, db: Database, count: int) -> list[Claimed]:
        """New jobs, claimed."""
        return [self.claim(db, job_id) for job_id in self.queued(count)]

    def finished(self, count: int) -> None:
        """Run new jobs to their records, one after the other."""
        with self.tools.pool.connection() as db:
            claimed = self.claimed(db, count)
        for job in claimed:
            lifecycle.perform(job, self.tools)

    def completion(self, job: Claimed) -> Completion:
        """The record of a run of `job` that succeeded."""
        attempts = [replace(row, job_id=job.id, run=job.run) for row in self._sample.attempts]
        return Completion(job, self._sample.ending, attempts)

    def must_end(self, ended: set[UUID], completions: Sequence[Completion]) -> None:
        """Raise BenchError unless each of the jobs was ended."""
        if ended != {completion.job.id for completion in completions}:
            raise BenchError(f"Of {len(completions)} jobs {len(ended)} were recorded.")

    def _run(self, job: Claimed) -> Completion:
        catcher = _Catcher()
        lifecycle.perform(job, replace(self.tools, completer=catcher))
        if catcher.caught is None or catcher.caught.ending.state != "succeeded":
            raise BenchError("The job that records are copied from did not succeed.")
        return catcher.caught


class _Catcher(Completer):
    """Takes what a run would record, and records nothing."""

    def __init__(self) -> None:
        self.caught: Completion | None = None

    def complete(self, completion: Completion) -> bool:
        self.caught = completion
        return True
