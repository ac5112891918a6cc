"""Providers: accounts at vendors, and servers of one's own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar
from urllib.parse import urlsplit
from uuid import UUID

from fastapi import APIRouter, Body, Query, Request, Response, status
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, StringConstraints
from sqlalchemy import select
from sqlalchemy.orm import Session

from admin_api import fields
from admin_api.breakage import breaks_nothing
from admin_api.etags import tagged
from admin_api.fields import Label, Positive32, Positive64, Prose, Seconds, Stamps, Whole32
from admin_api.keys import ApiKey, last4
from admin_api.pagination import Page, PageQuery, page_of
from admin_api.probes import Verdict, probed, stored_provider
from admin_api.refusals import Conflict, Invalid, NotFound, pointer
from admin_api.security import Current, GuardedRoute, allow_reading, allow_writing
from admin_api.services import Services, Using
from admin_api.serving import provider_of
from admin_api.sessions import Reading, Writing, writing
from admin_api.uses import REMOVED, Deactivate, refuse_if_used
from routing import values
from routing.providers import ALIASES, PROTOCOLS
from store.audit import Event, record
from store.ids import new_id
from store.tables import AIModel, AIProvider
from store.vault import Vault

router = APIRouter(prefix="/providers", tags=["providers"], route_class=GuardedRoute)

_LIMIT = "For all workers together; a job that meets it takes the next route, or waits without a thread."
_NOT_ENFORCED = "Kept for later: workers do not enforce it in this release."


def _base_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not re.fullmatch(r"[\x21-\x7e]+", text):
        raise ValueError("This must be an absolute http:// or https:// address.")
    if "@" in parts.netloc:
        raise ValueError("The address must not hold a user or password. Store the key as api_key.")
    if "?" in text or "#" in text:
        raise ValueError("The address must not hold a query or fragment. Use settings.extra_query.")
    return text.rstrip("/")


def _protocol(name: str) -> str:
    protocol = ALIASES.get(name, name)
    if protocol not in PROTOCOLS:
        raise ValueError(f"There is no adapter for {name!r}. Available: {', '.join(sorted(PROTOCOLS))}.")
    return protocol


class ProviderBody(fields.Body):
    """A provider as clients send it."""

    READ_ONLY: ClassVar[frozenset[str]] = fields.Body.READ_ONLY | {"api_key_last4", "key_version"}

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "slug": "openai",
                    "name": "OpenAI",
                    "type": "openai_compatible",
                    "base_url": "https://api.openai.com/v1",
                    "api_key": "sk-...",
                }
            ]
        }
    )

    slug: Annotated[str, StringConstraints(pattern=fields.SLUG, max_length=64)]
    name: Label
    display_name: Label | None = None
    type: Annotated[
        str,
        StringConstraints(max_length=64),
        AfterValidator(_protocol),
        Field(description=f"Wire protocol: {', '.join(PROTOCOLS)}. Also known: {', '.join(ALIASES)}."),
    ]
    organization: Label | None = None
    base_url: Annotated[
        str, StringConstraints(max_length=2000, strip_whitespace=True), AfterValidator(_base_url)
    ]
    api_version: Label | None = None
    api_key: Annotated[
        ApiKey | None,
        Field(description="Write-only. Absent: the stored key stays, in a PUT too. Null: it is removed."),
    ] = None
    capabilities: fields.Capabilities = Field(default_factory=list)
    settings: fields.JsonObject = Field(default_factory=dict)
    requests_per_minute: Annotated[Positive32 | None, Field(description=_LIMIT)] = None
    tokens_per_minute: Annotated[
        Positive32 | None, Field(description=f"Input and output together. {_LIMIT}")
    ] = None
    max_concurrency: Annotated[Positive32 | None, Field(description=f"Calls at a time. {_LIMIT}")] = None
    daily_token_limit: Annotated[Positive64 | None, Field(description=_NOT_ENFORCED)] = None
    monthly_token_limit: Annotated[Positive64 | None, Field(description=_NOT_ENFORCED)] = None
    allow_shared_for_normal_admins: bool = True
    allow_private_network: Annotated[
        bool, Field(description="Whether base_url may lead to a loopback or private address.")
    ] = False
    timeout_seconds: Seconds | None = None
    is_active: bool = True
    sort_order: Whole32 = 0
    website: Annotated[str, StringConstraints(max_length=2000)] | None = None
    description: Prose | None = None


class Provider(Stamps):
    """A provider as the API shows it: of its key only the last four characters."""

    slug: str
    name: str
    display_name: str | None
    type: str
    organization: str | None
    base_url: str
    api_version: str | None
    api_key_last4: str | None
    key_version: int
    capabilities: list[str]
    settings: fields.JsonObject
    requests_per_minute: int | None
    tokens_per_minute: int | None
    max_concurrency: int | None
    daily_token_limit: int | None
    monthly_token_limit: int | None
    allow_shared_for_normal_admins: bool
    allow_private_network: bool
    timeout_seconds: float | None
    is_active: bool
    sort_order: int
    website: str | None
    description: str | None


class ProviderQuery(PageQuery):
    is_active: bool | None = None


Changes = Annotated[fields.JsonObject, Body(description="The members to replace, each as a whole.")]


@router.get("")
@allow_reading
def list_providers(query: Annotated[ProviderQuery, Query()], session: Reading) -> Page[Provider]:
    """Providers by sort_order."""
    wanted = select(AIProvider)
    if query.is_active is not None:
        wanted = wanted.where(AIProvider.is_active == query.is_active)
    rows, cursor = page_of(session, wanted, query, by=[AIProvider.sort_order, AIProvider.id])
    return Page(items=[shown(row) for row in rows], next_cursor=cursor)


@router.post("", status_code=status.HTTP_201_CREATED)
@allow_writing
def create_provider(body: ProviderBody, session: Writing, caller: Current, using: Using) -> Provider:
    """Add a provider. Its key is sealed before it is stored."""
    row = AIProvider(id=new_id(), key_version=0, created_by=caller.admin_id)
    session.add(row)
    return written(session, row, body, caller.admin_id, using.vault)


@router.get("/{provider_id}")
@allow_reading
@tagged
def get_provider(provider_id: UUID, session: Reading) -> Provider:
    """One provider."""
    return shown(_found(session, provider_id))


@router.put("/{provider_id}")
@allow_writing
def replace_provider(
    provider_id: UUID, body: ProviderBody, session: Writing, caller: Current, using: Using
) -> Provider:
    """Replace a provider; what is absent gets its default, but an absent api_key stays."""
    return written(session, _found(session, provider_id), body, caller.admin_id, using.vault)


@router.patch("/{provider_id}", openapi_extra=fields.patch_of(ProviderBody))
@allow_writing
def change_provider(
    provider_id: UUID, changes: Changes, session: Writing, caller: Current, using: Using
) -> Provider:
    """Change some members of a provider."""
    row = _found(session, provider_id)
    body = fields.merged(fields.stored(ProviderBody, row), changes)
    return written(session, row, body, caller.admin_id, using.vault)


@router.delete("/{provider_id}", response_model=Provider, responses=REMOVED)
@allow_writing
def delete_provider(
    provider_id: UUID, session: Writing, caller: Current, deactivate: Deactivate = False
) -> Provider | Response:
    """Remove a provider that has no models. One that assignments use answers 409 and names them."""
    row = _found(session, provider_id)
    if deactivate:
        row.is_active, row.updated_by = False, caller.admin_id
        session.flush()
        return shown(row)
    refuse_if_used(session, f"Provider {row.slug!r}", AIModel.provider_id == row.id)
    models = session.scalars(
        select(AIModel.model_id).where(AIModel.provider_id == row.id).order_by(AIModel.model_id)
    ).all()
    if models:
        raise Conflict(
            f"Provider {row.slug!r} is in use by its models: {', '.join(models)}. Delete them first, or "
            "deactivate the provider instead.",
            hint="?deactivate=true does that.",
        )
    session.delete(row)
    return Response(status_code=status.HTTP_204_NO_CONTENT)


@router.post("/test")
@allow_writing
def test_unsaved_provider(body: ProviderBody, using: Using) -> Verdict:
    """Try a provider's address and key without storing anything, by asking for its models."""
    return tried(using, body)


