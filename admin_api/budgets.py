"""Budgets: what a day or a month may cost, and what happens once it does."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, ClassVar, Literal
from uuid import UUID

from fastapi import APIRouter, Query, status
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from sqlalchemy import ColumnElement, delete, func, select
from sqlalchemy.orm import Session

from admin_api import fields
from admin_api.etags import tagged
from admin_api.fields import Stamps
from admin_api.pagination import Page, PageQuery, page_of
from admin_api.providers import Changes
from admin_api.refusals import Invalid, NotFound
from admin_api.security import Current, GuardedRoute, allow_reading, allow_writing
from admin_api.sessions import Reading, Writing
from store.ids import new_id
from store.tables import AIProvider, BudgetUsage, Feature
from store.tables import Budget as BudgetRow

router = APIRouter(prefix="/budgets", tags=["budgets"], route_class=GuardedRoute)

Scope = Literal["global", "provider", "feature", "user"]
_Percent = Annotated[int, Field(ge=1, le=1000)]


class BudgetBody(fields.Body):
    """A budget as clients send it. It needs a limit in dollars, in tokens, or both.

    Calls are counted from the beginning of the period (UTC), those of before it was made included. What a
    call may take is reserved before it is made: `block` fails a job that finds no room, `defer` puts it back
    until the period ends, `downgrade` leaves it the cheapest of its routes, `alert` stops nothing.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "scope": "feature",
                    "scope_id": "daily_zodiac_text",
                    "period": "day",
                    "limit_usd": "5.00",
                    "action": "defer",
                    "alert_percent": [80, 100],
                }
            ]
        }
    )

    scope: Annotated[Scope, Field(description="Whose calls count.")]
    scope_id: Annotated[
        Annotated[str, StringConstraints(min_length=1, max_length=200)] | None,
        Field(
            description="Id or slug of a provider, name of a feature, a user_id. Null for global; for user: "
            "each user has a budget of this size."
        ),
    ] = None
    period: Literal["day", "month"] = "month"
    limit_usd: Annotated[
        Annotated[Decimal, Field(gt=0, max_digits=18, decimal_places=6)] | None, Field(description="Dollars.")
    ] = None
    limit_tokens: Annotated[fields.Positive64 | None, Field(description="Input and output together.")] = None
    action: Annotated[
        Literal["alert", "downgrade", "block", "defer"], Field(description="What happens at 100 %.")
    ] = "alert"
    alert_percent: Annotated[
        list[_Percent], Field(max_length=10, description="An alert is raised at each, once a period.")
    ] = Field(default_factory=lambda: [80, 100])
    is_active: bool = True


class Spent(BaseModel):
    """What the present period has cost so far. `unpriced_calls` cost something that nobody knows."""

    starts_at: datetime
    ends_at: datetime
    usd: str
    tokens: int
    unpriced_calls: int
    percent: Annotated[float, Field(description="Of the limit that is nearer.")]


class Budget(Stamps):
    """A budget as the API shows it. `spent` is null where each user has one."""

    MOVES: ClassVar[frozenset[str]] = frozenset({"spent"})

    scope: Scope
    scope_id: str | None
    period: str
    limit_usd: str | None
    limit_tokens: int | None
    action: str
    alert_percent: list[int]
    is_active: bool
    spent: Spent | None


class BudgetQuery(PageQuery):
    scope: Scope | None = None
    is_active: bool | None = None


@router.get("")
@allow_reading
def list_budgets(query: Annotated[BudgetQuery, Query()], session: Reading) -> Page[Budget]:
    """Budgets, oldest first, with what they have spent."""
    wanted = select(BudgetRow)
    if query.scope is not None:
        wanted = wanted.where(BudgetRow.scope == query.scope)
    if query.is_active is not None:
        wanted = wanted.where(BudgetRow.is_active == query.is_active)
    rows, cursor = page_of(session, wanted, query, by=[BudgetRow.id])
    return Page(items=[_shown(session, row) for row in rows], next_cursor=cursor)


@router.post("", status_code=status.HTTP_201_CREATED)
@allow_writing
def create_budget(body: BudgetBody, session: Writing, caller: Current) -> Budget:
    """Add a budget. It holds for every call that begins from now on."""
    row = BudgetRow(id=new_id(), created_by=caller.admin_id)
    session.add(row)
    written(session, row, body, caller.admin_id)
    return _shown(session, row)


@router.get("/{budget_id}")
@allow_reading
@tagged
def get_budget(budget_id: UUID, session: Reading) -> Budget:
    """One budget."""
    return _shown(session, found(session, budget_id))


