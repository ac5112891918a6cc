"""Access: which providers and models the caller may use now, and by whose key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field
from sqlalchemy import text

from admin_api.pagination import Page, PageQuery, cut, decoded
from admin_api.security import Current, GuardedRoute, allow_reading
from admin_api.sessions import Reading
from routing.access import Access, access
from routing.values import Caller

router = APIRouter(prefix="/access", tags=["access"], route_class=GuardedRoute)


class Entry(BaseModel):
    """The caller's access to a provider, or to one of its models. `model_id` is the id of the model's row."""

    provider_id: UUID
    provider: str
    model_id: Annotated[UUID | None, Field(description="null: the entry is about the provider itself.")]
    model: Annotated[str | None, Field(description="The vendor's name of the model.")]
    access: Access
    reason: Annotated[str | None, Field(description="What to do where there is no access.")]


class AccessQuery(PageQuery):
    with_models: Annotated[bool, Field(description="false: the providers alone.")] = True


@router.get("")
@allow_reading
def list_access(query: Annotated[AccessQuery, Query()], session: Reading, caller: Current) -> Page[Entry]:
    """Each provider, followed by its models, with what you may do with it.

    It is the decision that your jobs meet, also those of an application's token that you own.
    """
    after = [None] * len(_KINDS) if query.cursor is None else decoded(query.cursor, _KINDS)
    rows = session.execute(
        _ROWS,
        {
            "admin_id": caller.admin_id,
            "first": query.cursor is None,
            "with_models": query.with_models,
            **dict(zip(_SORTED_BY, after, strict=True)),
            "most": query.limit + 1,
        },
    ).mappings()
    found, cursor = cut(
        [dict(row) for row in rows], query.limit, key=lambda row: [row[name] for name in _SORTED_BY]
    )
    return Page(items=[_entry(row, caller.acts_for) for row in found], next_cursor=cursor)


def _entry(row: Mapping[str, Any], caller: Caller) -> Entry:
    granted = access(
        caller,
        is_active=row["provider_is_active"] and row["model_is_active"] and not row["is_retired"],
        has_personal_key=row["has_personal_key"],
        use_shared_api=row["use_shared_api"],
        is_shared=row["is_shared"],
    )
    return Entry(
        provider_id=row["provider_id"],
        provider=row["provider"],
        model_id=row["model_id"],
        model=row["model"],
        access=granted,
        reason=_reason(granted, row),
    )


def _reason(granted: Access, row: Mapping[str, Any]) -> str | None:
    if granted is Access.DISABLED and row["provider_is_active"] and row["is_retired"]:
        return "The model is retired. A super admin can assign its successor."
    if granted is Access.DISABLED:
        what = "model" if row["provider_is_active"] else "provider"
        return f"The {what} is inactive. A super admin can activate it."
    if granted is Access.NO_ACCESS:
        return (
            "The provider does not share its key with admins. Store a key of your own: "
            f"PUT /personal-keys/{row['provider_id']}."
        )
    return None


_KINDS = [int, UUID, int, int, UUID]
_SORTED_BY = ("provider_order", "provider_id", "is_model", "model_order", "model_key")

_ROWS = text("""
SELECT p.id AS provider_id, p.slug AS provider, p.sort_order AS provider_order,
       m.id AS model_id, m.model_id AS model, m.is_model, m.model_order, m.model_key,
       p.is_active AS provider_is_active, m.is_active AS model_is_active,
       coalesce(m.retires_at < (now() AT TIME ZONE 'UTC')::date, false) AS is_retired,
       p.allow_shared_for_normal_admins AS is_shared,
       own.id IS NOT NULL AS has_personal_key, coalesce(own.use_shared_api, false) AS use_shared_api
FROM ai_providers p
CROSS JOIN LATERAL (
    SELECT NULL::uuid AS id, NULL::text AS model_id, true AS is_active, NULL::date AS retires_at,
           0 AS is_model, 0 AS model_order, p.id AS model_key
    UNION ALL
    SELECT id, model_id, is_active, retires_at, 1, sort_order, id FROM ai_models
    WHERE provider_id = p.id AND :with_models
) m
LEFT JOIN admin_provider_settings own
    ON own.provider_id = p.id AND own.admin_id = :admin_id AND own.is_active
WHERE :first OR (p.sort_order, p.id, m.is_model, m.model_order, m.model_key)
    > (CAST(:provider_order AS int), CAST(:provider_id AS uuid), CAST(:is_model AS int),
       CAST(:model_order AS int), CAST(:model_key AS uuid))
ORDER BY p.sort_order, p.id, m.is_model, m.model_order, m.model_key
LIMIT :most""")
