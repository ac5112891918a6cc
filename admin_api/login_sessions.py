"""Sessions: who is logged in, and ending that."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, status
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import ColumnElement, Select, func, select, update
from sqlalchemy.orm import Session, joinedload

from admin_api import fields
from admin_api.auth import Own
from admin_api.pagination import Page, PageQuery, page_of
from admin_api.refusals import NotFound
from admin_api.security import Actor, Current, GuardedRoute, Principal, allow, allow_reading
from admin_api.services import Services
from admin_api.sessions import Reading, Writing
from store import audit
from store.audit import Event
from store.tables import AdminSession

router = APIRouter(prefix="/sessions", tags=["sessions"], route_class=GuardedRoute)

allow_ending = allow(Actor.SUPER_ADMIN, Actor.ADMIN, mfa=True)


class LoginSession(BaseModel):
    """A login that lives. `address` and `user_agent` are those it was made from; `is_current`: this one.

    `is_browser`: a cookie holds it; the others are programs', which hold refresh tokens.
    """

    id: UUID
    admin_id: UUID
    email: str
    mfa: bool
    address: str | None
    user_agent: str | None
    created_at: datetime
    last_used_at: Annotated[datetime, Field(description="When it was last refreshed.")]
    expires_at: datetime
    is_browser: bool
    is_current: bool


class SessionQuery(PageQuery):
    admin_id: Annotated[UUID | None, Field(description="For super admins: one person's.")] = None


class EndQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    keep_current: Annotated[bool, Field(description="Whether the session that asks goes on.")] = False


@router.get("")
@allow_reading
def list_sessions(
    query: Annotated[SessionQuery, Query()], session: Reading, caller: Current, using: Own
) -> Page[LoginSession]:
    """Sessions that live, the oldest first: your own; for super admins everybody's."""
    wanted = _visible(caller).options(joinedload(AdminSession.admin))
    if query.admin_id is not None:
        wanted = wanted.where(AdminSession.admin_id == query.admin_id)
    rows, cursor = page_of(session, wanted, query, by=[AdminSession.id])
    browsers = _held_by_cookies(using, [row.id for row in rows])
    return Page(
        items=[
            fields.shown(
                LoginSession,
                row,
                email=row.admin.email,
                is_browser=row.id in browsers,
                is_current=row.id == caller.session_id,
            )
            for row in rows
        ],
        next_cursor=cursor,
    )


@router.delete("", status_code=status.HTTP_204_NO_CONTENT)
@allow_ending
def end_own_sessions(query: Annotated[EndQuery, Query()], session: Writing, caller: Current) -> None:
    """End all sessions of your own, this one too unless `keep_current` says otherwise."""
    which = AdminSession.admin_id == caller.admin_id
    if query.keep_current:
        which = which & AdminSession.id.is_distinct_from(caller.session_id)
    for session_id in _ended(session, which):
        _note(session, caller, session_id)


@router.delete("/{session_id}", status_code=status.HTTP_204_NO_CONTENT)
@allow_ending
def end_session(session_id: UUID, session: Writing, caller: Current) -> None:
    """End a session, of your own, or as a super admin anybody's: it is refused from the next request on."""
    if session.scalar(_visible(caller).where(AdminSession.id == session_id)) is None:
        raise NotFound(f"There is no session {session_id} that lives.", hint="GET /sessions lists them.")
    if _ended(session, AdminSession.id == session_id):
        _note(session, caller, session_id)


def _visible(caller: Principal) -> Select[AdminSession]:
    wanted = select(AdminSession).where(
        AdminSession.revoked_at.is_(None), AdminSession.expires_at > func.now()
    )
    if caller.actor is Actor.SUPER_ADMIN:
        return wanted
    return wanted.where(AdminSession.admin_id == caller.admin_id)


def _held_by_cookies(using: Services, ids: Sequence[UUID]) -> set[UUID]:
    """Those of the sessions that are browsers'. No caller's role may read what tells them."""
    with using.pool.connection() as db:
        rows = db.execute(
            "SELECT id FROM admin_sessions WHERE id = ANY (%s) AND cookie_hash IS NOT NULL", [list(ids)]
        ).fetchall()
    return {row["id"] for row in rows}


def _ended(session: Session, which: ColumnElement[bool]) -> list[UUID]:
    statement = (
        update(AdminSession)
        .where(which, AdminSession.revoked_at.is_(None))
        .values(revoked_at=func.now(), revoked_because="revoked")
        .returning(AdminSession.id)
        .execution_options(synchronize_session=False)
    )
    return list(session.scalars(statement))


def _note(session: Session, caller: Principal, session_id: UUID) -> None:
    audit.record(session, Event("session_revoked", "sessions", session_id, admin_id=caller.admin_id))
