"""Groups: the jobs of a firing, and how far they are."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from admin_api import fields
from admin_api.pagination import Page, PageQuery, cut, decoded
from admin_api.refusals import NotFound
from admin_api.security import GuardedRoute, allow_reading
from admin_api.sessions import Reading
from store.tables import JobGroup

router = APIRouter(prefix="/groups", tags=["groups"], route_class=GuardedRoute)


class Group(BaseModel):
    """The jobs of a firing. `GET /jobs?group_id=` lists them."""

    id: UUID
    schedule_id: UUID | None
    name: str
    instant: datetime
    state: Annotated[str, Field(description="running or finished")]
    expected: Annotated[int, Field(description="All jobs that may come, the later steps of chains included.")]
    total: Annotated[int, Field(description="Jobs made so far.")]
    done: Annotated[int, Field(description="Jobs that have ended, however.")]
    succeeded: int
    failed: int
    cancelled: int
    skipped: Annotated[int, Field(description="Steps that never come, for the one before them failed.")]
    cost_usd: Annotated[str, Field(description="Of the jobs that have ended, as far as it is known.")]
    unpriced_jobs: int
    callback_url: str | None
    created_at: datetime
    deadline_at: datetime | None
    finished_at: datetime | None


class GroupQuery(PageQuery):
    schedule_id: UUID | None = None


@router.get("")
@allow_reading
def list_groups(query: Annotated[GroupQuery, Query()], session: Reading) -> Page[Group]:
    """Groups, newest first."""
    wanted = select(JobGroup)
    if query.schedule_id is not None:
        wanted = wanted.where(JobGroup.schedule_id == query.schedule_id)
    if query.cursor is not None:
        wanted = wanted.where(JobGroup.id < decoded(query.cursor, [UUID])[0])
    rows = session.scalars(wanted.order_by(JobGroup.id.desc()).limit(query.limit + 1)).all()
    kept, cursor = cut(rows, query.limit, key=lambda row: [row.id])
    return Page(items=[shown(row) for row in kept], next_cursor=cursor)


@router.get("/{group_id}")
@allow_reading
def get_group(group_id: UUID, session: Reading) -> Group:
    """One group and its progress."""
    return shown(found(session, group_id))


def found(session: Session, group_id: UUID) -> JobGroup:
    """The group's row. Raises NotFound."""
    row = session.get(JobGroup, group_id)
    if row is None:
        raise NotFound(f"There is no group {group_id}.", hint="GET /groups lists them.")
    return row


def shown(row: JobGroup) -> Group:
    """A group as the API shows it."""
    return fields.shown(
        Group,
        row,
        state="running" if row.finished_at is None else "finished",
        done=row.succeeded + row.failed + row.cancelled,
        cost_usd=f"{row.cost_usd:f}",
    )
