"""Integrations: webhooks, mail servers, Slack channels and buckets that events are sent to."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response

from admin_api.integrations import (
    IntegrationBody,
    IntegrationQuery,
    change_integration,
    create_integration,
    delete_integration,
    get_integration,
    integration_health,
    list_integrations,
    test_integration,
)
from admin_api.pages.controls import Tweak
from admin_api.pages.forms import Form, Group
from admin_api.pages.render import page
from admin_api.pages.route import PageRoute, Sent, changes, done, safe_path
from admin_api.security import Current, allow_reading, allow_writing
from admin_api.services import Using
from admin_api.sessions import Reading, Writing

router = APIRouter(route_class=PageRoute)

PATH = "/integrations"

_AT_ONCE = 25

INTEGRATION = Form(
    IntegrationBody,
    Group("Where to", "name", "type", "endpoint", "credentials", "is_active", "is_default"),
    Group("Settings", "settings"),
    Group("Labels", "category", "provider_name", is_advanced=True),
    type=Tweak(help="What is at the other side."),
    endpoint=Tweak(
        placeholder="https://hooks.example.com/orrery",
        help="webhook, slack: https://. email: smtp://host:587 or smtps://host:465. s3: its service; empty: "
        "AWS. It is shown: Slack's address, a secret, is better a credential, webhook_url.",
    ),
    credentials=Tweak(
        placeholder="secret = …",
        help="One `name = value` a line, sealed and never shown. webhook: secret. email: username, password. "
        "slack: webhook_url. s3: access_key_id, secret_access_key.",
    ),
    settings=Tweak(
        help="Shown in the clear. All: allow_private_network, verify_tls. email: from, to. slack: channel. "
        "s3: bucket, region, prefix.",
    ),
    is_default=Tweak(help="One of each type is."),
)


@router.get(PATH)
@allow_reading
def show_integrations(
    query: Annotated[IntegrationQuery, Query()], request: Request, session: Reading
) -> Response:
    found = list_integrations(query.model_copy(update={"limit": _AT_ONCE}), session)
    return page(
        request,
        "integrations.html",
        integrations=[(each, integration_health(each.id, session)) for each in found.items],
        first=PATH if query.cursor else "",
        further=f"{PATH}?cursor={found.next_cursor}" if found.next_cursor else "",
    )


@router.get(f"{PATH}/new")
@allow_writing
def new_integration(request: Request) -> Response:
    return page(
        request,
        "form.html",
        title="New integration",
        lead="Alerts and events are sent there. Test it once it is saved.",
        crumbs=[("Integrations", PATH)],
        form=INTEGRATION.view(request, given={"type": "webhook"}),
        submit="Save integration",
        cancel=PATH,
    )


@router.post(f"{PATH}/new")
@allow_writing
def add_integration(sent: Sent, session: Writing, caller: Current, using: Using) -> Response:
    made = create_integration(INTEGRATION.body(sent), session, caller, using)
    return done(f"{PATH}/{made.id}/edit", f"{made.name} is there. Send a test, to see it arrive.")


@router.get(PATH + "/{integration_id}/edit")
@allow_writing
def edit_integration(integration_id: UUID, request: Request, session: Reading) -> Response:
    stored = get_integration(integration_id, session)
    known = ", ".join(stored.credential_names)
    return page(
        request,
        "integration.html",
        integration=stored,
        health=integration_health(integration_id, session),
        form=INTEGRATION.view(request, stored, hints={"credentials": f"Stored: {known}." if known else ""}),
    )


@router.post(PATH + "/{integration_id}/edit")
@allow_writing
@changes(get_integration)
def save_integration(
    integration_id: UUID, sent: Sent, session: Writing, caller: Current, using: Using
) -> Response:
    change_integration(integration_id, INTEGRATION.changes(sent), session, caller, using)
    return done(f"{PATH}/{integration_id}/edit", "Integration saved.")


@router.post(PATH + "/{integration_id}/test")
@allow_writing
def send_test(integration_id: UUID, sent: Sent, using: Using) -> Response:
    """Really send a test event; the page that asked tells what came of it."""
    result = test_integration(integration_id, using)
    said = f"It arrived, after {result.latency_ms} ms." if result.ok else "It did not arrive."
    path = safe_path(sent.get("back"), otherwise=PATH)
    return done(path, f"{said} {result.detail}", kind="good" if result.ok else "bad")


@router.post(PATH + "/{integration_id}/delete")
@allow_writing
def remove_integration(integration_id: UUID, session: Writing) -> Response:
    name = get_integration(integration_id, session).name
    delete_integration(integration_id, session)
    return done(PATH, f"{name} is deleted. Nothing is sent there any more.")
