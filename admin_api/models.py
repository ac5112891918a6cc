"""AI models that providers serve, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from decimal import Decimal
from typing import Annotated, ClassVar, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Response, status
from pydantic import ConfigDict, Field, StringConstraints
from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from admin_api import fields
from admin_api.breakage import breaks_nothing
from admin_api.etags import tagged
from admin_api.fields import Label, Positive32, Stamps, Whole32
from admin_api.pagination import Page, PageQuery, page_of
from admin_api.providers import Changes
from admin_api.refusals import Invalid, NotFound
from admin_api.security import Current, GuardedRoute, allow_reading, allow_writing
from admin_api.sessions import Reading, Writing
from admin_api.uses import REMOVED, Deactivate, refuse_if_used
from routing.values import Capability, PriceUnit
from store.ids import new_id
from store.tables import (
    AIModel,
    AIProvider,
    AssignmentTarget,
    Feature,
    FeatureAIAssignment,
    ModelPrice,
)

router = APIRouter(prefix="/models", tags=["models"], route_class=GuardedRoute)

_INSTANT = timedelta(microseconds=1)  # the resolution of timestamptz

PRICES = (
    "input_price_per_1k",
    "output_price_per_1k",
    "cached_input_price_per_1k",
    "cache_write_price_per_1k",
    "batch_input_price_per_1k",
    "batch_output_price_per_1k",
)

Price = Annotated[
    Decimal,
    Field(ge=0, max_digits=18, decimal_places=12, description="Dollars per 1,000 price_unit. Null: unknown."),
]


class ModelBody(fields.Body):
    """A model as clients send it. `model_name` and `model_version` are taken for `model_id` and `version`."""

    ALIASES: ClassVar[Mapping[str, str]] = {"model_name": "model_id", "model_version": "version"}

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "provider_id": "01936f2e-7c00-7000-8000-000000000001",
                    "model_id": "gpt-5.4-mini",
                    "name": "GPT-5.4 mini",
                    "capabilities": ["text", "vision"],
                    "input_price_per_1k": "0.00075",
                    "output_price_per_1k": "0.0045",
                }
            ]
        }
    )

    provider_id: UUID
    model_id: Annotated[
        str,
        StringConstraints(strip_whitespace=True, min_length=1, max_length=200),
        Field(description="The vendor's name for the model."),
    ]
    name: Label
    display_name: Label | None = None
    version: Label | None = None
    api_style: Annotated[
        Literal["chat", "responses"],
        Field(description="Kept for later: this release calls every model by chat completions."),
    ] = "chat"
    capabilities: fields.Capabilities = Field(default_factory=lambda: [Capability.TEXT], min_length=1)
    context_window: Positive32 | None = None
    max_output_tokens: Positive32 | None = None
    supports_streaming: Annotated[
        bool, Field(description="Kept for later: this release does not stream.")
    ] = True
    input_price_per_1k: Price | None = None
    output_price_per_1k: Price | None = None
    cached_input_price_per_1k: Price | None = None
    cache_write_price_per_1k: Price | None = None
    batch_input_price_per_1k: Price | None = None
    batch_output_price_per_1k: Price | None = None
    price_unit: PriceUnit = PriceUnit.TOKENS
    retires_at: Annotated[
        date | None, Field(description="The last day (UTC) on which jobs are routed to it.")
    ] = None
    default_parameters: fields.JsonObject = Field(default_factory=dict)
    constraints: fields.JsonObject = Field(default_factory=dict)
    is_default: Annotated[
        bool,
        Field(description="The one to suggest, and the first choice where an assignment takes any model."),
    ] = False
    is_active: bool = True
    sort_order: Whole32 = 0


class Model(Stamps):
    """A model as the API shows it, with the prices in force now as decimal strings."""

    provider_id: UUID
    model_id: str
    name: str
    display_name: str | None
    version: str | None
    api_style: str
    capabilities: list[str]
    context_window: int | None
    max_output_tokens: int | None
    supports_streaming: bool
    input_price_per_1k: str | None
    output_price_per_1k: str | None
    cached_input_price_per_1k: str | None
    cache_write_price_per_1k: str | None
    batch_input_price_per_1k: str | None
    batch_output_price_per_1k: str | None
    price_unit: str
    retires_at: date | None
    default_parameters: fields.JsonObject
    constraints: fields.JsonObject
    is_default: bool
    is_active: bool
    sort_order: int


class ModelQuery(PageQuery):
    provider: Annotated[
        str | None, Field(max_length=8000, description="Slugs of providers, separated by commas.")
    ] = None
    capability: Capability | None = None
    is_active: bool | None = None
    is_default: bool | None = None


@router.get("")
@allow_reading
def list_models(query: Annotated[ModelQuery, Query()], session: Reading) -> Page[Model]:
    """Models by sort_order; of many providers at once with `provider=a,b,c`."""
    wanted = select(AIModel)
    if query.provider is not None:
        slugs = [slug.strip() for slug in query.provider.split(",")]
        wanted = wanted.join(AIProvider).where(AIProvider.slug.in_(slugs))
    if query.capability is not None:
        wanted = wanted.where(AIModel.capabilities.contains([query.capability.value]))
    if query.is_active is not None:
        wanted = wanted.where(AIModel.is_active == query.is_active)
    if query.is_default is not None:
        wanted = wanted.where(AIModel.is_default == query.is_default)
    rows, cursor = page_of(session, wanted, query, by=[AIModel.sort_order, AIModel.id])
    prices = _prices(session, rows)
    return Page(items=[_shown(row, prices.get(row.id)) for row in rows], next_cursor=cursor)


@router.post("", status_code=status.HTTP_201_CREATED)
@allow_writing
def create_model(body: ModelBody, session: Writing, caller: Current) -> Model:
    """Add a model to a provider."""
    row = AIModel(id=new_id(), created_by=caller.admin_id)
    session.add(row)
    return written(session, row, body, None, caller.admin_id)


@router.get("/{model_id}")
@allow_reading
@tagged
def get_model(model_id: UUID, session: Reading) -> Model:
    """One model, by its row's id."""
    row = found(session, model_id)
    return _shown(row, _price(session, row))


