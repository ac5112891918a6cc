"""The catalog: known vendors, and their models to choose from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, field_validator
from sqlalchemy.orm import Session

from admin_api.catalog import (
    CatalogModel,
    CatalogPrice,
    CatalogProvider,
    CatalogQuery,
    Installation,
    install,
    list_catalog,
)
from admin_api.pages.controls import Kind, Tweak
from admin_api.pages.forms import Form, Group
from admin_api.pages.rates import Rate, rate
from admin_api.pages.render import page
from admin_api.pages.route import PageRoute, Sent, done
from admin_api.refusals import NotFound
from admin_api.security import Current, allow_reading, allow_writing
from admin_api.services import Using
from admin_api.sessions import Reading
from routing.values import Capability

router = APIRouter(route_class=PageRoute)

_ROWS = 20

INSTALLATION = Form(
    Installation,
    Group("Key", "api_key", "test"),
    Group("Elsewhere", "base_url", "allow_private_network", is_advanced=True),
    Group("Chosen", "models", "add_to_existing"),
    api_key=Tweak(label="API key", help="Write-only: it is sealed at once, and never shown again."),
    test=Tweak(label="Try the key first", help="Nothing is installed where it does not work."),
    base_url=Tweak(label="Another address", help="A region's, or a proxy's, instead of the vendor's."),
    allow_private_network=Tweak(
        label="Allow a private network", help="The address may lead to this machine, or near it."
    ),
    models=Tweak(kind=Kind.CHOICES),
)


class Filters(BaseModel):
    """Which models of a vendor to show; `page` counts from 1."""

    model_config = ConfigDict(extra="forbid")

    vendor: Annotated[str | None, Field(max_length=64)] = None
    capability: Capability | None = None
    q: Annotated[str, Field(max_length=100)] = ""
    page: Annotated[int, Field(ge=1, le=1000)] = 1

    @field_validator("capability", mode="before")
    @classmethod
    def _any(cls, chosen: object) -> object:
        """What a form sends where any will do."""
        return chosen or None

    def fits(self, model: CatalogModel) -> bool:
        """Whether the model is among those that are asked for."""
        words = self.q.lower().split()
        text = f"{model.model_id} {model.name}".lower()
        has_capability = self.capability is None or self.capability.value in model.capabilities
        return has_capability and all(word in text for word in words)

    def address(self, page: int) -> str:
        """Of the same list's page."""
        members = {**self.model_dump(mode="json", exclude_defaults=True), "page": page}
        return f"/catalog?{urlencode(members)}"


@dataclass(frozen=True, slots=True)
class Offer:
    """A model of a vendor as the catalog offers it, with its price of now."""

    model: CatalogModel
    rate: Rate
    is_retired: bool

    @property
    def may_be_chosen(self) -> bool:
        """Whether it can be installed, and is not yet."""
        return not self.model.is_installed and not self.is_retired


@dataclass(frozen=True, slots=True)
class Offers:
    """A page of offers out of all that fit."""

    items: Sequence[Offer]
    fitting: int
    newer: str
    older: str


@router.get("/catalog")
@allow_reading
def show_catalog(request: Request, session: Reading, filters: Annotated[Filters, Query()]) -> Response:
    """All vendors, or one of them with its models."""
    if filters.vendor is None:
        vendors = list_catalog(CatalogQuery(limit=200), session).items
        return page(request, "catalog.html", vendors=vendors)
    vendor = _vendor(filters.vendor, session)
    return page(
        request,
        "catalog_vendor.html",
        vendor=vendor,
        capabilities=sorted({each for model in vendor.models for each in model.capabilities}),
        filters=filters,
        offers=_offers(vendor, filters),
        form=INSTALLATION.view(request),
    )


@router.post("/catalog")
@allow_writing
def install_chosen(
    sent: Sent, caller: Current, using: Using, request: Request, vendor: Annotated[str, Query(max_length=64)]
) -> Response:
    """Copy the vendor and the chosen models into the configuration."""
    wanted = INSTALLATION.body(sent)
    if not wanted.allow_private_network:  # not ticked: as the vendor needs it
        wanted = wanted.model_copy(update={"allow_private_network": None})
    installed = install(vendor, wanted, caller, using, request)
    count = len(installed.models)
    told = [f"{installed.provider.name}: {count} model{'' if count == 1 else 's'} installed."]
    if installed.test is not None:
        told.append(f"Its key works; it answered in {installed.test.latency_ms} ms.")
    told.append("Open a model to say what it shall be used for." if count else "Add models when you like.")
    return done(f"/providers/{installed.provider.id}", " ".join(told))


def _vendor(slug: str, session: Session) -> CatalogProvider:
    found = list_catalog(CatalogQuery(provider=slug), session).items
    if not found:
        raise NotFound(f"There is no vendor {slug!r} in the catalog.")
    return found[0]


def _offers(vendor: CatalogProvider, filters: Filters) -> Offers:
    now = datetime.now(UTC)
    fitting = [model for model in vendor.models if filters.fits(model)]
    start = (filters.page - 1) * _ROWS
    items = [_offer(model, now) for model in fitting[start : start + _ROWS]]
    has_older = start + _ROWS < len(fitting)
    return Offers(
        items=items,
        fitting=len(fitting),
        newer=filters.address(filters.page - 1) if filters.page > 1 else "",
        older=filters.address(filters.page + 1) if has_older else "",
    )


def _offer(model: CatalogModel, now: datetime) -> Offer:
    return Offer(
        model=model,
        rate=rate(_in_force(model.prices, now)),
        is_retired=model.retires_at is not None and model.retires_at < now.date(),
    )


def _in_force(prices: Sequence[CatalogPrice], now: datetime) -> CatalogPrice | None:
    """The newest that holds already; they come oldest first."""
    begun = [price for price in prices if price.valid_from is None or price.valid_from <= now]
    return begun[-1] if begun else None
