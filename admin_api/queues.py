"""Lanes: what waits in each, and pausing them."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from admin_api import fields
from admin_api.features import Lane
from admin_api.pagination import Page
from admin_api.security import Current, GuardedRoute, allow_reading, allow_writing
from admin_api.services import Services, Using
from workers import lanes

router = APIRouter(prefix="/queues", tags=["queues"], route_class=GuardedRoute)


class Queue(BaseModel):
    """A lane. `queued` jobs are due, `scheduled` ones not yet; `doorbells` is null while Redis is away.

    From 10,000 jobs on `queued` and `scheduled` are estimates, and `is_exact` is false.
    """

    lane: Literal["interactive", "standard", "batch"]
    is_paused: bool
    queued: int
    scheduled: int
    is_exact: bool
    running: int
    suspects: int
    doorbells: int | None
    oldest_age_seconds: float | None


@router.get("")
@allow_reading
def list_queues(using: Using) -> Page[Queue]:
    """The lanes, the most urgent first."""
    return Page(items=_queues(using), next_cursor=None)


@router.post("/{lane}/pause")
@allow_writing
def pause_queue(lane: Lane, caller: Current, using: Using) -> Queue:
    """Start no more jobs of the lane; what runs goes on, and new jobs are still accepted."""
    with using.pool.connection() as db:
        lanes.pause(db, lane, by=caller.admin_id)
    return _queue(using, lane)


@router.post("/{lane}/resume")
@allow_writing
def resume_queue(lane: Lane, caller: Current, using: Using) -> Queue:
    """Start the lane's jobs again."""
    with using.pool.connection() as db:
        lanes.resume(db, lane, by=caller.admin_id)
    return _queue(using, lane)


def _queue(using: Services, lane: str) -> Queue:
    return next(queue for queue in _queues(using) if queue.lane == lane)


def _queues(using: Services) -> list[Queue]:
    with using.pool.connection() as db:
        return [fields.shown(Queue, state) for state in lanes.states(db, using.doorbells)]
