"""Worker processes: which there are, what they serve, and whether they still live."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from admin_api import fields
from admin_api.pagination import Page, PageQuery, cut, decoded
from admin_api.security import GuardedRoute, allow_reading
from admin_api.services import Using
from workers import presence

router = APIRouter(prefix="/workers", tags=["workers"], route_class=GuardedRoute)


class Worker(BaseModel):
    """A worker process. It tells with every beat that it lives, and is `lost` once it has missed three.

    A lost one stays in the list for a day.
    """

    id: Annotated[str, Field(description="host:pid")]
    state: Literal["running", "stopping", "lost"]
    lanes: list[str]
    threads: int
    in_flight: Annotated[int, Field(description="Jobs that ran in it at its last beat.")]
    version: str
    started_at: datetime
    last_seen_at: datetime


@router.get("")
@allow_reading
def list_workers(query: Annotated[PageQuery, Query()], using: Using) -> Page[Worker]:
    """Worker processes by id. The short-lived processes that try suspects out are not among them."""
    after = None if query.cursor is None else decoded(query.cursor, [str])[0]
    with using.pool.connection() as db:
        found = presence.states(db, limit=query.limit + 1, after=after)
    page, cursor = cut(found, query.limit, key=lambda worker: [worker.id])
    return Page(items=[fields.shown(Worker, worker) for worker in page], next_cursor=cursor)
