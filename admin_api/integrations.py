"""Integrations: webhooks, mail servers, Slack channels and buckets that events are sent to."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, ClassVar
from uuid import UUID

import psycopg
from fastapi import APIRouter, Body, Query, status
from psycopg.rows import dict_row
from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from admin_api import fields
from admin_api.etags import tagged
from admin_api.fields import Label, Stamps
from admin_api.integration_checks import Type, check_addresses, check_settings, checked_endpoint
from admin_api.pagination import Page, PageQuery, page_of
from admin_api.refusals import Invalid, NotFound
from admin_api.security import Current, GuardedRoute, allow_reading, allow_writing
from admin_api.services import Services, Using
from admin_api.sessions import Reading, Writing
from store.database import Role, conninfo
from store.ids import new_id
from store.tables import IntegrationHealth, SystemIntegration
from store.vault import Vault
from workers.delivery import DeliveryError, Event, deliver
from workers.delivery.stored import note_health, stored

router = APIRouter(prefix="/integrations", tags=["integrations"], route_class=GuardedRoute)

_ENDPOINT = """Where it leads. webhook, slack: http(s)://. email: smtp://host[:587] with STARTTLS, or
smtps://host[:465]. s3: http(s):// of the service; absent: AWS, in settings.region. It is shown: Slack's
address, which is a secret, is better kept as credentials.webhook_url."""

_CREDENTIALS = """Write-only. Absent: the stored ones stay, in a PUT too. Null: they are removed. webhook:
`secret`, which signs each POST (header Orrery-Signature: `t=<Unix seconds>,v1=<HMAC-SHA256 of t.body>`).
email: `username`, `password`. slack: `webhook_url`. s3: `access_key_id`, `secret_access_key`,
`session_token`."""

_SETTINGS = """Shown in the clear. All: `allow_private_network` (whether it may lead to a loopback or private
address), `verify_tls`. email: `from`, `to` (one address or several), `require_tls`. slack: `channel`. s3:
`bucket`, `region`, `prefix`, `virtual_hosted` (the endpoint's host names the bucket)."""

_Name = Annotated[str, StringConstraints(pattern=fields.WORD, max_length=64)]
_Secret = Annotated[SecretStr, Field(min_length=1, max_length=10_000)]


def _prose(text: str) -> str:
    return " ".join(text.split())


class IntegrationBody(fields.Body):
    """An integration as clients send it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "ops webhook",
                    "type": "webhook",
                    "endpoint": "https://hooks.example.com/orrery",
                    "credentials": {"secret": "whsec-of-your-own"},
                }
            ]
        }
    )
    READ_ONLY: ClassVar[frozenset[str]] = fields.Body.READ_ONLY | {"credential_names"}

    name: Label
    type: Type
    category: Label | None = None
    provider_name: Label | None = None
    endpoint: Annotated[
        Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000)] | None,
        Field(description=_prose(_ENDPOINT)),
    ] = None
    credentials: Annotated[
        Annotated[dict[_Name, _Secret], Field(max_length=16)] | None,
        Field(description=_prose(_CREDENTIALS)),
    ] = None
    settings: Annotated[fields.JsonObject, Field(description=_prose(_SETTINGS))] = Field(default_factory=dict)
    is_default: Annotated[
        bool, Field(description="One of each type is: setting it takes it from the one before.")
    ] = False
    is_active: bool = True


class Integration(Stamps):
    """An integration as the API shows it: of its credentials only the names."""

    name: str
    type: str
    category: str | None
    provider_name: str | None
    endpoint: str | None
    credential_names: list[str]
    settings: fields.JsonObject
    is_default: bool
    is_active: bool


class Health(BaseModel):
    """How the last test went; all null where there was none."""

    last_test_at: datetime | None = None
    last_ok: bool | None = None
    last_latency_ms: int | None = None
    last_error: str | None = None


class TestResult(BaseModel):
    """What a test came to. `latency_ms` of the whole exchange."""

    __test__: ClassVar[bool] = False  # pytest: this is no test

    ok: bool
    latency_ms: int
    detail: str


class IntegrationQuery(PageQuery):
    type: Type | None = None
    is_active: bool | None = None


Changes = Annotated[fields.JsonObject, Body(description="The members to replace, each as a whole.")]


@router.get("")
@allow_reading
def list_integrations(query: Annotated[IntegrationQuery, Query()], session: Reading) -> Page[Integration]:
    """Integrations, oldest first."""
    wanted = select(SystemIntegration)
    if query.type is not None:
        wanted = wanted.where(SystemIntegration.type == query.type)
    if query.is_active is not None:
        wanted = wanted.where(SystemIntegration.is_active == query.is_active)
    rows, cursor = page_of(session, wanted, query, by=[SystemIntegration.id])
    return Page(items=[fields.shown(Integration, row) for row in rows], next_cursor=cursor)


@router.post("", status_code=status.HTTP_201_CREATED)
@allow_writing
def create_integration(body: IntegrationBody, session: Writing, caller: Current, using: Using) -> Integration:
    """Add an integration. Its credentials are sealed before they are stored."""
    row = SystemIntegration(
        id=new_id(), credentials_version=0, credential_names=[], created_by=caller.admin_id
    )
    return _written(session, row, body, caller.admin_id, using.vault)


@router.get("/{integration_id}")
@allow_reading
@tagged
def get_integration(integration_id: UUID, session: Reading) -> Integration:
    """One integration."""
    return fields.shown(Integration, _found(session, integration_id))


@router.put("/{integration_id}")
@allow_writing
def replace_integration(
    integration_id: UUID, body: IntegrationBody, session: Writing, caller: Current, using: Using
) -> Integration:
    """Replace an integration; what is absent gets its default, but absent credentials stay."""
    return _written(session, _found(session, integration_id), body, caller.admin_id, using.vault)


@router.patch("/{integration_id}", openapi_extra=fields.patch_of(IntegrationBody))
@allow_writing
def change_integration(
    integration_id: UUID, changes: Changes, session: Writing, caller: Current, using: Using
) -> Integration:
    """Change some members of an integration."""
    row = _found(session, integration_id)
    body = fields.merged(fields.stored(IntegrationBody, row), changes)
    return _written(session, row, body, caller.admin_id, using.vault)


@router.delete("/{integration_id}", status_code=status.HTTP_204_NO_CONTENT)
@allow_writing
def delete_integration(integration_id: UUID, session: Writing) -> None:
    """Remove an integration."""
    session.delete(_found(session, integration_id))


@router.get("/{integration_id}/health")
@allow_reading
def integration_health(integration_id: UUID, session: Reading) -> Health:
    """How the integration's last test went."""
    _found(session, integration_id)
    row = session.get(IntegrationHealth, integration_id)
    return Health() if row is None else fields.shown(Health, row)


@router.post("/{integration_id}/test")
@allow_writing
def test_integration(integration_id: UUID, using: Using) -> TestResult:
    """Really send a test event, within 10 seconds. A refusal by the other side is a 200 with `ok` false.

    webhook: a signed POST. slack: a message. email: a mail to settings.to. s3: a small object is written,
    read and removed. Also tries what is inactive.
    """
    with _worker(using) as db:
        integration = stored(db, using.vault, integration_id)
    if integration is None:
        raise _missing(integration_id)
    event = Event("integration.test", f"A test of the integration {integration.name!r}.")
    began = time.monotonic()
    try:
        delivered = deliver(using.transport, integration, event)
        result = TestResult(ok=True, latency_ms=delivered.latency_ms, detail=delivered.detail)
    except DeliveryError as error:
        took = round((time.monotonic() - began) * 1000)
        result = TestResult(ok=False, latency_ms=took, detail=str(error))
    with _worker(using) as db:
        note_health(
            db,
            integration_id,
            ok=result.ok,
            latency_ms=result.latency_ms,
            error=None if result.ok else result.detail,
        )
    return result


def _worker(using: Services) -> psycopg.Connection[psycopg.rows.DictRow]:
    """The API's role cannot read credentials, by column grant; only here, where an administrator asks for a
    try with the stored ones, a connection of the worker's role is opened, for this one row."""
    target = conninfo(using.settings.database(), Role.WORKER, application="orrery api test")
    return psycopg.connect(target, autocommit=True, row_factory=dict_row)


def _found(session: Session, integration_id: UUID) -> SystemIntegration:
    row = session.get(SystemIntegration, integration_id)
    if row is None:
        raise _missing(integration_id)
    return row


def _missing(integration_id: UUID) -> NotFound:
    return NotFound(f"There is no integration {integration_id}.", hint="GET /integrations lists them.")


def _written(
    session: Session, row: SystemIntegration, body: IntegrationBody, admin_id: UUID | None, vault: Vault
) -> Integration:
    given = "credentials" in body.model_fields_set
    if not given and row.credential_names and row.type != body.type:
        raise Invalid(
            "The stored credentials belong to the type before. Give new ones, or remove them.",
            field="credentials",
            hint="Null removes them.",
        )
    names = set(body.credentials or ()) if given else set(row.credential_names)
    body.endpoint = checked_endpoint(body.type, body.endpoint, names)
    check_addresses(body.credentials or {})
    check_settings(body.settings)
    if body.is_default:
        session.execute(
            update(SystemIntegration)
            .where(
                SystemIntegration.type == body.type,
                SystemIntegration.is_default,
                SystemIntegration.id != row.id,
            )
            .values(is_default=False, updated_by=admin_id)
        )
    for name in IntegrationBody.model_fields.keys() - {"credentials"}:
        setattr(row, name, getattr(body, name))
    if given:
        _store_credentials(row, body.credentials, vault)
    row.updated_by = admin_id
    session.add(row)
    session.flush()
    return fields.shown(Integration, row)


def _store_credentials(
    row: SystemIntegration, credentials: Mapping[str, SecretStr] | None, vault: Vault
) -> None:
    """`credentials_version` counts on even when they are removed: no two ever share a seal's binding."""
    row.credential_names = sorted(credentials or ())
    if not credentials:
        row.sealed_credentials = None
        return
    row.credentials_version += 1
    clear = json.dumps({name: secret.get_secret_value() for name, secret in credentials.items()})
    row.sealed_credentials = vault.seal(
        clear,
        table="system_integrations",
        row=str(row.id),
        field="credentials",
        version=row.credentials_version,
    ).blob
