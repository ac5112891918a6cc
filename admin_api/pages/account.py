"""One's own account: password, second factor, sessions, and keys for providers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from pydantic import ValidationInfo, field_validator
from sqlalchemy.orm import Session

from admin_api import access, second_factors
from admin_api.access import AccessQuery, list_access
from admin_api.auth import From, Own, Password, PasswordBody, change_password
from admin_api.login_sessions import (
    EndQuery,
    LoginSession,
    SessionQuery,
    allow_ending,
    end_own_sessions,
    end_session,
    list_sessions,
)
from admin_api.pages.controls import Tweak
from admin_api.pages.devices import device
from admin_api.pages.forms import Form, Group
from admin_api.pages.render import page
from admin_api.pages.route import PageRoute, Sent, done, shown_at
from admin_api.pagination import Page, PageQuery
from admin_api.personal_keys import PersonalKeyInUse, allow_own, list_personal_keys
from admin_api.security import Current, Principal, SecondFactor, allow_people
from admin_api.services import Services
from admin_api.sessions import Reading, Writing

router = APIRouter(route_class=PageRoute)

_ROWS = 25
_MOST = 200


class TypedPasswordBody(PasswordBody):
    """A password as a person types it, who sees nothing of it: twice."""

    again: Password

    @field_validator("again")
    @classmethod
    def _is_same(cls, again: Password, info: ValidationInfo) -> Password:
        if "new" in info.data and again != info.data["new"]:
            raise ValueError("This is not what you typed above.")
        return again


PASSWORD = Form(
    TypedPasswordBody,
    Group("Change password", "current", "new", "again"),
    current=Tweak(label="Current password", autocomplete="current-password"),
    new=Tweak(label="New password", help="At least 12 characters: a few words do. Your other sessions end."),
    again=Tweak(label="New password, again"),
)

Cursor = Annotated[str | None, Query(max_length=1000)]


@dataclass(frozen=True, slots=True)
class ProviderAccess:
    """What the caller may do with a provider, and the key of their own, if they have one."""

    entry: access.Entry
    key: PersonalKeyInUse | None


@router.get("/account")
@allow_people
def account(
    request: Request, session: Reading, caller: Current, using: Own, cursor: Cursor = None
) -> Response:
    """All that is the caller's own. Who may only enrol sees only that."""
    is_whole = not caller.may_only_enrol
    providers = _providers(session, caller, cursor) if is_whole else None
    return page(
        request,
        "account.html",
        factor=_factor(using, caller),
        may_replace=caller.mfa or caller.second_factor is not SecondFactor.ENROLLED,
        password=PASSWORD.view(request, action="/account/password"),
        sessions=_sessions(session, caller, using) if is_whole else [],
        providers=providers.items if providers else [],
        next_cursor=providers and providers.next_cursor,
        is_first=cursor is None,
        device=device,
    )


@router.post("/account/password")
@allow_own
@shown_at("/account")
def save_password(sent: Sent, client: From, caller: Current, using: Own) -> Response:
    """Change the caller's password."""
    typed = PASSWORD.body(sent)
    change_password(PasswordBody(current=typed.current, new=typed.new), client, caller, using)
    return done("/account", "Your password is changed, and your other sessions are over.")


@router.post("/account/sessions/end-others")
@allow_ending
def end_other_sessions(session: Writing, caller: Current) -> Response:
    """Log the caller out everywhere else."""
    end_own_sessions(EndQuery(keep_current=True), session, caller)
    return done("/account", "All your other sessions are over.")


@router.post("/account/sessions/{session_id}/end")
@allow_ending
def end_own_session(session_id: UUID, session: Writing, caller: Current) -> Response:
    """Log the caller out there."""
    end_session(session_id, session, caller)
    return done("/account", "The session is over.")


def _factor(using: Services, caller: Principal) -> second_factors.Standing | None:
    assert caller.admin_id is not None, "the rule lets in people only"  # noqa: S101
    with using.pool.connection() as db:
        return second_factors.standing(db, caller.admin_id)


def _sessions(session: Session, caller: Principal, using: Services) -> Sequence[LoginSession]:
    asked = SessionQuery(limit=_ROWS, admin_id=caller.admin_id)
    return list_sessions(asked, session, caller, using).items


def _providers(session: Session, caller: Principal, cursor: str | None) -> Page[ProviderAccess]:
    found = list_access(AccessQuery(limit=_ROWS, cursor=cursor, with_models=False), session, caller)
    keys = {key.provider_id: key for key in list_personal_keys(PageQuery(limit=_MOST), session, caller).items}
    return Page[ProviderAccess].model_construct(
        items=[ProviderAccess(entry, keys.get(entry.provider_id)) for entry in found.items],
        next_cursor=found.next_cursor,
    )
