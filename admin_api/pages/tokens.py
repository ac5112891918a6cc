"""Tokens of applications: made here, shown once, revoked."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.orm import Session

from admin_api.features import FeatureQuery, list_features
from admin_api.pages.controls import Choice, Kind, Tweak
from admin_api.pages.forms import Form, Group
from admin_api.pages.render import page
from admin_api.pages.route import PageRoute, Sent, done
from admin_api.people import PersonQuery, list_admins
from admin_api.security import Current, Principal, Scope, allow_reading, allow_writing
from admin_api.sessions import Reading, Writing
from admin_api.token_routes import TokenBody, TokenQuery, create_token, list_tokens, revoke_token

router = APIRouter(route_class=PageRoute)

_ROWS = 25
_OWNERS = 200
_SCOPES: Sequence[Choice] = (
    (Scope.ENQUEUE, "Enqueue jobs"),
    (Scope.READ, "Read its own jobs"),
    (Scope.METRICS, "Read metrics"),
)

TOKEN = Form(
    TokenBody,
    Group("Token", "name", "owner_admin_id", "scopes", "expires_at"),
    name=Tweak(help="What you tell it apart by: the application that holds it.", placeholder="web shop"),
    owner_admin_id=Tweak(
        label="Owner",
        kind=Kind.CHOICE,
        help="Whose access and personal keys its jobs have. None: the application's own, with shared keys.",
    ),
    scopes=Tweak(choices=_SCOPES),
    expires_at=Tweak(label="Expires at (UTC)", help="Empty: it does not expire."),
)

Cursor = Annotated[str | None, Query(max_length=1000)]


@router.get("/tokens")
@allow_reading
def tokens(request: Request, session: Reading, cursor: Cursor = None) -> Response:
    """All tokens, the oldest first."""
    found = list_tokens(TokenQuery(limit=_ROWS, cursor=cursor), session)
    return page(
        request, "tokens.html", tokens=found.items, next_cursor=found.next_cursor, is_first=cursor is None
    )


@router.get("/tokens/new")
@allow_writing
def new_token(request: Request, session: Reading, caller: Current) -> Response:
    """The form that makes one."""
    return page(
        request,
        "form.html",
        title="New token",
        lead="It is shown once, on the next page.",
        crumbs=[("Tokens", "/tokens")],
        form=TOKEN.view(request, choices={"owner_admin_id": _owners(session, caller)}),
        submit="Make token",
        cancel="/tokens",
    )


@router.post("/tokens/new")
@allow_writing
def make_token(request: Request, sent: Sent, session: Writing, caller: Current) -> Response:
    """Make one, and show it. The answer is the only place where it ever stands.

    It says `/tokens` is where it is, so that loading it again makes no second one.
    """
    made = create_token(TOKEN.body(sent), session, caller)
    return page(
        request,
        "token_made.html",
        made=made,
        example=_example(request, session, made.scopes),
        here="/tokens",
    )


@router.post("/tokens/{token_id}/revoke")
@allow_writing
def end_token(token_id: UUID, session: Writing) -> Response:
    """Refuse it from now on."""
    revoke_token(token_id, session)
    return done("/tokens", "The token is refused from now on.")


def _owners(session: Session, caller: Principal) -> list[Choice]:
    found = list_admins(PersonQuery(limit=_OWNERS, is_active=True), session, caller)
    return [(str(person.id), person.email) for person in found.items]


def _example(request: Request, session: Session, scopes: Sequence[str]) -> str:
    """A first call with the token, for a shell."""
    base = str(request.base_url).rstrip("/")
    bearer = '-H "Authorization: Bearer $ORRERY_TOKEN"'
    features = list_features(FeatureQuery(limit=1, is_active=True), session).items
    if Scope.ENQUEUE in scopes and features:
        body = {"feature": features[0].name, "input": features[0].input_schema.get("example", {})}
        sent = shlex.quote(json.dumps(body, ensure_ascii=False))
        return f'curl {base}/api/v1/jobs {bearer} \\\n  -H "Content-Type: application/json" -d {sent}'
    path = "/api/v1/jobs" if Scope.READ in scopes else "/metrics"
    return f"curl {base}{path} {bearer}"
