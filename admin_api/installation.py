"""Copies vendors and models of the catalog into the configuration, in the caller's transaction."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

from pydantic import SecretStr
from sqlalchemy import select
from sqlalchemy.orm import Session

from admin_api.models import PRICES
from admin_api.providers import ProviderBody
from admin_api.vendors import KnownModel, Vendor
from store.ids import new_id
from store.tables import AIModel, AIProvider, ModelPrice

_BEGINNING = datetime(2020, 1, 1, tzinfo=UTC)  # of prices whose first day nobody has noted


def provider_body(vendor: Vendor, api_key: str | None, *, base_url: str | None = None) -> ProviderBody:
    """The provider that the vendor would be.

    Raises pydantic.ValidationError for a key or address that is none, and where there is no adapter.
    """
    return ProviderBody(
        slug=vendor.slug,
        name=vendor.name,
        type=vendor.type,
        base_url=base_url or vendor.base_url,
        api_version=vendor.api_version,
        api_key=None if api_key is None else SecretStr(api_key),
        capabilities=vendor.capabilities,
        settings=dict(vendor.settings),
        allow_private_network=vendor.allow_private_network,
        website=vendor.website,
    )


def add_models(
    session: Session, provider: AIProvider, models: Sequence[KnownModel], admin_id: UUID | None
) -> tuple[list[AIModel], list[str]]:
    """Add those of the models that the provider does not have, with their prices.

    Returns the new rows, and the ids of the models that were there already, which stay as they are.
    """
    there = set(session.scalars(select(AIModel.model_id).where(AIModel.provider_id == provider.id)))
    new = [_row(provider, model, admin_id) for model in models if model.model_id not in there]
    session.add_all(new)
    session.flush()
    known = {model.model_id: model for model in models}
    for row in new:
        session.add_all(_prices(row, known[row.model_id], admin_id))
    session.flush()
    return new, sorted(there & known.keys())


def _row(provider: AIProvider, model: KnownModel, admin_id: UUID | None) -> AIModel:
    return AIModel(
        id=new_id(),
        provider_id=provider.id,
        model_id=model.model_id,
        name=model.name,
        capabilities=list(model.capabilities),
        context_window=model.context_window,
        retires_at=model.retires_at,
        default_parameters={"voice": model.voices[0]} if model.voices else {},
        created_by=admin_id,
        updated_by=admin_id,
    )


def _prices(row: AIModel, model: KnownModel, admin_id: UUID | None) -> list[ModelPrice]:
    return [
        ModelPrice(
            id=new_id(),
            model_id=row.id,
            valid_from=price.valid_from or _BEGINNING,
            price_unit=price.price_unit,
            created_by=admin_id,
            **{name: getattr(price, name) for name in PRICES},
        )
        for price in model.prices
    ]
