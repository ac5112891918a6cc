"""Alerts: what somebody should look at, and has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, get_args
from urllib.parse import quote, urlencode
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field, model_validator
from sqlalchemy import select
from sqlalchemy.orm import Session

from admin_api.alerts import Alert, AlertQuery, acknowledge_alert, list_alerts
from admin_api.pages.render import page
from admin_api.pages.route import PageRoute, Sent, done, may_see, safe_path
from admin_api.security import Current, Principal, allow_reading, allow_writing
from admin_api.services import Using
from admin_api.sessions import Reading
from store.tables import Admin
from workers.alerts import Kind

router = APIRouter(route_class=PageRoute)

_ROWS = 25

_PAGES: Mapping[str, tuple[str, str]] = {
    "providers": ("/providers/{provider_id}", "/providers/{id}"),
    "models": ("/models/{model_id}", "/models/{id}"),
    "jobs": ("/jobs/{job_id}", "/jobs/{id}"),
    "queues": ("/queues", "/queues"),
    "budgets": ("/budgets", "/budgets"),
    "schedules": ("/schedules/{schedule_id}", "/schedules/{id}"),
    "features": ("/usage", "/usage?days=7&feature={id}"),
    "usage": ("/usage", "/usage?days=7"),
}
"""Where a noun is shown: the route of its page, and the address."""


class Filter(AlertQuery):
    """As the form sends it: an empty field asks for nothing. Without `acknowledged`: what is open."""

    limit: Annotated[int, Field(ge=1, le=_ROWS)] = _ROWS
    acknowledged: bool | None = False

    @model_validator(mode="before")
    @classmethod
    def _read(cls, sent: Any) -> Any:
        told = {name: value for name, value in dict(sent).items() if value != ""}
        return told | ({"acknowledged": None} if told.get("acknowledged") == "any" else {})

    def address(self, **changed: str) -> str:
        """The list with this filter, and another."""
        known = {None: "any", True: "true", False: ""}[self.acknowledged]
        asked = {"kind": self.kind or "", "acknowledged": known, **changed}
        query = urlencode({name: value for name, value in asked.items() if value})
        return f"/alerts?{query}" if query else "/alerts"


@dataclass(frozen=True, slots=True)
class Told:
    """An alert as it is shown: where what it is about is, and who knows of it."""

    alert: Alert
    href: str
    known_by: str


@router.get("/alerts")
@allow_reading
def alerts(
    request: Request, query: Annotated[Filter, Query()], session: Reading, caller: Current, using: Using
) -> Response:
    """Alerts, those that nobody acknowledged unless asked otherwise."""
    found = list_alerts(query, request, using)
    return page(
        request,
        "alerts.html",
        alerts=_told(found.items, session, caller),
        query=query,
        kinds=get_args(Kind),
        older=query.address(cursor=found.next_cursor) if found.next_cursor else "",
        newest=query.address() if query.cursor else "",
    )


@router.post("/alerts/{alert_id}/acknowledge")
@allow_writing
def acknowledge(alert_id: UUID, sent: Sent, caller: Current, using: Using) -> Response:
    """Note that somebody knows."""
    acknowledge_alert(alert_id, caller, using)
    return done(safe_path(sent.get("back"), otherwise="/alerts"), "Acknowledged.")


def _told(alerts: Sequence[Alert], session: Session, caller: Principal) -> list[Told]:
    ids = {alert.acknowledged_by for alert in alerts if alert.acknowledged_by is not None}
    wanted = select(Admin.id, Admin.email).where(Admin.id.in_(ids))
    names = {row.id: row.email for row in session.execute(wanted)} if ids else {}
    return [
        Told(alert, _href(alert, caller), names.get(alert.acknowledged_by, "somebody")) for alert in alerts
    ]


def _href(alert: Alert, caller: Principal) -> str:
    """Where the noun is shown; "" where it is not."""
    route, address = _PAGES.get(alert.noun, ("", ""))
    return address.replace("{id}", quote(alert.noun_id, safe="")) if may_see(route, caller) else ""