@router.put("/{model_id}")
@allow_writing
def replace_model(model_id: UUID, body: ModelBody, session: Writing, caller: Current) -> Model:
    """Replace a model; what is absent gets its default. A new price holds from now on."""
    row = found(session, model_id)
    return written(session, row, body, _price(session, row), caller.admin_id)


@router.patch("/{model_id}", openapi_extra=fields.patch_of(ModelBody))
@allow_writing
def change_model(model_id: UUID, changes: Changes, session: Writing, caller: Current) -> Model:
    """Change some members of a model. A new price holds from now on."""
    row = found(session, model_id)
    price = _price(session, row)
    current = fields.stored(ModelBody, row).model_copy(update=_price_members(price))
    return written(session, row, fields.merged(current, changes), price, caller.admin_id)


@router.delete("/{model_id}", response_model=Model, responses=REMOVED)
@allow_writing
def delete_model(
    model_id: UUID, session: Writing, caller: Current, deactivate: Deactivate = False
) -> Model | Response:
    """Remove a model with its prices. One that assignments use answers 409 and names them."""
    row = found(session, model_id)
    if deactivate:
        row.is_active, row.updated_by = False, caller.admin_id
        session.flush()
        return _shown(row, _price(session, row))
    refuse_if_used(session, f"Model {row.model_id!r}", AIModel.id == row.id)
    session.execute(delete(AIModel).where(AIModel.id == row.id))
    return Response(status_code=status.HTTP_204_NO_CONTENT)


def counts(session: Session, provider_ids: Sequence[UUID]) -> dict[UUID, int]:
    """How many models each of the providers has; those without any are left out."""
    counted = (
        select(AIModel.provider_id, func.count())
        .where(AIModel.provider_id.in_(provider_ids))
        .group_by(AIModel.provider_id)
    )
    return {row[0]: row[1] for row in session.execute(counted)}


