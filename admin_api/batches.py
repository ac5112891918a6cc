"""Batches: jobs that are answered together, through a provider's batch API."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from admin_api.pagination import Page, PageQuery, cut, decoded
from admin_api.security import GuardedRoute, allow_reading
from admin_api.services import Using

router = APIRouter(prefix="/batches", tags=["jobs"], route_class=GuardedRoute)

State = Literal["ready", "sending", "submitted", "over"]


class Batch(BaseModel):
    """A batch. `jobs`: how many it began with; `completed` and `failed`: lines, as its provider counts."""

    id: UUID
    state: Annotated[
        State,
        Field(description="ready: not sent yet; sending: perhaps it was; submitted: its provider works."),
    ]
    feature: str
    provider: str
    model: str
    jobs: int
    completed: int | None
    failed: int | None
    provider_batch_id: str | None
    created_at: datetime
    sent_at: datetime | None
    look_at: Annotated[datetime, Field(description="When it is asked for again.")]
    live_at: Annotated[datetime, Field(description="When what is not done goes to workers instead.")]
    gone_live: bool
    error: str | None
    finished_at: datetime | None


class BatchQuery(PageQuery):
    state: State | None = None
    feature: str | None = None


@router.get("")
@allow_reading
def list_batches(query: Annotated[BatchQuery, Query()], using: Using) -> Page[Batch]:
    """Batches of the last month, newest first."""
    before = None if query.cursor is None else decoded(query.cursor, [UUID])[0]
    values = {"state": query.state, "feature": query.feature, "before": before, "limit": query.limit + 1}
    with using.pool.connection() as db:
        rows = [Batch(**row) for row in db.execute(_LIST, values)]
    kept, cursor = cut(rows, query.limit, key=lambda row: [row.id])
    return Page(items=kept, next_cursor=cursor)


_LIST = """
SELECT id, state, feature, provider, model, jobs, completed, failed, provider_batch_id, created_at, sent_at,
    look_at, live_at, gone_live, error, finished_at
FROM provider_batches
WHERE (%(state)s::text IS NULL OR state = %(state)s) AND (%(feature)s::text IS NULL OR feature = %(feature)s)
  AND (%(before)s::uuid IS NULL OR id < %(before)s)
ORDER BY id DESC LIMIT %(limit)s"""
