"""The audit log: who did what, and whether the log is what was written."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request
from pydantic import AwareDatetime, BaseModel, Field, StringConstraints
from sqlalchemy import Select, false, select
from sqlalchemy.orm import Session

from admin_api import fields
from admin_api.pagination import Page, PageQuery, cut, decoded
from admin_api.refusals import Invalid, NotFound
from admin_api.security import GuardedRoute, allow_reading
from admin_api.services import services
from admin_api.sessions import Reading
from store import audit
from store.tables import AuditEntry

router = APIRouter(prefix="/audit", tags=["audit"], route_class=GuardedRoute)

_Word = Annotated[str, StringConstraints(min_length=1, max_length=300)]
_Time = Annotated[
    AwareDatetime, Field(ge=datetime(2000, 1, 1, tzinfo=UTC), lt=datetime(3000, 1, 1, tzinfo=UTC))
]


class Entry(BaseModel):
    """One act. `before` and `after` hold the members that changed; of a secret only that it did.

    `actor` is `admin a@b`, `application name`, `cli`, `system`, or `database name` for a change made at the
    database itself. `hash` is of the whole row and of the row before it.
    """

    id: int
    at: datetime
    actor: str
    admin_id: UUID | None
    action: str
    noun: str
    noun_id: str | None
    before: fields.JsonObject | None
    after: fields.JsonObject | None
    request_id: str | None
    hash: str


class AuditQuery(PageQuery):
    actor: Annotated[_Word | None, Field(description="As it is shown: `admin a@b`, `cli`, ...")] = None
    action: Annotated[_Word | None, Field(description="`create`, `update`, `delete`, `login`, ...")] = None
    noun: Annotated[_Word | None, Field(description="`providers`, `feature-assignments`, ...")] = None
    noun_id: _Word | None = None
    since: Annotated[_Time | None, Field(description="At this time or later.")] = None
    until: Annotated[_Time | None, Field(description="Before this time.")] = None


class FirstBad(BaseModel):
    id: int
    reason: str


class End(BaseModel):
    """The last row that was checked."""

    id: int
    hash: str


class Verdict(BaseModel):
    """Whether the log is what was written, and the first row that is not.

    Note `end` outside of the database now and then: whoever may rewrite the whole database could rewrite the
    whole chain, but not what you noted. The row of that id must keep that hash.
    """

    valid: bool
    checked: int
    first_bad: FirstBad | None
    end: End


@router.get("")
@allow_reading
def list_audit(query: Annotated[AuditQuery, Query()], session: Reading) -> Page[Entry]:
    """What was done, newest first."""
    wanted = select(AuditEntry)
    for column, value in (
        (AuditEntry.actor, query.actor),
        (AuditEntry.action, query.action),
        (AuditEntry.noun, query.noun),
        (AuditEntry.noun_id, query.noun_id),
    ):
        wanted = wanted if value is None else wanted.where(column == value)
    wanted = _within(session, wanted, query)
    if query.cursor is not None:
        wanted = wanted.where(AuditEntry.id < _before(query.cursor))
    rows = session.scalars(wanted.order_by(AuditEntry.id.desc()).limit(query.limit + 1)).all()
    page, cursor = cut(rows, query.limit, key=lambda row: [str(row.id)])
    return Page(items=[_shown(row) for row in page], next_cursor=cursor)


@router.get("/verify")
@allow_reading
def verify_audit(request: Request) -> Verdict:
    """Check the whole chain: finds rows that were altered, removed, added, moved, or cut off at the end."""
    with services(request).pool.connection() as db:  # not the caller's: it must see every row
        found = audit.verify(db)
    bad = found.first_bad
    return Verdict(
        valid=bad is None,
        checked=found.checked,
        first_bad=None if bad is None else FirstBad(id=bad.id, reason=bad.reason),
        end=End(id=found.last_id, hash=found.last_hash),
    )


@router.get("/{entry_id}")
@allow_reading
def get_entry(entry_id: Annotated[int, Path(ge=1, lt=2**63)], session: Reading) -> Entry:
    """One act."""
    row = session.get(AuditEntry, entry_id)
    if row is None:
        raise NotFound(f"There is no row {entry_id}.", hint="GET /audit lists them.")
    return _shown(row)


def _shown(row: AuditEntry) -> Entry:
    return fields.shown(Entry, row, hash=row.hash.hex())


def _within(session: Session, wanted: Select[Any], query: AuditQuery) -> Select[Any]:
    """Times as ids, with which they rise: every filter has an index that ends in the id."""
    if query.since is not None:
        first = _first_since(session, query.since)
        wanted = wanted.where(AuditEntry.id >= first) if first is not None else wanted.where(false())
    if query.until is not None:
        first = _first_since(session, query.until)
        wanted = wanted if first is None else wanted.where(AuditEntry.id < first)
    return wanted


def _first_since(session: Session, at: datetime) -> int | None:
    return session.scalar(select(AuditEntry.id).where(AuditEntry.at >= at).order_by(AuditEntry.at).limit(1))


def _before(cursor: str) -> int:
    (text,) = decoded(cursor, [str])
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise Invalid(
            "This is no cursor of this list.",
            field="cursor",
            hint="Use the next_cursor of its page before, or none.",
        )
    return int(text)
