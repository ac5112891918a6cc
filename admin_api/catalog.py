"""The catalog: known vendors, models and prices, of which chosen ones are copied into the configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from functools import cache
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request, status
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from admin_api import installation, models, providers
from admin_api.models import Model
from admin_api.pagination import Page, PageQuery, cut, decoded
from admin_api.probes import Verdict
from admin_api.providers import Provider, ProviderBody
from admin_api.refusals import Conflict, Invalid, NotFound, pointer
from admin_api.security import Current, GuardedRoute, allow_reading, allow_writing
from admin_api.services import Services, Using
from admin_api.sessions import Reading, writing
from admin_api.vendors import KnownModel, KnownPrice, Vendor, vendors
from store.ids import new_id
from store.tables import AIModel, AIProvider

router = APIRouter(prefix="/catalog", tags=["catalog"], route_class=GuardedRoute)


class CatalogPrice(BaseModel):
    """Dollars per 1,000 `price_unit` from `valid_from` on; null: as long as the model has been there."""

    valid_from: datetime | None
    price_unit: str
    input_price_per_1k: str | None
    output_price_per_1k: str | None
    cached_input_price_per_1k: str | None
    cache_write_price_per_1k: str | None
    batch_input_price_per_1k: str | None
    batch_output_price_per_1k: str | None


class CatalogModel(BaseModel):
    """A model of a vendor. `is_installed`: its provider has it already."""

    model_id: str
    name: str
    capabilities: list[str]
    context_window: int | None
    retires_at: date | None
    voices: list[str]
    prices: list[CatalogPrice]
    is_installed: bool


class CatalogProvider(BaseModel):
    """A vendor. `provider_id`: the provider with its slug, where there is one."""

    provider: str
    name: str
    type: str
    base_url: str
    api_version: str | None
    website: str | None
    needs_key: bool
    is_supported: Annotated[bool, Field(description="Whether this release has an adapter for its type.")]
    environment: Annotated[
        list[str], Field(description="Where people keep its key; `orrery import-env` reads it there, once.")
    ]
    is_installed: bool
    provider_id: UUID | None
    models: list[CatalogModel]


class CatalogQuery(PageQuery):
    provider: Annotated[str | None, Field(max_length=64, description="One vendor alone.")] = None


class Installation(BaseModel):
    """What to copy. Without `models` the provider alone; more can be added later."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"api_key": "sk-...", "models": ["gpt-5.4-mini", "tts-1"]}]},
    )

    api_key: Annotated[
        SecretStr | None, Field(description="Write-only. Not needed where the provider is there already.")
    ] = None
    models: Annotated[
        list[Annotated[str, Field(max_length=200)]],
        Field(max_length=200, description="`model_id`s of the catalog."),
    ] = Field(default_factory=list)
    base_url: Annotated[
        str | None, Field(max_length=2000, description="Instead of the vendor's: a region's, or a proxy's.")
    ] = None
    allow_private_network: bool | None = None
    test: Annotated[
        bool, Field(description="Try the key first, and copy nothing where it does not work.")
    ] = True
    add_to_existing: Annotated[
        bool, Field(description="Where the provider is there already, add the models that it lacks.")
    ] = False


class Installed(BaseModel):
    """What is there now. `skipped`: models that were there already and stayed as they were."""

    provider: Provider
    models: list[Model]
    skipped: list[str]
    test: Verdict | None


@router.get("")
@allow_reading
def list_catalog(query: Annotated[CatalogQuery, Query()], session: Reading) -> Page[CatalogProvider]:
    """Vendors by slug, with what is installed of them. It is as of this release, and nothing is called.

    It proposes; jobs go by what is in the configuration.
    """
    known = vendors()
    wanted = sorted(known) if query.provider is None else [slug for slug in known if slug == query.provider]
    if query.cursor is not None:
        (last,) = decoded(query.cursor, [str])
        wanted = [slug for slug in wanted if slug > last]
    slugs, cursor = cut(wanted, query.limit, key=lambda slug: [slug])
    there = _there(session, slugs)
    items = [_shown(known[slug], *there.get(slug, (None, frozenset()))) for slug in slugs]
    return Page(items=items, next_cursor=cursor)


Slug = Annotated[str, Path(max_length=64, description="The vendor's slug in the catalog.")]


@router.post("/{provider}/install", status_code=status.HTTP_201_CREATED)
@allow_writing
def install(provider: Slug, body: Installation, caller: Current, using: Using, request: Request) -> Installed:
    """Copy a vendor, chosen models and their dated prices into the configuration, all or nothing."""
    vendor = vendors().get(provider)
    if vendor is None:
        raise NotFound(f"There is no provider {provider!r} in the catalog.", hint="GET /catalog lists them.")
    chosen = _chosen(vendor, body.models)
    wanted = _body(vendor, body)
    with Session(using.engine) as session:
        exists = _check_existing(session, vendor, body)
    verdict = None if exists else _verdict(using, vendor, body, wanted)
    with writing(using, request) as session:
        _check_existing(session, vendor, body)
        row = session.scalar(select(AIProvider).where(AIProvider.slug == vendor.slug))
        if row is None:
            row = AIProvider(id=new_id(), key_version=0, created_by=caller.admin_id)
            session.add(row)
            providers.written(session, row, wanted, caller.admin_id, using.vault)
            session.flush()
        added, skipped = installation.add_models(session, row, chosen, caller.admin_id)
        return Installed(
            provider=providers.shown(row),
            models=[models.get_model(model.id, session) for model in added],
            skipped=skipped,
            test=verdict,
        )


