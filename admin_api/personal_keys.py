"""Personal keys: an admin's own key for a provider. Nobody sees or changes another's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, TypeVar
from uuid import UUID

from fastapi import APIRouter, Query, status
from pydantic import ConfigDict, Field, SecretStr
from sqlalchemy import select, text
from sqlalchemy.orm import Session, joinedload

from admin_api import fields
from admin_api.etags import tagged
from admin_api.fields import Positive64, Stamps
from admin_api.keys import ApiKey, last4
from admin_api.pagination import Page, PageQuery, page_of
from admin_api.refusals import Invalid, NotFound
from admin_api.security import Actor, Current, GuardedRoute, allow, allow_reading
from admin_api.services import Using
from admin_api.sessions import Reading, Writing
from store.ids import new_id
from store.tables import AdminProviderSetting, AIProvider
from store.vault import Vault

router = APIRouter(prefix="/personal-keys", tags=["personal-keys"], route_class=GuardedRoute)

K = TypeVar("K", bound="PersonalKey")
allow_own = allow(Actor.SUPER_ADMIN, Actor.ADMIN, mfa=True)


class PersonalKeyBody(fields.Body):
    """A personal key as its owner sends it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"api_key": "sk-of-my-own", "use_shared_api": False, "monthly_limit": 1_000_000}]
        }
    )
    READ_ONLY: ClassVar[frozenset[str]] = fields.Body.READ_ONLY | {
        "provider_id",
        "provider",
        "api_key_last4",
        "key_version",
        "tokens_this_month",
    }

    api_key: Annotated[
        ApiKey | None,
        Field(description="Write-only. Absent or null: the stored key stays. DELETE removes it."),
    ] = None
    use_shared_api: Annotated[
        bool, Field(description="Whether the provider's shared key comes first, where you may use it.")
    ] = False
    monthly_limit: Annotated[
        Positive64 | None,
        Field(
            description="Tokens, input and output, that your jobs may spend with this key in a calendar "
            "month (UTC). Beyond it they fail with class `budget`, or go to another provider that is "
            "assigned. Counted every 5 seconds, so jobs that run at once may overrun it by a little."
        ),
    ] = None
    is_active: Annotated[bool, Field(description="false: as if there were no key.")] = True


class PersonalKey(Stamps):
    """A personal key as its owner sees it: of the key only the last four characters."""

    provider_id: UUID
    provider: str
    api_key_last4: str
    key_version: int
    use_shared_api: bool
    monthly_limit: int | None
    is_active: bool


class PersonalKeyInUse(PersonalKey):
    """A personal key, and what was spent with it."""

    tokens_this_month: Annotated[
        int, Field(description="Input and output tokens, since the month began (UTC).")
    ]


@router.get("")
@allow_reading
def list_personal_keys(
    query: Annotated[PageQuery, Query()], session: Reading, caller: Current
) -> Page[PersonalKeyInUse]:
    """Your own keys, and what was spent with each."""
    wanted = (
        select(AdminProviderSetting)
        .where(AdminProviderSetting.admin_id == caller.admin_id)
        .options(joinedload(AdminProviderSetting.provider))
    )
    rows, cursor = page_of(session, wanted, query, by=[AdminProviderSetting.id])
    spent = _spent(session, rows)
    items = [
        _shown(PersonalKeyInUse, row, row.provider, tokens_this_month=spent.get(row.provider_id, 0))
        for row in rows
    ]
    return Page(items=items, next_cursor=cursor)


@router.get("/{provider_id}")
@allow_reading
@tagged
def get_personal_key(provider_id: UUID, session: Reading, caller: Current) -> PersonalKey:
    """Your own key for a provider."""
    row = _own(session, caller.admin_id, provider_id)
    if row is None:
        raise _missing(provider_id)
    return _shown(PersonalKey, row, row.provider)


@router.put("/{provider_id}")
@allow_own
def put_personal_key(
    provider_id: UUID, body: PersonalKeyBody, session: Writing, caller: Current, using: Using
) -> PersonalKey:
    """Store your own key for a provider, or change how it is used. It is sealed before it is stored."""
    assert caller.admin_id is not None, "the rule lets in people only"  # noqa: S101
    provider = session.get(AIProvider, provider_id)
    if provider is None:
        raise NotFound(f"There is no provider {provider_id}.", hint="GET /providers lists them.")
    row = _own(session, caller.admin_id, provider_id)
    if row is None:
        row = AdminProviderSetting(
            id=new_id(),
            admin_id=caller.admin_id,
            provider_id=provider_id,
            key_version=0,
            created_by=caller.admin_id,
        )
        if body.api_key is None:
            raise Invalid("You have no key for this provider yet. Give one.", field="api_key")
        session.add(row)
    for name in ("use_shared_api", "monthly_limit", "is_active"):
        setattr(row, name, getattr(body, name))
    if body.api_key is not None:
        _store_key(row, body.api_key, using.vault)
    row.updated_by = caller.admin_id
    session.flush()
    return _shown(PersonalKey, row, provider)


@router.delete("/{provider_id}", status_code=status.HTTP_204_NO_CONTENT)
@allow_own
def delete_personal_key(provider_id: UUID, session: Writing, caller: Current) -> None:
    """Remove your own key for a provider. Jobs that start from now on do without it."""
    row = _own(session, caller.admin_id, provider_id)
    if row is None:
        raise _missing(provider_id)
    session.delete(row)


def _missing(provider_id: UUID) -> NotFound:
    return NotFound(f"You have no key for a provider {provider_id}.", hint="GET /personal-keys lists yours.")


def _own(session: Session, admin_id: UUID | None, provider_id: UUID) -> AdminProviderSetting | None:
    return session.scalar(
        select(AdminProviderSetting)
        .where(AdminProviderSetting.admin_id == admin_id, AdminProviderSetting.provider_id == provider_id)
        .options(joinedload(AdminProviderSetting.provider))
    )


def _store_key(row: AdminProviderSetting, key: SecretStr, vault: Vault) -> None:
    clear = key.get_secret_value()
    row.key_version += 1
    row.sealed_key = vault.seal(
        clear, table="admin_provider_settings", row=str(row.id), field="api_key", version=row.key_version
    ).blob
    row.key_last4 = last4(clear)


# As in routing/snapshot.py: key_version < 0 are calls with the caller's own key.
_SPENT = text("""
SELECT provider_id, sum(coalesce(input_tokens, 0) + coalesce(output_tokens, 0)) AS tokens
FROM ai_usage_analytics
WHERE caller_admin_id = :admin_id AND provider_id = ANY (:providers) AND key_version < 0
  AND finished_at >= date_trunc('month', now(), 'UTC')
GROUP BY provider_id""")


def _spent(session: Session, rows: list[AdminProviderSetting]) -> Mapping[UUID, int]:
    """Tokens of this calendar month, by provider."""
    if not rows:
        return {}
    found = session.execute(
        _SPENT, {"admin_id": rows[0].admin_id, "providers": [row.provider_id for row in rows]}
    )
    return {provider_id: int(tokens) for provider_id, tokens in found}


def _shown(kind: type[K], row: AdminProviderSetting, provider: AIProvider, **members: object) -> K:
    return fields.shown(kind, row, provider=provider.slug, api_key_last4=row.key_last4, **members)
