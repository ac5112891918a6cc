"""Attempts one by one: as pages, and as CSV."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields as members
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse
from psycopg.errors import QueryCanceled
from pydantic import BaseModel, ConfigDict, Field

from admin_api import fields, spreadsheet
from admin_api.fields import Tag, Time
from admin_api.pagination import Page, PageQuery, cut, decoded
from admin_api.refusals import Invalid
from admin_api.security import Current, GuardedRoute, allow_reading
from admin_api.services import Services, Using
from admin_api.usage import Days, spanned
from store.audit import Event, record
from workers import attempts
from workers.attempts import AttemptFilter, AttemptRecord, Place

router = APIRouter(prefix="/usage", tags=["usage"], route_class=GuardedRoute)

_BEGINNING = datetime(2000, 1, 1, tzinfo=UTC)
_END = datetime(3000, 1, 1, tzinfo=UTC)
_SECONDS = 5.0
_ROWS_AT_ONCE = 2000


class UsageAttempt(BaseModel):
    """One try of one route of a job. `cost_usd` null: unknown. `called`: whether it reached the provider."""

    job_id: UUID
    run: int
    n: int
    started_at: datetime
    finished_at: datetime
    feature: str
    capability: str
    lane: str
    user_id: str | None
    provider: str | None
    model: str | None
    served_model: str | None
    outcome: str
    called: bool
    breaker: str | None
    error_class: str | None
    error_message: str | None
    status: int | None
    request_id: Annotated[str | None, Field(description="The provider's name for the call.")]
    latency_ms: int | None
    input_tokens: int | None
    output_tokens: int | None
    cached_tokens: int | None
    cache_write_tokens: int | None
    reasoning_tokens: int | None
    characters: int | None
    seconds: float | None
    images: int | None
    tokens_estimated: bool
    cost_usd: str | None
    config_version: int | None
    prompt_version: int | None
    worker: str | None


class AttemptFilters(BaseModel):
    model_config = ConfigDict(extra="forbid")

    provider: Annotated[Tag | None, Field(description="Its slug.")] = None
    model: Annotated[Tag | None, Field(description="Its model_id.")] = None
    feature: Tag | None = None
    user_id: Tag | None = None
    outcome: Literal["succeeded", "failed", "superseded", "lost"] | None = None
    error_class: Tag | None = None
    job_id: UUID | None = None
    since: Annotated[Time | None, Field(description="Ended at this time or later.")] = None
    until: Annotated[Time | None, Field(description="Ended before this time.")] = None

    def chosen(self) -> AttemptFilter:
        """Without the times."""
        return AttemptFilter(**{name: getattr(self, name) for name in AttemptFilter.__slots__})


class AttemptQuery(AttemptFilters, PageQuery):
    pass


class ExportQuery(AttemptFilters):
    days: Days = 30


@router.get("/attempts")
@allow_reading
def list_attempts(query: Annotated[AttemptQuery, Query()], using: Using) -> Page[UsageAttempt]:
    """Attempts, those that ended last first."""
    after: Place | None = None
    if query.cursor is not None:
        finished_at, job_id, run, n = decoded(query.cursor, [datetime, UUID, int, int])
        after = finished_at, job_id, run, n
    found = _page(
        using,
        query.chosen(),
        since=query.since or _BEGINNING,
        until=query.until or _END,
        limit=query.limit + 1,
        after=after,
    )
    page, cursor = cut(found, query.limit, key=lambda attempt: list(attempt.place))
    return Page(items=[_shown(attempt) for attempt in page], next_cursor=cursor)


@router.get(
    "/export.csv",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/csv": {"schema": {"type": "string"}}}, "description": "RFC 4180"}},
)
@allow_reading
def export_attempts(query: Annotated[ExportQuery, Query()], caller: Current, using: Using) -> Response:
    """Attempts as CSV, those that ended last first; of the last 30 days unless it says otherwise.

    Cells that a spreadsheet would take for formulas begin with an apostrophe. It is sent while it is read: an
    error in the middle breaks the answer off.
    """
    since, until = spanned(query.days, query.since, query.until)
    asked = query.model_dump(mode="json", exclude_none=True)
    with using.pool.connection() as db:
        record(db, Event("export", "usage", after={**asked, "since": since, "until": until}))
    lines = _csv(using, query.chosen(), since=since, until=until)
    name = f"orrery-attempts-{since:%Y%m%d}-{until:%Y%m%d}.csv"
    return StreamingResponse(
        lines,
        media_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


def _page(using: Services, chosen: AttemptFilter, **options: Any) -> list[AttemptRecord]:
    try:
        with using.pool.connection() as db, db.transaction():
            db.execute("SELECT set_config('statement_timeout', %s, true)", [f"{_SECONDS:g}s"])
            return attempts.page(db, chosen, **options)
    except QueryCanceled:
        raise Invalid(
            f"This search takes longer than {_SECONDS:g} s. Narrow it with since and until.", field="since"
        ) from None


def _shown(attempt: AttemptRecord) -> UsageAttempt:
    cost = attempt.cost_usd
    return fields.shown(UsageAttempt, attempt, cost_usd=None if cost is None else f"{cost:f}")


def _csv(using: Services, chosen: AttemptFilter, *, since: datetime, until: datetime) -> Iterator[str]:
    """Lines, some at a time. Between two readings no connection is held: the client may be slow."""
    names = [member.name for member in members(AttemptRecord)]
    yield spreadsheet.lines([names])
    after: Place | None = None
    while True:
        found = _page(using, chosen, since=since, until=until, limit=_ROWS_AT_ONCE, after=after)
        if not found:
            return
        yield spreadsheet.lines([getattr(attempt, name) for name in names] for attempt in found)
        after = found[-1].place
