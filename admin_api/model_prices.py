"""Prices of models: each holds from its `valid_from` until the next one begins, so they cannot overlap."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, ClassVar
from uuid import UUID

from fastapi import APIRouter, Query, status
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from admin_api import fields, models
from admin_api.models import PRICES, Price
from admin_api.pagination import Page, PageQuery, cut, decoded
from admin_api.refusals import Conflict, Invalid, NotFound
from admin_api.security import Current, GuardedRoute, allow_reading, allow_writing
from admin_api.sessions import Reading, Writing
from routing.values import PriceUnit
from store.ids import new_id
from store.tables import ModelPrice

router = APIRouter(prefix="/models", tags=["models"], route_class=GuardedRoute)

_YEARS = (datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))


class PriceBody(fields.Body):
    """A price as clients send it. What is absent or null is unknown, which is not the same as free."""

    READ_ONLY: ClassVar[frozenset[str]] = frozenset(
        {"id", "model_id", "valid_until", "is_in_force", "created_at", "created_by"}
    )
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "valid_from": "2027-01-01T00:00:00Z",
                    "input_price_per_1k": "0.00075",
                    "output_price_per_1k": "0.0045",
                }
            ]
        }
    )

    valid_from: Annotated[
        AwareDatetime | None,
        Field(
            ge=_YEARS[0],
            lt=_YEARS[1],
            description="Null: now. May lie ahead. Behind, it changes no cost that was recorded.",
        ),
    ] = None
    price_unit: PriceUnit = PriceUnit.TOKENS
    input_price_per_1k: Price | None = None
    output_price_per_1k: Price | None = None
    cached_input_price_per_1k: Price | None = None
    cache_write_price_per_1k: Price | None = None
    batch_input_price_per_1k: Price | None = None
    batch_output_price_per_1k: Price | None = None


class ShownPrice(BaseModel):
    """A price as the API shows it, in dollars per 1,000 `price_unit`. `valid_until` null: for good."""

    id: UUID
    model_id: UUID
    valid_from: datetime
    valid_until: datetime | None
    is_in_force: bool
    price_unit: str
    input_price_per_1k: str | None
    output_price_per_1k: str | None
    cached_input_price_per_1k: str | None
    cache_write_price_per_1k: str | None
    batch_input_price_per_1k: str | None
    batch_output_price_per_1k: str | None
    created_at: datetime
    created_by: UUID | None


@router.get("/{model_id}/prices")
@allow_reading
def list_prices(model_id: UUID, query: Annotated[PageQuery, Query()], session: Reading) -> Page[ShownPrice]:
    """All prices of a model, those ahead included, newest `valid_from` first."""
    row = models.found(session, model_id)
    wanted = _with_ends(row.id)
    if query.cursor is not None:
        wanted = wanted.where(ModelPrice.valid_from < _instant(query.cursor))
    rows = session.execute(wanted.order_by(ModelPrice.valid_from.desc()).limit(query.limit + 1)).all()
    kept, cursor = cut(rows, query.limit, key=lambda one: [one[0].valid_from.isoformat()])
    now = session.scalar(select(func.clock_timestamp()))
    return Page(items=[_shown(price, until, now) for price, until in kept], next_cursor=cursor)


@router.post("/{model_id}/prices", status_code=status.HTTP_201_CREATED)
@allow_writing
def create_price(model_id: UUID, body: PriceBody, session: Writing, caller: Current) -> ShownPrice:
    """Add a price that holds from `valid_from` on, until the next one begins. None is ever changed.

    Calls are costed with the price that holds when they are made; one that lies ahead comes into force by
    itself.
    """
    row = models.found(session, model_id)
    members: dict[str, Any] = {name: getattr(body, name) for name in (*PRICES, "price_unit")}
    if all(members[name] is None for name in PRICES):
        raise Invalid("A price needs at least one amount; 0 is free.", field="input_price_per_1k")
    start = body.valid_from or session.scalar(select(func.clock_timestamp()))
    price = ModelPrice(id=new_id(), model_id=row.id, valid_from=start, created_by=caller.admin_id, **members)
    session.add(price)
    session.flush()
    session.refresh(price)
    return _one(session, price)


@router.delete("/{model_id}/prices/{price_id}", status_code=status.HTTP_204_NO_CONTENT)
@allow_writing
def delete_price(model_id: UUID, price_id: UUID, session: Writing) -> None:
    """Remove a price that is not in force yet. One that was in force stays: records of calls tell of it."""
    row = models.found(session, model_id)
    price = session.get(ModelPrice, price_id)
    if price is None or price.model_id != row.id:
        raise NotFound(
            f"Model {row.model_id!r} has no price {price_id}.",
            hint=f"GET /models/{row.id}/prices lists them.",
        )
    if session.scalar(select(price.valid_from <= func.clock_timestamp())):
        raise Conflict("This price has been in force. Add the one that shall hold from now on.")
    session.delete(price)


def _with_ends(model_id: UUID) -> Any:
    """Prices with the start of the next one."""
    until = func.lead(ModelPrice.valid_from).over(order_by=ModelPrice.valid_from)
    ends = select(ModelPrice.id, until.label("until")).where(ModelPrice.model_id == model_id).subquery("ends")
    return select(ModelPrice, ends.c.until).join(ends, ends.c.id == ModelPrice.id)


def _one(session: Session, price: ModelPrice) -> ShownPrice:
    found, until = session.execute(_with_ends(price.model_id).where(ModelPrice.id == price.id)).one()
    return _shown(found, until, session.scalar(select(func.clock_timestamp())))


def _instant(cursor: str) -> datetime:
    try:
        return datetime.fromisoformat(decoded(cursor, [str])[0])
    except ValueError:
        raise Invalid(
            "This is no cursor of this list.",
            field="cursor",
            hint="Use the next_cursor of its page before, or none.",
        ) from None


def _shown(price: ModelPrice, until: datetime | None, now: datetime | None) -> ShownPrice:
    assert now is not None, "the database tells the time"  # noqa: S101
    amounts: Mapping[str, Decimal | None] = {name: getattr(price, name) for name in PRICES}
    return fields.shown(
        ShownPrice,
        price,
        valid_until=until,
        is_in_force=price.valid_from <= now and (until is None or now < until),
        price_unit=str(PriceUnit(price.price_unit)),
        **{name: None if amount is None else f"{amount:f}" for name, amount in amounts.items()},
    )