def tried(using: Services, body: ProviderBody) -> Verdict:
    """What trying the body's address and key comes to. Raises Invalid for settings that hold keys."""
    _check_headers(body.settings)
    unsaved = values.Provider(
        id=new_id(),
        slug=body.slug,
        protocol=body.type,
        base_url=body.base_url,
        api_version=body.api_version,
        organization=body.organization,
        settings=body.settings,
        sealed_key=None,
        key_version=0,
        allow_shared_for_normal_admins=body.allow_shared_for_normal_admins,
        allow_private_network=body.allow_private_network,
        timeout_seconds=body.timeout_seconds,
        is_active=body.is_active,
    )
    return probed(using.transport, unsaved, body.api_key.get_secret_value() if body.api_key else None)


@router.post("/{provider_id}/test")
@allow_writing
def test_provider(provider_id: UUID, using: Using) -> Verdict:
    """Try a stored provider's address and key. A refusal by the provider is a 200 with `ok` false."""
    provider, key = stored_provider(using, provider_id)
    return probed(using.transport, provider, key)


class Rotation(BaseModel):
    """A new key for a stored provider."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"api_key": "sk-..."}]})

    api_key: Annotated[ApiKey, Field(description="Write-only.")]
    force: Annotated[
        bool, Field(description="Store it even where the provider does not take it, or does not answer.")
    ] = False


class Rotated(Provider):
    """The provider, and what trying the new key came to. `warning`: it was stored in spite of that."""

    test: Verdict
    warning: str | None


@router.post("/{provider_id}/rotate-key")
@allow_writing
def rotate_key(provider_id: UUID, body: Rotation, caller: Current, using: Using, request: Request) -> Rotated:
    """Try a new key, and if the provider takes it, seal it in the place of the old one.

    Calls under way end with the key they began with; jobs that start from now on use the new one. Where the
    new key does not work the old one stays, and the answer is a 422.
    """
    with Session(using.engine) as session:
        before = provider_of(_found(session, provider_id))
    # Not under the writers' lock: a slow provider must not keep everybody from writing.
    verdict = probed(using.transport, before, body.api_key.get_secret_value())
    if not verdict.ok and not body.force:
        raise Invalid(
            f"The new key was tried and does not work: {verdict.message} The old key stays.",
            field="api_key",
            hint="Send force: true to store it all the same.",
        )
    with writing(using, request) as session:
        row = _found(session, provider_id)
        if replace(provider_of(row), is_active=before.is_active) != before:
            raise Conflict(f"Provider {row.slug!r} was changed while the key was tried. Try again.")
        _store_key(row, body.api_key, using.vault)
        row.updated_by = caller.admin_id
        session.flush()
        record(
            session,
            Event(
                "rotate-key",
                "providers",
                row.id,
                before={"key_version": before.key_version},
                after={"key_version": row.key_version, "worked": verdict.ok},
            ),
        )
        warning = None if verdict.ok else f"Stored although trying it failed: {verdict.message}"
        return fields.shown(Rotated, row, api_key_last4=row.key_last4, test=verdict, warning=warning)


def _found(session: Session, provider_id: UUID) -> AIProvider:
    row = session.get(AIProvider, provider_id)
    if row is None:
        raise NotFound(f"There is no provider {provider_id}.")
    return row


def written(
    session: Session, row: AIProvider, body: ProviderBody, admin_id: UUID | None, vault: Vault
) -> Provider:
    """Make the row what the body says. Raises Invalid; Conflict where assignments would break."""
    if body.settings != row.settings:
        _check_headers(body.settings)
    changed = "settings" if body.type == row.type else "type"
    with breaks_nothing(session, AIModel.provider_id == row.id, field=changed):
        for name in ProviderBody.model_fields.keys() - {"api_key"}:
            setattr(row, name, getattr(body, name))
        if "api_key" in body.model_fields_set:
            _store_key(row, body.api_key, vault)
        row.updated_by = admin_id
    return shown(row)


_KEY_HEADER = re.compile(
    r"(^|[-_])(authorization|cookie|token|password|secret|credentials?|api[-_]?key"
    r"|(auth|access|subscription|functions|license)[-_]key)([-_]|$)|^(x[-_])?key$",
    re.IGNORECASE,
)


def _check_headers(settings: Mapping[str, Any]) -> None:
    """Refuse headers that carry keys: settings are stored, shown and exported in the clear."""
    headers = settings.get("extra_headers")
    for name in headers if isinstance(headers, dict) else ():
        if _KEY_HEADER.search(name):
            raise Invalid(
                f"The header {name!r} carries a key, but settings are kept and shown in the clear. Give the "
                "key as api_key, which is sealed, and the header's name as settings.auth_header (`api-key`, "
                "say, or `Authorization: Bearer`).",
                field=pointer(["settings", "extra_headers", name]),
            )


def _store_key(row: AIProvider, key: SecretStr | None, vault: Vault) -> None:
    """`key_version` counts on even when a key is removed: no two keys ever share a seal's binding."""
    if key is None:
        row.sealed_key, row.key_last4 = None, None
        return
    clear = key.get_secret_value()
    row.key_version += 1
    sealed = vault.seal(
        clear, table="ai_providers", row=str(row.id), field="api_key", version=row.key_version
    )
    row.sealed_key = sealed.blob
    row.key_last4 = last4(clear)


def shown(row: AIProvider) -> Provider:
    """The row as clients see it."""
    return fields.shown(Provider, row, api_key_last4=row.key_last4)
