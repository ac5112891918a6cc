"""Queues and workers: what waits where, who takes it, and what failed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from markupsafe import Markup

from admin_api.features import Lane
from admin_api.job_actions import repeated_all, retry_job
from admin_api.job_bodies import JobFilter, JobQuery, ListedJob
from admin_api.jobs import list_jobs
from admin_api.pages.charts import sparkline
from admin_api.pages.render import page
from admin_api.pages.route import PageRoute, done
from admin_api.pagination import PageQuery
from admin_api.queues import Queue, list_queues, pause_queue, resume_queue
from admin_api.security import Current, Principal, allow_reading, allow_writing
from admin_api.services import Services, Using
from admin_api.workers import Worker, list_workers
from workers import lanes, lists, presence, records
from workers.lanes import Minute, Pace
from workers.lists import Failures
from workers.presence import Running

router = APIRouter(route_class=PageRoute)

_MINUTES = 30
_RATED = 5  # whole minutes that a rate is the mean of
_MOST_WORKERS = 12
_MOST_RUNNING = 3  # shown of each process
_MOST_FAILED = 8
_MOST_COUNTED = 2000


@dataclass(frozen=True, slots=True)
class Rate:
    """Runs a minute, the mean of the last whole minutes that are known; None: so much ends that none is."""

    started: float | None
    finished: float | None
    spark: Markup


@dataclass(frozen=True, slots=True)
class LaneView:
    """A lane, and who serves it."""

    queue: Queue
    rate: Rate
    processes: int
    threads: int

    @property
    def is_unserved(self) -> bool:
        """Whether nobody takes what is due, although nobody has paused it."""
        return not self.processes and not self.queue.is_paused


@dataclass(frozen=True, slots=True)
class WorkerView:
    """A worker process, and the first of the jobs that run in it."""

    worker: Worker
    jobs: Sequence[Running]

    @property
    def host(self) -> str:
        return self.worker.id.rpartition(":")[0]

    @property
    def process(self) -> str:
        return self.worker.id.rpartition(":")[2]

    @property
    def state(self) -> str:
        """In words for people."""
        return "alive" if self.worker.state == "running" else self.worker.state

    @property
    def more(self) -> int:
        """How many jobs run beside those that are shown."""
        return max(0, self.worker.in_flight - len(self.jobs))


@dataclass(frozen=True, slots=True)
class Failed:
    """Jobs of the last day that failed: why, and the newest ones; `repeated`: those that others repeat."""

    since: datetime
    classes: Sequence[Failures]
    jobs: Sequence[ListedJob]
    repeated: frozenset[UUID]

    @property
    def count(self) -> int:
        return sum(each.jobs for each in self.classes)

    def replay(self, error_class: str) -> str:
        """The address that runs all of this class again."""
        return "/queues/failed/replay?" + urlencode({"error_class": error_class, "since": self.since})

    @property
    def is_cut(self) -> bool:
        """Whether there are more than were counted."""
        return self.count >= _MOST_COUNTED


@router.get("/queues")
@allow_reading
def queues(request: Request, caller: Current, using: Using) -> Response:
    """Lanes, worker processes, and what failed within a day."""
    workers = list_workers(PageQuery(limit=_MOST_WORKERS), using)
    with using.pool.connection() as db:
        pace = lanes.pace(db, _MINUTES)
        running = presence.running(db, most=_MOST_RUNNING)
    return page(
        request,
        "queues.html",
        lanes=[_lane(queue, pace, workers.items) for queue in list_queues(using).items],
        workers=[_worker(worker, running) for worker in workers.items],
        has_more_workers=workers.next_cursor is not None,
        is_served=any(worker.state == "running" for worker in workers.items),
        failed=_failed(caller, using),
    )


@router.post("/queues/{lane}/pause")
@allow_writing
def pause(lane: Lane, caller: Current, using: Using) -> Response:
    """Start no more jobs of the lane."""
    pause_queue(lane, caller, using)
    return done("/queues", f"The lane {lane} is paused: jobs are accepted and wait.", kind="warn")


@router.post("/queues/{lane}/resume")
@allow_writing
def resume(lane: Lane, caller: Current, using: Using) -> Response:
    """Start the lane's jobs again."""
    resume_queue(lane, caller, using)
    return done("/queues", f"The lane {lane} runs again.")


@router.post("/queues/failed/{job_id}/replay")
@allow_writing
def replay(job_id: UUID, caller: Current, using: Using) -> Response:
    """Run one failed job again."""
    made = retry_job(job_id, Response(), caller, using)
    return done("/queues", f"Job …{str(made.id)[-8:]} repeats it: {made.feature}.")


@router.post("/queues/failed/replay")
@allow_writing
def replay_all(chosen: Annotated[JobFilter, Query()], caller: Current, using: Using) -> Response:
    """Run all jobs again that failed and match."""
    made = repeated_all(chosen.model_copy(update={"state": "failed"}), caller, using)
    count = len(made.ids)
    told = f"{count:,} {'job repeats' if count == 1 else 'jobs repeat'} what failed."
    if not made.refused:
        return done("/queues", told)
    [(_, why), *_] = made.refused
    return done("/queues", f"{told} {len(made.refused):,} were left out: {why}", kind="warn")


def _lane(queue: Queue, pace: Pace, workers: Sequence[Worker]) -> LaneView:
    serving = [worker for worker in workers if worker.state == "running" and queue.lane in worker.lanes]
    return LaneView(
        queue, _rate(queue.lane, pace), processes=len(serving), threads=sum(each.threads for each in serving)
    )


def _worker(worker: Worker, running: Sequence[Running]) -> WorkerView:
    return WorkerView(worker, [job for job in running if job.worker == worker.id])


def _rate(lane: str, pace: Pace) -> Rate:
    counted = {each.minute: each for each in pace.minutes if each.lane == lane}
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    times = [now - timedelta(minutes=back) for back in range(_MINUTES - 1, -1, -1)]
    known = [counted.get(time, Minute(lane, time, 0, 0)) for time in times if time >= pace.since]
    whole = known[-1 - _RATED : -1]
    return Rate(
        started=_mean([each.started for each in whole]),
        finished=_mean([each.finished for each in whole]),
        spark=sparkline("Finished a minute", [each.finished for each in known]),
    )


def _mean(counts: Sequence[int]) -> float | None:
    return sum(counts) / len(counts) if counts else None


def _failed(caller: Principal, using: Services) -> Failed:
    # To the minute, so that the address of "replay all" stays the same while the page asks for news.
    since = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(days=1)
    jobs = list_jobs(JobQuery(state="failed", since=since, limit=_MOST_FAILED), caller, using).items
    with using.pool.connection() as db:
        return Failed(
            since=since,
            classes=lists.failures(db, since=since, most=_MOST_COUNTED),
            jobs=jobs,
            repeated=frozenset(records.repeated(db, [job.id for job in jobs])),
        )
