"""Providers: how each is doing, its key, its models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.orm import Session

from admin_api import models
from admin_api.models import Model, ModelQuery, list_models
from admin_api.pages.again import again_of
from admin_api.pages.controls import Tweak
from admin_api.pages.forms import Form, Group
from admin_api.pages.rates import Rate, rate
from admin_api.pages.render import page
from admin_api.pages.route import PageRoute, Sent, done, shown_at
from admin_api.probes import Verdict
from admin_api.provider_health import ProviderHealth, get_provider_health, health_of
from admin_api.providers import (
    Provider,
    ProviderQuery,
    Rotation,
    change_provider,
    delete_provider,
    get_provider,
    list_providers,
    rotate_key,
    test_provider,
)
from admin_api.security import Current, allow_reading, allow_writing
from admin_api.services import Using
from admin_api.sessions import Reading, Writing

router = APIRouter(route_class=PageRoute)

_PAGE = 24
_MODELS = 25

Cursor = Annotated[str | None, Query(max_length=1000)]

ROTATION = Form(
    Rotation,
    Group("A new key", "api_key", "force"),
    api_key=Tweak(label="New key", help="Write-only: it is sealed at once, and never shown again."),
    force=Tweak(
        label="Store it even if it does not work",
        help="Jobs fail, or go to their backups, until the provider takes it.",
    ),
)


@dataclass(frozen=True, slots=True)
class Listed:
    """A provider in the list."""

    provider: Provider
    health: ProviderHealth
    models: int


@dataclass(frozen=True, slots=True)
class ListedModel:
    """A model of a provider, with its prices in force."""

    model: Model
    rate: Rate


@router.get("/providers")
@allow_reading
def show_providers(request: Request, session: Reading, using: Using, cursor: Cursor = None) -> Response:
    """All providers, by how they did in the last hour."""
    found = list_providers(ProviderQuery(limit=_PAGE, cursor=cursor), session)
    ids = [provider.id for provider in found.items]
    health, counts = health_of(using, ids), models.counts(session, ids)
    return page(
        request,
        "providers.html",
        providers=[Listed(each, health[each.id], counts.get(each.id, 0)) for each in found.items],
        cursor=cursor,
        older=found.next_cursor,
    )


@router.get("/providers/{provider_id}")
@allow_reading
def show_provider(
    provider_id: UUID, request: Request, session: Reading, using: Using, cursor: Cursor = None
) -> Response:
    """One provider with all that belongs to it."""
    return _shown(provider_id, request, session, using, cursor=cursor)


@router.post("/providers/{provider_id}")
@allow_writing
def try_provider(provider_id: UUID, request: Request, session: Reading, using: Using) -> Response:
    """Try the stored address and key, and tell what came of it on the provider's page."""
    return _shown(provider_id, request, session, using, verdict=test_provider(provider_id, using))


@router.post("/providers/{provider_id}/rotate")
@allow_writing
@shown_at("/providers/{provider_id}")
def rotate(provider_id: UUID, sent: Sent, caller: Current, using: Using, request: Request) -> Response:
    """Put a new key in the place of the old one, once it was tried."""
    rotated = rotate_key(provider_id, ROTATION.body(sent), caller, using, request)
    path = f"/providers/{provider_id}"
    if rotated.warning is not None:
        return done(path, rotated.warning, kind="warn")
    return done(path, f"The new key works and is in use. It ends in {rotated.api_key_last4}.")


@router.post("/providers/{provider_id}/activate")
@allow_writing
def activate(provider_id: UUID, session: Writing, caller: Current, using: Using) -> Response:
    """Let jobs use the provider."""
    found = change_provider(provider_id, {"is_active": True}, session, caller, using)
    return done(f"/providers/{provider_id}", f"{found.name} is active.")


@router.post("/providers/{provider_id}/deactivate")
@allow_writing
def deactivate(provider_id: UUID, session: Writing, caller: Current, using: Using) -> Response:
    """Keep jobs from the provider: they go to their backups."""
    found = change_provider(provider_id, {"is_active": False}, session, caller, using)
    undo = f"/providers/{provider_id}/activate"
    return done(f"/providers/{provider_id}", f"{found.name} is inactive: no job calls it.", undo=undo)


@router.post("/providers/{provider_id}/delete")
@allow_writing
@shown_at("/providers/{provider_id}")
def delete(provider_id: UUID, session: Writing, caller: Current) -> Response:
    """Remove the provider, if nothing needs it; the page tells what does."""
    name = get_provider(provider_id, session).name
    delete_provider(provider_id, session, caller)
    return done("/providers", f"{name} was deleted.")


def _shown(
    provider_id: UUID,
    request: Request,
    session: Session,
    using: Using,
    *,
    cursor: str | None = None,
    verdict: Verdict | None = None,
) -> Response:
    provider = get_provider(provider_id, session)
    found = list_models(ModelQuery(provider=provider.slug, limit=_MODELS, cursor=cursor), session)
    again = again_of(request)
    return page(
        request,
        "provider.html",
        provider=provider,
        health=get_provider_health(provider_id, using),
        models=_listed(found.items),
        older=found.next_cursor,
        verdict=verdict,
        rotation=ROTATION.view(request, action=f"/providers/{provider_id}/rotate"),
        refused=None if again is None else again.action.rpartition("/")[2],
    )


def _listed(found: Sequence[Model]) -> list[ListedModel]:
    return [ListedModel(model, rate(model)) for model in found]
