"""Retention: how long jobs and calls are kept, and erasing what an end user's jobs hold."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from admin_api import fields
from admin_api.etags import tagged
from admin_api.pagination import Page
from admin_api.providers import Changes
from admin_api.refusals import Invalid, NotFound
from admin_api.security import Current, GuardedRoute, allow_reading, allow_writing
from admin_api.services import Using
from admin_api.sessions import Reading, Writing
from store.audit import Event, record
from store.tables import Retention as RetentionRow
from workers import erasure, matching
from workers.records import JobFilter

router = APIRouter(tags=["retention"], route_class=GuardedRoute)

FEWEST_DAYS_OF_CALLS = 31
"""Monthly limits of personal keys are summed up from calls."""


class RetentionBody(fields.Body):
    """How long a table keeps its days."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"keep_days": 90}]})

    keep_days: Annotated[
        fields.KeepDays | None,
        Field(
            description="A day (UTC) is dropped once it ended so many days ago; null: never. Of "
            f"ai_usage_analytics {FEWEST_DAYS_OF_CALLS} at least."
        ),
    ] = None


class Retention(BaseModel):
    """A table's policy: `job_history` holds finished jobs, `ai_usage_analytics` their calls."""

    table_name: str
    keep_days: int | None
    updated_at: datetime
    updated_by: UUID | None


class ErasureBody(BaseModel):
    """Whose jobs are to be erased."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"user_id": "u-1"}]})

    user_id: fields.Tag


class Erased(BaseModel):
    """How many jobs lost what they held, and how many artifacts were deleted."""

    jobs: int
    artifacts: int


@router.get("/retention")
@allow_reading
def list_retention(session: Reading) -> Page[Retention]:
    """How long each table keeps its days."""
    rows = session.scalars(select(RetentionRow).order_by(RetentionRow.table_name)).all()
    return Page(items=[fields.shown(Retention, row) for row in rows], next_cursor=None)


@router.get("/retention/{table_name}")
@allow_reading
@tagged
def get_retention(table_name: str, session: Reading) -> Retention:
    """How long a table keeps its days."""
    return fields.shown(Retention, _found(session, table_name))


@router.patch("/retention/{table_name}", openapi_extra=fields.patch_of(RetentionBody))
@allow_writing
def change_retention(table_name: str, changes: Changes, session: Writing, caller: Current) -> Retention:
    """Change how long a table keeps its days. What is too old then goes within minutes, for good."""
    row = _found(session, table_name)
    body = fields.merged(fields.stored(RetentionBody, row), changes)
    if (
        row.table_name == "ai_usage_analytics"
        and body.keep_days is not None
        and body.keep_days < FEWEST_DAYS_OF_CALLS
    ):
        raise Invalid(
            f"Calls are kept for {FEWEST_DAYS_OF_CALLS} days at least: monthly limits of personal keys are "
            "summed up from them.",
            field="keep_days",
        )
    row.keep_days, row.updated_by, row.updated_at = body.keep_days, caller.admin_id, func.now()
    session.flush()
    return fields.shown(Retention, row)


@router.post("/erasures")
@allow_writing
def erase_user(body: ErasureBody, using: Using) -> Erased:
    """Erase what the jobs of an end user were given and made: inputs, metadata, results, artifacts and error
    messages. Queued and running ones are cancelled first.

    That they ran stays, with state, times, tokens, cost and user_id; so do usage figures. Works in pages:
    after an error, some may be erased already, and the call can be repeated. Repeated, it answers what there
    was left to erase.
    """
    with using.pool.connection() as db:
        record(db, Event("erase", "erasures", body.user_id))
    matching.cancel_all(using.client, using.pool, JobFilter(user_id=body.user_id))
    done = erasure.erase_user(using.pool, using.artifacts, body.user_id)
    return Erased(jobs=done.jobs, artifacts=done.artifacts)


def _found(session: Session, table_name: str) -> RetentionRow:
    row = session.get(RetentionRow, table_name)
    if row is None:
        raise NotFound(f"There is no policy for {table_name!r}.", hint="GET /retention lists them.")
    return row