@router.put("/{budget_id}")
@allow_writing
def replace_budget(budget_id: UUID, body: BudgetBody, session: Writing, caller: Current) -> Budget:
    """Replace a budget; what is absent gets its default."""
    row = found(session, budget_id)
    written(session, row, body, caller.admin_id)
    return _shown(session, row)


@router.patch("/{budget_id}", openapi_extra=fields.patch_of(BudgetBody))
@allow_writing
def change_budget(budget_id: UUID, changes: Changes, session: Writing, caller: Current) -> Budget:
    """Change some members of a budget."""
    row = found(session, budget_id)
    written(session, row, fields.merged(fields.stored(BudgetBody, row), changes), caller.admin_id)
    return _shown(session, row)


@router.delete("/{budget_id}", status_code=status.HTTP_204_NO_CONTENT)
@allow_writing
def delete_budget(budget_id: UUID, session: Writing) -> None:
    """Remove a budget. Nothing is limited by it any more; what was spent stays in usage."""
    row = found(session, budget_id)
    session.execute(delete(BudgetRow).where(BudgetRow.id == row.id))


def found(session: Session, budget_id: UUID) -> BudgetRow:
    """The budget's row. Raises NotFound."""
    row = session.get(BudgetRow, budget_id)
    if row is None:
        raise NotFound(f"There is no budget {budget_id}.", hint="GET /budgets lists them.")
    return row


def written(session: Session, row: BudgetRow, body: BudgetBody, admin_id: UUID | None) -> None:
    """Take the body over. Raises Invalid."""
    if body.limit_usd is None and body.limit_tokens is None:
        raise Invalid("A budget needs a limit, in dollars or in tokens.", field="limit_usd")
    for name in BudgetBody.model_fields.keys() - {"scope_id", "alert_percent"}:
        setattr(row, name, getattr(body, name))
    row.scope_id = _scope_id(session, body)
    row.alert_percent = sorted(set(body.alert_percent))
    row.updated_by, row.updated_at = admin_id, func.now()
    session.flush()


def _scope_id(session: Session, body: BudgetBody) -> str | None:
    """Whose budget it is, as calls name it. Raises Invalid."""
    named = body.scope_id
    if body.scope == "global":
        if named is not None:
            raise Invalid("A global budget is nobody's in particular. Leave this empty.", field="scope_id")
        return None
    if body.scope == "user":
        return named
    if named is None:
        raise Invalid(f"Name the {body.scope} whose budget it is.", field="scope_id")
    if body.scope == "feature":
        if session.scalar(select(Feature.id).where(Feature.name == named)) is None:
            raise Invalid(
                f"There is no feature {named!r}.", field="scope_id", hint="GET /features lists them."
            )
        return named
    provider_id = session.scalar(select(AIProvider.id).where(_provider_named(named)))
    if provider_id is None:
        raise Invalid(f"There is no provider {named!r}.", field="scope_id", hint="GET /providers lists them.")
    return str(provider_id)


def _provider_named(text: str) -> ColumnElement[bool]:
    try:
        return AIProvider.id == UUID(text)
    except ValueError:
        return AIProvider.slug == text


def _shown(session: Session, row: BudgetRow) -> Budget:
    return fields.shown(
        Budget,
        row,
        limit_usd=None if row.limit_usd is None else f"{row.limit_usd:f}",
        spent=spent(session, row),
    )


def spent(session: Session, row: BudgetRow) -> Spent | None:
    """What the present period has cost so far; None where each user has a budget of this size."""
    if row.scope == "user" and row.scope_id is None:
        return None
    starts_at, ends_at = _period(row.period, datetime.now(UTC))
    counted = session.get(BudgetUsage, (row.scope, row.scope_id or "", row.period, starts_at))
    usd, tokens = (counted.usd, counted.tokens) if counted else (Decimal(0), 0)
    burned = [usd / row.limit_usd] if row.limit_usd else []
    burned += [Decimal(tokens) / row.limit_tokens] if row.limit_tokens else []
    return Spent(
        starts_at=starts_at,
        ends_at=ends_at,
        usd=f"{usd:f}",
        tokens=tokens,
        unpriced_calls=counted.unpriced_calls if counted else 0,
        percent=round(float(100 * max(burned)), 2),
    )


def _period(period: str, now: datetime) -> tuple[datetime, datetime]:
    """Beginning and end of the present day or month (UTC)."""
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if period == "day":
        return today, datetime.fromordinal(today.toordinal() + 1).replace(tzinfo=UTC)
    first = today.replace(day=1)
    year, month = (first.year + 1, 1) if first.month == 12 else (first.year, first.month + 1)
    return first, first.replace(year=year, month=month)
