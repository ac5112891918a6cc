"""Audit: who did what, when, and what it changed; whether the log is what was written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import Field, model_validator
from sqlalchemy.orm import Session

from admin_api.audit import AuditQuery, Entry, Verdict, get_entry, list_audit, verify_audit
from admin_api.pages.diffs import Diff, diff
from admin_api.pages.render import page
from admin_api.pages.route import PageRoute, may_see
from admin_api.security import Current, Principal, allow_reading
from admin_api.sessions import Reading

router = APIRouter(route_class=PageRoute)

_ROWS = 12
_FEW_LINES, _NARROW = 5, 72
_MANY_LINES, _WIDE = 2000, 4000

_PAGES: Mapping[str, tuple[str, str]] = {
    "providers": ("/providers", "/providers/{id}"),
    "models": ("/providers", "/models/{id}"),
    "features": ("/features", "/features/{id}/edit"),
    "feature-assignments": ("/assignments", "/assignments"),
    "integrations": ("/integrations/{integration_id}/edit", "/integrations/{id}/edit"),
    "admins": ("/people", "/people/{id}"),
    "tokens": ("/tokens", "/tokens"),
    "jobs": ("/jobs", "/jobs/{id}"),
    "schedules": ("/schedules", "/schedules/{id}"),
    "queues": ("/queues", "/queues"),
    "alerts": ("/alerts", "/alerts"),
    "budgets": ("/budgets", "/budgets"),
    "retention": ("/retention", "/retention"),
    "erasures": ("/retention", "/retention"),
}
"""Where a noun is shown: the page that says who may see it there, and the address."""

_ACTIONS: Sequence[str] = (
    "create",
    "update",
    "delete",
    "login",
    "login_failed",
    "logout",
    "session_revoked",
    "password_changed",
    "mfa_enrolled",
    "mfa_reset",
    "refresh_reuse",
    "token_minted",
    "acknowledge",
    "erase",
    "export",
    "import",
)
_NOUNS: Sequence[str] = (*_PAGES, "sessions", "personal-keys", "prompt-templates", "usage", "configuration")
"""What the filters offer. They take any other word, too."""


class AuditFilter(AuditQuery):
    """What the form of filters sends: an empty field asks for nothing, times are UTC."""

    limit: Annotated[int, Field(ge=1, le=_ROWS)] = _ROWS

    @model_validator(mode="before")
    @classmethod
    def _read(cls, sent: Any) -> Any:
        told = {name: value for name, value in dict(sent).items() if value != ""}
        return told | {name: _utc(told[name]) for name in ("since", "until") if name in told}

    @property
    def asked(self) -> dict[str, str]:
        """The filters that are set."""
        return {
            name: _local(value) if isinstance(value, datetime) else str(value)
            for name, value in self.model_dump(exclude={"limit", "cursor"}, exclude_none=True).items()
        }

    def address(self, **changed: str) -> str:
        """The list with these filters, and others."""
        query = urlencode({**self.asked, **changed})
        return f"/audit?{query}" if query else "/audit"


@dataclass(frozen=True, slots=True)
class Told:
    """An act as it is shown: what it changed, and where what it was done to is shown."""

    entry: Entry
    diff: Diff
    href: str


@router.get("/audit")
@allow_reading
def audit(
    request: Request, query: Annotated[AuditFilter, Query()], session: Reading, caller: Current
) -> Response:
    """The acts that match, newest first."""
    return _listed(request, query, session, caller, None)


@router.get("/audit/verify")
@allow_reading
def verify(request: Request, session: Reading, caller: Current) -> Response:
    """The same, below what checking the whole chain has found."""
    return _listed(request, AuditFilter(), session, caller, verify_audit(request))


@router.get("/audit/{entry_id}")
@allow_reading
def act(
    entry_id: Annotated[int, Path(ge=1, lt=2**63)], request: Request, session: Reading, caller: Current
) -> Response:
    """One act, with all that it changed."""
    found = _told(get_entry(entry_id, session), caller, _MANY_LINES, _WIDE)
    everything = AuditFilter()
    return page(
        request,
        "act.html",
        told=found,
        entry=found.entry,
        history=everything.address(noun=found.entry.noun, noun_id=found.entry.noun_id or ""),
        by_actor=everything.address(actor=found.entry.actor),
    )


def _listed(
    request: Request, query: AuditFilter, session: Session, caller: Principal, verdict: Verdict | None
) -> Response:
    found = list_audit(query, session)
    return page(
        request,
        "audit.html",
        acts=[_told(entry, caller, _FEW_LINES, _NARROW) for entry in found.items],
        query=query,
        older=query.address(cursor=found.next_cursor) if found.next_cursor else "",
        newest=query.address() if query.cursor else "",
        verdict=verdict,
        actions=_ACTIONS,
        nouns=_NOUNS,
    )


def _told(entry: Entry, caller: Principal, lines: int, width: int) -> Told:
    changed = diff(_named(entry.before), _named(entry.after), lines=lines, width=width)
    return Told(entry, changed, _href(entry, caller))


def _named(members: Mapping[str, Any] | None) -> dict[str, Any]:
    """Without the id, which the act names already."""
    return {name: value for name, value in (members or {}).items() if name != "id"}


def _href(entry: Entry, caller: Principal) -> str:
    """Where the noun is shown; "" where it is not, or is gone."""
    guarded, address = _PAGES.get(entry.noun, ("", ""))
    if entry.noun_id is None or entry.action == "delete" or not may_see(guarded, caller):
        return ""
    return address.replace("{id}", quote(entry.noun_id, safe=""))


def _utc(text: str) -> str:
    """A time as the form's field sends it, which names no zone, as one in UTC."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return text
    return time.replace(tzinfo=UTC).isoformat() if time.tzinfo is None else text


def _local(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M")