def found(session: Session, model_id: UUID) -> AIModel:
    """The model's row. Raises NotFound."""
    row = session.get(AIModel, model_id)
    if row is None:
        raise NotFound(f"There is no model {model_id}.")
    return row


def written(
    session: Session, row: AIModel, body: ModelBody, price: ModelPrice | None, admin_id: UUID | None
) -> Model:
    """Make the row what the body says; `price` is the one in force. Raises Invalid; Conflict."""
    if session.get(AIProvider, body.provider_id) is None:
        raise Invalid(
            f"There is no provider {body.provider_id}.",
            field="provider_id",
            hint="GET /providers lists them.",
        )
    _check_capabilities(session, row, body.capabilities)
    with breaks_nothing(session, AIModel.id == row.id, field="provider_id"):
        for name in ModelBody.model_fields.keys() - {*PRICES, "price_unit"}:
            setattr(row, name, getattr(body, name))
        row.updated_by = admin_id
    wanted = {name: getattr(body, name) for name in (*PRICES, "price_unit")}
    if wanted != _price_members(price):
        price = _new_price(session, row, wanted, price, admin_id)
    return _shown(row, price)


def _check_capabilities(session: Session, row: AIModel, capabilities: Sequence[str]) -> None:
    if row.capabilities is None or set(row.capabilities) <= set(capabilities):
        return
    lost = [feature for feature in _features_served(session, row) if feature.capability not in capabilities]
    if lost:
        needs = ", ".join(f"{feature.name} needs {feature.capability}" for feature in lost)
        raise Invalid(
            f"Features that are assigned to this model need more: {needs}. Keep the capability, or assign "
            "other models there first.",
            field="capabilities",
        )


def _features_served(session: Session, row: AIModel) -> Sequence[Feature]:
    return session.scalars(
        select(Feature)
        .join(FeatureAIAssignment, FeatureAIAssignment.feature_id == Feature.id)
        .join(AssignmentTarget, AssignmentTarget.assignment_id == FeatureAIAssignment.id)
        .where(AssignmentTarget.model_id == row.id)
        .order_by(Feature.name)
    ).all()


# --- prices -------------------------------------------------------------------------------------------


def _prices(session: Session, rows: Sequence[AIModel]) -> dict[UUID, ModelPrice]:
    """The prices in force now, by model."""
    found = session.scalars(
        select(ModelPrice)
        .ext(distinct_on(ModelPrice.model_id))
        .where(
            ModelPrice.model_id.in_([row.id for row in rows]), ModelPrice.valid_from <= func.clock_timestamp()
        )
        .order_by(ModelPrice.model_id, ModelPrice.valid_from.desc())
    )
    return {price.model_id: price for price in found}


def _price(session: Session, row: AIModel) -> ModelPrice | None:
    return _prices(session, [row]).get(row.id)


def _price_members(price: ModelPrice | None) -> dict[str, Decimal | str | None]:
    if price is None:
        return {**dict.fromkeys(PRICES), "price_unit": PriceUnit.TOKENS}
    return {**{name: getattr(price, name) for name in PRICES}, "price_unit": PriceUnit(price.price_unit)}


def _new_price(
    session: Session,
    row: AIModel,
    members: Mapping[str, object],
    before: ModelPrice | None,
    admin_id: UUID | None,
) -> ModelPrice:
    """A price from this instant on. The instant is read under the writers' lock: now() is when the
    transaction began, which may be before the price that it replaces."""
    now = func.clock_timestamp()
    if before is not None:
        now = func.greatest(now, before.valid_from + _INSTANT)
    price = ModelPrice(
        id=new_id(), model_id=row.id, valid_from=session.scalar(select(now)), created_by=admin_id, **members
    )
    session.add(price)
    session.flush()
    return price


def _shown(row: AIModel, price: ModelPrice | None) -> Model:
    members = _price_members(price)
    amounts = {name: None if members[name] is None else f"{members[name]:f}" for name in PRICES}
    return fields.shown(Model, row, **amounts, price_unit=str(members["price_unit"]))
