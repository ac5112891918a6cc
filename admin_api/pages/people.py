"""People: who may log in, what they may do, and where they are logged in."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response

from admin_api.auth import Own
from admin_api.login_sessions import SessionQuery, end_session, list_sessions
from admin_api.pages.controls import Tweak
from admin_api.pages.devices import device
from admin_api.pages.forms import Form, Group
from admin_api.pages.render import page
from admin_api.pages.route import PageRoute, Sent, changes, done
from admin_api.people import (
    NewPersonBody,
    PersonBody,
    PersonQuery,
    change_admin,
    create_admin,
    delete_admin,
    get_admin,
    list_admins,
)
from admin_api.security import Actor, Current, allow_reading, allow_writing
from admin_api.sessions import Reading, Writing

router = APIRouter(route_class=PageRoute)

_ROWS = 25
_ROLE = Tweak(
    choices=[("admin", "Admin: reads everything"), ("super_admin", "Super admin: changes everything")],
    help="A super admin needs a second factor to change anything. An admin manages what is their own.",
)
_EMAIL = Tweak(label="E-mail", help="What they log in with.", placeholder="ada@example.com")

NEW_PERSON = Form(
    NewPersonBody,
    Group("Account", "email", "role", "password"),
    email=_EMAIL,
    role=_ROLE,
    password=Tweak(
        label="First password",
        help="At least 12 characters: a few words do. Tell them; they change it under their own name.",
    ),
)
PERSON = Form(PersonBody, Group("Account", "email", "role"), email=_EMAIL, role=_ROLE)

Cursor = Annotated[str | None, Query(max_length=1000)]


@router.get("/people")
@allow_reading
def people(request: Request, session: Reading, caller: Current, cursor: Cursor = None) -> Response:
    """Everybody, the first to come first."""
    found = list_admins(PersonQuery(limit=_ROWS, cursor=cursor), session, caller)
    return page(
        request, "people.html", people=found.items, next_cursor=found.next_cursor, is_first=cursor is None
    )


@router.get("/people/new")
@allow_writing
def new_person(request: Request) -> Response:
    """The form that adds somebody."""
    return page(
        request,
        "form.html",
        title="New person",
        lead="They log in with this address and the first password.",
        crumbs=[("People", "/people")],
        form=NEW_PERSON.view(request, given={"role": "admin"}),
        submit="Add person",
        cancel="/people",
    )


@router.post("/people/new")
@allow_writing
def add_person(sent: Sent, session: Writing, caller: Current) -> Response:
    """Add somebody."""
    made = create_admin(NEW_PERSON.body(sent), session, caller)
    return done(f"/people/{made.id}", f"{made.email} may log in. Tell them the first password.")


@router.get("/people/{admin_id}")
@allow_reading
def person(admin_id: UUID, request: Request, session: Reading, caller: Current, using: Own) -> Response:
    """One person, and where they are logged in, as far as the caller may know."""
    found = get_admin(admin_id, session, caller)
    sees_sessions = caller.actor is Actor.SUPER_ADMIN or caller.admin_id == admin_id
    asked = SessionQuery(limit=_ROWS, admin_id=admin_id)
    return page(
        request,
        "person.html",
        person=found,
        form=PERSON.view(request, found),
        sessions=list_sessions(asked, session, caller, using).items if sees_sessions else None,
        device=device,
    )


@router.post("/people/{admin_id}")
@allow_writing
@changes(get_admin)
def save_person(admin_id: UUID, sent: Sent, session: Writing, caller: Current) -> Response:
    """Change the address or the role."""
    saved = change_admin(admin_id, PERSON.changes(sent), session, caller)
    return done(f"/people/{admin_id}", f"{saved.email} is saved.")


@router.post("/people/{admin_id}/activate")
@allow_writing
def activate_person(admin_id: UUID, session: Writing, caller: Current) -> Response:
    """Let somebody log in again."""
    saved = change_admin(admin_id, {"is_active": True}, session, caller)
    return done(f"/people/{admin_id}", f"{saved.email} may log in again.")


@router.post("/people/{admin_id}/deactivate")
@allow_writing
def deactivate_person(admin_id: UUID, session: Writing, caller: Current) -> Response:
    """Keep somebody out, at once."""
    saved = change_admin(admin_id, {"is_active": False}, session, caller)
    return done(f"/people/{admin_id}", f"{saved.email} is out: sessions and tokens are refused at once.")


@router.post("/people/{admin_id}/delete")
@allow_writing
def remove_person(admin_id: UUID, session: Writing, caller: Current) -> Response:
    """Remove somebody; who has done anything stays in the log, and is deactivated."""
    if delete_admin(admin_id, session, caller).status_code == HTTPStatus.NO_CONTENT:
        return done("/people", "Removed.")
    return done(
        f"/people/{admin_id}", "They have a history, so they are deactivated instead of removed.", kind="warn"
    )


@router.post("/people/{admin_id}/sessions/{session_id}/end")
@allow_writing
def end_somebodys_session(admin_id: UUID, session_id: UUID, session: Writing, caller: Current) -> Response:
    """Log somebody out there."""
    end_session(session_id, session, caller)
    return done(f"/people/{admin_id}", "The session is over.")