def _check_existing(session: Session, vendor: Vendor, body: Installation) -> bool:
    """Whether the provider is there. Raises Conflict where that was not expected."""
    exists = session.scalar(select(AIProvider.id).where(AIProvider.slug == vendor.slug)) is not None
    if exists and not body.add_to_existing:
        raise Conflict(
            f"There is a provider {vendor.slug!r} already.",
            field="add_to_existing",
            hint="Send add_to_existing: true to add the models that it lacks; it stays as it is.",
        )
    return exists


def _verdict(using: Services, vendor: Vendor, body: Installation, wanted: ProviderBody) -> Verdict | None:
    if body.api_key is None and vendor.needs_key:
        raise Invalid("This provider needs a key.", field="api_key")
    if not body.test:
        return None
    verdict = providers.tried(using, wanted)
    if not verdict.ok:
        raise Invalid(
            f"Trying it failed: {verdict.message} Nothing was installed. Mend it, or do not try it first.",
            field="api_key",
        )
    return verdict


def _chosen(vendor: Vendor, model_ids: Sequence[str]) -> list[KnownModel]:
    found: dict[str, KnownModel] = {}
    for place, model_id in enumerate(model_ids):
        model = vendor.model(model_id)
        field = pointer(["models", place])
        if model is None:
            raise Invalid(f"The catalog has no model {model_id!r} of {vendor.slug!r}.", field=field)
        if model.retires_at is not None and model.retires_at < datetime.now(UTC).date():
            raise Invalid(f"{model_id!r} was retired after {model.retires_at}.", field=field)
        found[model_id] = model
    return list(found.values())


def _body(vendor: Vendor, body: Installation) -> ProviderBody:
    key = None if body.api_key is None else body.api_key.get_secret_value()
    if not vendor.is_supported:
        raise Conflict(
            f"{vendor.name} speaks {vendor.type}, for which this release has no adapter. A later one will."
        )
    try:
        made = installation.provider_body(vendor, key, base_url=body.base_url)
    except ValidationError as error:
        located = [{**found, "loc": ("body", *found["loc"])} for found in error.errors(include_input=False)]
        raise RequestValidationError(located) from None
    if body.allow_private_network is not None:
        made.allow_private_network = body.allow_private_network
    return made


def _there(session: Session, slugs: Sequence[str]) -> Mapping[str, tuple[UUID, frozenset[str]]]:
    """Of the slugs that are providers: their ids and models."""
    rows = session.execute(
        select(AIProvider.slug, AIProvider.id, AIModel.model_id)
        .outerjoin(AIModel, AIModel.provider_id == AIProvider.id)
        .where(AIProvider.slug.in_(slugs))
    ).all()
    ids = {row.slug: row.id for row in rows}
    return {
        slug: (ids[slug], frozenset(row.model_id for row in rows if row.slug == slug and row.model_id))
        for slug in ids
    }


def _shown(vendor: Vendor, provider_id: UUID | None, there: frozenset[str]) -> CatalogProvider:
    return CatalogProvider(
        provider=vendor.slug,
        name=vendor.name,
        type=vendor.type,
        base_url=vendor.base_url,
        api_version=vendor.api_version,
        website=vendor.website,
        needs_key=vendor.needs_key,
        is_supported=vendor.is_supported,
        environment=list(vendor.environment),
        is_installed=provider_id is not None,
        provider_id=provider_id,
        models=[
            model.model_copy(update={"is_installed": True}) if model.model_id in there else model
            for model in _models(vendor.slug)
        ],
    )


@cache
def _models(slug: str) -> list[CatalogModel]:
    """What is shown of a vendor's models where none is installed; made once, for there are hundreds."""
    return [_model(model) for model in vendors()[slug].models]


def _model(model: KnownModel) -> CatalogModel:
    return CatalogModel(
        model_id=model.model_id,
        name=model.name,
        capabilities=list(model.capabilities),
        context_window=model.context_window,
        retires_at=model.retires_at,
        voices=list(model.voices),
        prices=[_price(price) for price in model.prices],
        is_installed=False,
    )


def _price(price: KnownPrice) -> CatalogPrice:
    amounts = {name: getattr(price, name) for name in models.PRICES}
    return CatalogPrice(
        valid_from=price.valid_from,
        price_unit=price.price_unit,
        **{name: None if amount is None else f"{amount:f}" for name, amount in amounts.items()},
    )
