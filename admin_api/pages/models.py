"""A model: what it is, what it costs and when, and which features it serves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.orm import Session

from admin_api import moves
from admin_api.model_prices import PriceBody, ShownPrice, create_price, delete_price, list_prices
from admin_api.models import (
    PRICES,
    ModelBody,
    change_model,
    create_model,
    delete_model,
    get_model,
)
from admin_api.moves import Moved, Place
from admin_api.pages.again import Again, again_of
from admin_api.pages.controls import Choice, Kind, Tweak
from admin_api.pages.forms import Form, Group
from admin_api.pages.rates import Rate, rate
from admin_api.pages.render import page
from admin_api.pages.route import PageRoute, Sent, changes, done, shown_at
from admin_api.pagination import PageQuery
from admin_api.providers import Provider, ProviderQuery, get_provider, list_providers
from admin_api.refusals import Invalid
from admin_api.security import Current, allow_reading, allow_writing
from admin_api.sessions import Reading, Writing

router = APIRouter(route_class=PageRoute)

_PRICES_SHOWN = 25
_UNDOABLE = 40  # moves: their undo travels in a cookie
_SOON_DAYS = 60

_TWEAKS = {
    "provider_id": Tweak(label="Provider", kind=Kind.CHOICE),
    "model_id": Tweak(label="Model", help="The vendor's name for it."),
    "name": Tweak(help="What people call it."),
    "capabilities": Tweak(help="What it can do: the features that it may serve."),
    "is_default": Tweak(label="First choice where any model will do"),
    "default_parameters": Tweak(help="Sent with every call, unless an assignment says otherwise."),
    "constraints": Tweak(help="What it refuses: parameters that are left out, or bounded."),
}
_IDENTITY = Group("Model", "provider_id", "model_id", "name", "capabilities", "is_active")
_DETAILS = Group(
    "Details",
    *("display_name", "version", "context_window", "max_output_tokens", "retires_at", "is_default"),
    *("sort_order", "api_style", "supports_streaming", "default_parameters", "constraints"),
    is_advanced=True,
)
_AMOUNTS = {
    name: Tweak(label=name.removesuffix("_price_per_1k").replace("_", " ").capitalize(), help="")
    for name in PRICES
}
_UNIT = Tweak(label="Unit")

NEW = Form(
    ModelBody,
    _IDENTITY,
    Group("Price, dollars per 1,000", "price_unit", *PRICES[:2]),
    Group("Further prices, dollars per 1,000", *PRICES[2:], is_advanced=True),
    _DETAILS,
    **_TWEAKS,
    **_AMOUNTS,
    price_unit=_UNIT,
)
CHANGE = Form(ModelBody, _IDENTITY, _DETAILS, **_TWEAKS)
"""Without prices: those are dated, and have a form of their own."""

PRICE = Form(
    PriceBody,
    Group("Dollars per 1,000", "valid_from", "price_unit", *PRICES[:2]),
    Group("Further prices", *PRICES[2:], is_advanced=True),
    valid_from=Tweak(label="From, UTC", help="Empty: from now on.", kind=Kind.TIME),
    price_unit=_UNIT,
    **_AMOUNTS,
)


@dataclass(frozen=True, slots=True)
class DatedPrice:
    """A price in the history."""

    price: ShownPrice
    rate: Rate

    @property
    def is_ahead(self) -> bool:
        """Whether it has never been in force, so that it may be deleted."""
        return self.price.valid_from > datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Use:
    """A feature beside its check box."""

    place: Place
    is_ticked: bool


@router.get("/models/new")
@allow_writing
def new_model(
    request: Request, session: Reading, provider: Annotated[UUID | None, Query()] = None
) -> Response:
    """The empty form, for a provider."""
    known = None if provider is None else get_provider(provider, session)
    given = {} if known is None else {"provider_id": str(known.id)}
    return page(
        request,
        "form.html",
        title="Add a model",
        lead=f"One that {known.name} serves." if known else "One that a provider serves.",
        crumbs=_crumbs(known),
        form=NEW.view(request, given=given, choices={"provider_id": _providers(session)}),
        submit="Add model",
        cancel=f"/providers/{known.id}" if known else "/providers",
    )


@router.post("/models/new")
@allow_writing
def create(sent: Sent, session: Writing, caller: Current) -> Response:
    """Add the model."""
    made = create_model(NEW.body(sent), session, caller)
    return done(f"/models/{made.id}", f"{made.name} was added. Tick the features that it shall serve.")


@router.get("/models/{model_id}")
@allow_reading
def show_model(model_id: UUID, request: Request, session: Reading) -> Response:
    """One model with its prices and features."""
    model = get_model(model_id, session)
    provider = get_provider(model.provider_id, session)
    prices = list_prices(model_id, PageQuery(limit=_PRICES_SHOWN), session)
    again, path = again_of(request), f"/models/{model_id}"
    given = {"price_unit": model.price_unit, **{name: getattr(model, name) for name in PRICES}}
    return page(
        request,
        "model.html",
        model=model,
        provider=provider,
        rate=rate(model),
        retirement=_retirement(model.retires_at),
        form=CHANGE.view(request, model, choices={"provider_id": _providers(session, provider)}),
        prices=[DatedPrice(price, rate(price)) for price in prices.items],
        has_older_prices=prices.next_cursor is not None,
        price_form=PRICE.view(request, action=f"{path}/prices", given=given),
        uses=_uses(session, model_id, again),
        refused=None if again is None else again.action.removeprefix(path).strip("/") or "edit",
    )


@router.post("/models/{model_id}")
@allow_writing
@changes(get_model)
def save(model_id: UUID, sent: Sent, session: Writing, caller: Current) -> Response:
    """Change the model; its prices stay."""
    changed = change_model(model_id, CHANGE.changes(sent), session, caller)
    return done(f"/models/{model_id}", f"{changed.name} was saved. Jobs that start now see it.")


@router.post("/models/{model_id}/activate")
@allow_writing
def activate(model_id: UUID, session: Writing, caller: Current) -> Response:
    """Let jobs use the model."""
    found = change_model(model_id, {"is_active": True}, session, caller)
    return done(f"/models/{model_id}", f"{found.name} is active.")


@router.post("/models/{model_id}/deactivate")
@allow_writing
def deactivate(model_id: UUID, session: Writing, caller: Current) -> Response:
    """Keep jobs from the model: they go to their backups."""
    found = change_model(model_id, {"is_active": False}, session, caller)
    undo = f"/models/{model_id}/activate"
    return done(f"/models/{model_id}", f"{found.name} is inactive: no job calls it.", undo=undo)


@router.post("/models/{model_id}/delete")
@allow_writing
@shown_at("/models/{model_id}")
def delete(model_id: UUID, session: Writing, caller: Current) -> Response:
    """Remove the model with its prices, if no assignment needs it; the page tells which do."""
    model = get_model(model_id, session)
    delete_model(model_id, session, caller)
    return done(f"/providers/{model.provider_id}", f"{model.name} was deleted.")


@router.post("/models/{model_id}/prices")
@allow_writing
@shown_at("/models/{model_id}")
def add_price(model_id: UUID, sent: Sent, session: Writing, caller: Current) -> Response:
    """Add a dated price."""
    added = create_price(model_id, PRICE.body(sent), session, caller)
    start = f"{added.valid_from.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    return done(f"/models/{model_id}", f"The price was added. It holds from {start} on.")


@router.post("/models/{model_id}/prices/{price_id}/delete")
@allow_writing
@shown_at("/models/{model_id}")
def remove_price(model_id: UUID, price_id: UUID, session: Writing) -> Response:
    """Delete a price that lies ahead."""
    delete_price(model_id, price_id, session)
    return done(f"/models/{model_id}", "The price was deleted before it came into force.")


@router.post("/models/{model_id}/use")
@allow_writing
@shown_at("/models/{model_id}")
def use(model_id: UUID, sent: Sent, session: Writing, caller: Current) -> Response:
    """Move the ticked features to the model, all or none."""
    wanted = sent.all("features")
    served = {place.feature for place in moves.places(session, model_id) if place.is_served}
    if kept := sorted(served.intersection(sent.all("served")) - set(wanted)):
        raise Invalid(
            f"{', '.join(kept)}: to take a feature away, assign another model on the feature's own page. "
            "Nothing was moved.",
            field="features",
        )
    moved = moves.move(session, model_id, wanted, caller)
    path = f"/models/{model_id}"
    if not moved:
        return done(path, "Nothing to move: it serves all that is ticked.", kind="warn")
    names = ", ".join(each.feature for each in moved)
    name = get_model(model_id, session).name
    return done(path, f"{name} serves {names} now, from the next job on.", undo=_undo(path, moved))


@router.post("/models/{model_id}/undo")
@allow_writing
def undo(
    model_id: UUID,
    session: Writing,
    caller: Current,
    moved: Annotated[list[str], Query(max_length=_UNDOABLE)],
) -> Response:
    """Take moves back; `moved` names assignments, each with its version of before."""
    names = moves.undo(session, [_parsed(each) for each in moved], caller)
    return done(f"/models/{model_id}", f"Undone: {', '.join(names)} as before.")


def _undo(path: str, moved: Sequence[Moved]) -> str:
    if len(moved) > _UNDOABLE:
        return ""
    return f"{path}/undo?" + "&".join(f"moved={each.assignment_id}.{each.version}" for each in moved)


def _parsed(moved: str) -> tuple[UUID, int]:
    assignment_id, _, version = moved.partition(".")
    try:
        return UUID(assignment_id), int(version)
    except ValueError:
        raise Invalid("This is no move.", field="moved") from None


def _uses(session: Session, model_id: UUID, again: Again | None) -> list[Use]:
    found = moves.places(session, model_id)
    if again is None or not again.action.endswith("/use"):
        return [Use(place, place.is_served) for place in found]
    ticked = set(again.sent.all("features"))
    return [Use(place, place.feature in ticked) for place in found]


def _providers(session: Session, own: Provider | None = None) -> list[Choice]:
    found = list_providers(ProviderQuery(limit=200), session).items
    shown = {str(each.id): each.name for each in ([own] if own else []) + found}
    return list(shown.items())


def _crumbs(provider: Provider | None) -> list[Choice]:
    own = [] if provider is None else [(provider.name, f"/providers/{provider.id}")]
    return [("Providers", "/providers"), *own]


def _retirement(last_day: date | None) -> str:
    """What people should know about it; "" where it is far, or nobody knows of any."""
    if last_day is None:
        return ""
    days = (last_day - datetime.now(UTC).date()).days
    if days < 0:
        return f"The vendor retired this model after {last_day}: no job is routed to it any more."
    if days > _SOON_DAYS:
        return ""
    return f"The vendor retires this model after {last_day}, in {days} days. Move its features before."
