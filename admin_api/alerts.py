"""Alerts: what somebody should look at, and has."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from admin_api import fields
from admin_api.fields import Tag
from admin_api.pagination import Page, PageQuery, cut, decoded
from admin_api.refusals import NotFound
from admin_api.security import Current, GuardedRoute, allow_reading, allow_writing
from admin_api.services import Using, services
from store.audit import Event, record
from workers import alerts
from workers.alerts import AlertFilter, Kind

router = APIRouter(prefix="/alerts", tags=["alerts"], route_class=GuardedRoute)


class Alert(BaseModel):
    """Something about a noun that happened `count` times; `message` says what, and what to do.

    One alert is open about a thing at a time. Acknowledged means known: what goes on adds to the acknowledged
    alert, and what comes back after an hour of silence opens a new one.
    """

    id: UUID
    kind: str
    noun: Annotated[str, Field(description="As in paths: `providers`, `models`, `jobs`, `queues`.")]
    noun_id: str
    message: str
    first_seen_at: datetime
    last_seen_at: datetime
    count: int
    acknowledged_at: datetime | None
    acknowledged_by: UUID | None


class AlertQuery(PageQuery):
    kind: Kind | None = None
    noun: Tag | None = None
    noun_id: Tag | None = None
    acknowledged: Annotated[bool | None, Field(description="`false`: only what is open.")] = None


@router.get("")
@allow_reading
def list_alerts(query: Annotated[AlertQuery, Query()], request: Request, using: Using) -> Page[Alert]:
    """Alerts, newest first."""
    # Where no worker runs nobody else notices that jobs wait for one.
    with services(request).pool.connection() as db:
        alerts.raise_unserved_lanes(db)
    filters = AlertFilter(query.kind, query.noun, query.noun_id, query.acknowledged)
    after = None
    if query.cursor is not None:
        first_seen_at, alert_id = decoded(query.cursor, [datetime, UUID])
        after = first_seen_at, alert_id
    with using.pool.connection() as db:
        found = alerts.page(db, filters, limit=query.limit + 1, after=after)
    page, cursor = cut(found, query.limit, key=lambda alert: [alert.first_seen_at, alert.id])
    return Page(items=[fields.shown(Alert, alert) for alert in page], next_cursor=cursor)


@router.post("/{alert_id}/acknowledge")
@allow_writing
def acknowledge_alert(alert_id: UUID, caller: Current, using: Using) -> Alert:
    """Note that somebody knows. Doing so again changes nothing."""
    with using.pool.connection() as db, db.transaction():
        is_new = alerts.acknowledge(db, alert_id, by=caller.admin_id)
        found = alerts.find(db, alert_id)
        if found is None:
            raise NotFound(f"There is no alert {alert_id}.")
        if is_new:
            about = {"kind": found.kind, "noun": found.noun, "noun_id": found.noun_id}
            record(db, Event("acknowledge", "alerts", alert_id, after=about))
    return fields.shown(Alert, found)
