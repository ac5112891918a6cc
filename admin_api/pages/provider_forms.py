"""The form of a provider, to add one and to change one; it can be tried before it is saved."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter, Request, Response
from pydantic import SecretStr

from admin_api.pages.again import again_of
from admin_api.pages.controls import Kind, Tweak
from admin_api.pages.forms import Form, Group
from admin_api.pages.render import page
from admin_api.pages.route import PageRoute, Sent, SentForm, changes, done
from admin_api.probes import Verdict, stored_provider
from admin_api.providers import (
    Provider,
    ProviderBody,
    change_provider,
    create_provider,
    get_provider,
    tried,
)
from admin_api.security import Current, allow_writing
from admin_api.services import Services, Using
from admin_api.sessions import Reading, writing
from routing.providers import PROTOCOLS

router = APIRouter(route_class=PageRoute)

TRY = "try"
"""The name of the button that only tries what was typed."""

PROVIDER = Form(
    ProviderBody,
    Group("Account", "name", "slug", "type", "base_url", "api_key", "capabilities", "is_active"),
    Group("Access", "allow_shared_for_normal_admins", "allow_private_network"),
    Group(
        "Details", "display_name", "organization", "website", "description", "sort_order", is_advanced=True
    ),
    Group("Protocol", "api_version", "timeout_seconds", "settings", is_advanced=True),
    Group(
        "Limits",
        *("requests_per_minute", "tokens_per_minute", "max_concurrency"),
        *("daily_token_limit", "monthly_token_limit"),
        is_advanced=True,
    ),
    slug=Tweak(help="Its name in addresses and records: small letters, digits, - and _."),
    type=Tweak(
        label="Protocol",
        help="Most vendors and servers speak openai_compatible.",
        kind=Kind.CHOICE,
        choices=[(name, name.replace("_", " ")) for name in PROTOCOLS],
    ),
    base_url=Tweak(label="Address", help="As the vendor's own client has it.", placeholder="https://…"),
    api_key=Tweak(label="API key", help="Write-only: it is sealed at once, and never shown again."),
    capabilities=Tweak(help="What it can do at all; each model says for itself."),
    allow_shared_for_normal_admins=Tweak(
        label="Admins may use the shared key", help="Else they bring a key of their own."
    ),
    allow_private_network=Tweak(
        label="Allow a private network",
        help="The address may lead to this machine or a private network: for servers of your own.",
    ),
    timeout_seconds=Tweak(label="Timeout of a call, seconds"),
    settings=Tweak(help="What a vendor deviates in: auth_header, extra_query, max_tokens_field, …"),
)


@router.get("/providers/new")
@allow_writing
def new_provider(request: Request) -> Response:
    """The empty form."""
    return _page(request)


@router.post("/providers/new")
@allow_writing
def create(sent: Sent, request: Request, caller: Current, using: Using) -> Response:
    """Add the provider, or only try it."""
    body = PROVIDER.body(sent)
    if TRY in sent:  # no transaction is open while a provider thinks
        return _page(request, typed=sent, verdict=tried(using, body))
    with writing(using, request) as session:
        made = create_provider(body, session, caller, using)
    return done(f"/providers/{made.id}", f"{made.name} was added. Add the models that it shall serve.")


@router.get("/providers/{provider_id}/edit")
@allow_writing
def edit_provider(provider_id: UUID, request: Request, session: Reading) -> Response:
    """The form, filled."""
    return _page(request, get_provider(provider_id, session))


@router.post("/providers/{provider_id}/edit")
@allow_writing
@changes(get_provider)
def save(
    provider_id: UUID, sent: Sent, request: Request, session: Reading, caller: Current, using: Using
) -> Response:
    """Change the provider, or only try what was typed."""
    if TRY in sent:
        verdict = _tried(using, provider_id, PROVIDER.body(sent), sent)
        return _page(request, get_provider(provider_id, session), typed=sent, verdict=verdict)
    with writing(using, request) as session:
        changed = change_provider(provider_id, PROVIDER.changes(sent), session, caller, using)
    return done(f"/providers/{provider_id}", f"{changed.name} was saved. Jobs that start now see it.")


def _tried(using: Services, provider_id: UUID, body: ProviderBody, sent: SentForm) -> Verdict:
    """Without a typed key the stored one is tried, but at no other address than it was stored for."""
    if body.api_key is None and "api_key.remove" not in sent:
        stored, key = stored_provider(using, provider_id)
        if key is not None and stored.base_url != body.base_url:
            return Verdict(
                ok=False,
                status=None,
                latency_ms=0,
                message="Type the key to try another address: the stored one is not sent there unsaved.",
            )
        body = body.model_copy(update={"api_key": None if key is None else SecretStr(key)})
    return tried(using, body)


def _page(
    request: Request,
    stored: Provider | None = None,
    *,
    typed: SentForm | None = None,
    verdict: Verdict | None = None,
) -> Response:
    again = again_of(request)
    last4 = None if stored is None else stored.api_key_last4
    hint = "" if last4 is None else f"The stored one ends in {last4 or 'a few characters'}, and stays."
    return page(
        request,
        "provider_form.html",
        provider=stored,
        form=PROVIDER.view(request, stored, typed=typed, hints={"api_key": hint}),
        verdict=verdict,
        was_tried=again is not None and TRY in again.sent,
        must_type_key=typed is not None and bool(typed.get("api_key")),
    )
