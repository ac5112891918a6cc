"""One's own key for a provider: stored, changed, removed. It is never shown."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter, Request, Response
from sqlalchemy.orm import Session

from admin_api.pages.controls import Tweak
from admin_api.pages.forms import Form, Group
from admin_api.pages.render import page
from admin_api.pages.route import PageRoute, Sent, changes, done
from admin_api.personal_keys import (
    PersonalKey,
    PersonalKeyBody,
    allow_own,
    delete_personal_key,
    get_personal_key,
    put_personal_key,
)
from admin_api.providers import get_provider
from admin_api.refusals import NotFound
from admin_api.security import Current, Principal, allow_reading
from admin_api.services import Using
from admin_api.sessions import Reading, Writing

router = APIRouter(route_class=PageRoute)

KEY = Form(
    PersonalKeyBody,
    Group("Key", "api_key", "monthly_limit", "is_active", "use_shared_api"),
    api_key=Tweak(
        label="API key",
        help="Sealed before it is stored, and never shown again. Empty: the stored one stays.",
    ),
    monthly_limit=Tweak(
        label="Monthly limit (tokens)",
        help="Input and output, that your jobs may spend with it in a calendar month (UTC). Empty: no limit.",
    ),
    is_active=Tweak(label="Use this key", help="Off: as if there were no key."),
    use_shared_api=Tweak(
        label="Prefer the shared key", help="Where you may use it. Your own is then used where you may not."
    ),
)


@router.get("/account/keys/{provider_id}")
@allow_reading
def own_key(provider_id: UUID, request: Request, session: Reading, caller: Current) -> Response:
    """The form for a key of the caller's own."""
    provider = get_provider(provider_id, session)
    stored = _stored(session, caller, provider_id)
    return page(
        request,
        "own_key.html",
        provider=provider,
        stored=stored,
        form=KEY.view(request, stored, given={"is_active": True}),
    )


@router.post("/account/keys/{provider_id}")
@allow_own
@changes(get_personal_key)
def save_own_key(provider_id: UUID, sent: Sent, session: Writing, caller: Current, using: Using) -> Response:
    """Store the key, or change how it is used."""
    saved = put_personal_key(provider_id, KEY.body(sent), session, caller, using)
    return done("/account", f"Your key for {saved.provider} is saved.")


@router.post("/account/keys/{provider_id}/remove")
@allow_own
def remove_own_key(provider_id: UUID, session: Writing, caller: Current) -> Response:
    """Do without the key from now on."""
    delete_personal_key(provider_id, session, caller)
    return done("/account", "Your key is removed.")


def _stored(session: Session, caller: Principal, provider_id: UUID) -> PersonalKey | None:
    try:
        return get_personal_key(provider_id, session, caller)
    except NotFound:
        return None
