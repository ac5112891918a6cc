"""The forecast: what schedules are going to cost, against budgets."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from admin_api import budgets
from admin_api.security import GuardedRoute, allow_reading
from admin_api.services import Services, Using
from admin_api.sessions import Reading
from store.tables import Budget as BudgetRow
from store.tables import Schedule as ScheduleRow
from workers import forecast
from workers.forecast import Expected, Planned

router = APIRouter(prefix="/forecast", tags=["schedules"], route_class=GuardedRoute)


class ForecastQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    days: Annotated[int, Field(ge=1, le=366, description="How far to look ahead.")] = 30


class ExpectedUsage(BaseModel):
    """What one feature of a schedule is expected to take; null: nobody knows, for there was no such call in
    the last seven days, or its model has no price."""

    schedule_id: UUID
    schedule: str
    feature: str
    model: str | None
    firings: int
    jobs: int
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: str | None


class ExpectedBudget(BaseModel):
    """A budget at the end of its present period, if only schedules spend from now on."""

    budget_id: UUID
    scope: str
    scope_id: str | None
    period: str
    ends_at: datetime
    limit_usd: str | None
    spent_usd: str
    expected_usd: str
    percent: Annotated[float | None, Field(description="Of the limit in dollars; null without one.")]


class Forecast(BaseModel):
    """What active schedules are going to take. `cost_usd` is the sum of what is known of it."""

    since: datetime
    until: datetime
    items: list[ExpectedUsage]
    jobs: int
    input_tokens: int
    output_tokens: int
    cost_usd: str
    unknown_jobs: Annotated[int, Field(description="Jobs that cost something that nobody knows.")]
    budgets: list[ExpectedBudget]


@router.get("")
@allow_reading
def get_forecast(query: Annotated[ForecastQuery, Query()], session: Reading, using: Using) -> Forecast:
    """What active schedules are going to cost: firings x what jobs took in the last week x prices of now."""
    return forecasted(session, using, days=query.days)


def forecasted(session: Session, using: Services, *, days: int) -> Forecast:
    """The forecast of the next `days`."""
    since = datetime.now(UTC)
    until = since + timedelta(days=days)
    rows = session.scalars(select(ScheduleRow).where(ScheduleRow.is_active).order_by(ScheduleRow.id)).all()
    planned = [
        Planned(**{name: getattr(row, name) for name in Planned.__slots__})  # the columns' names
        for row in rows
    ]
    with using.pool.connection() as db:
        found = forecast.expected(db, using.client.configuration(), planned, since=since, until=until)
    known = [cost for one in found if (cost := one.cost_until(until)) is not None]
    return Forecast(
        since=since,
        until=until,
        items=[_shown(one, until) for one in found],
        jobs=sum(one.jobs for one in found),
        input_tokens=sum(one.input_tokens or 0 for one in found),
        output_tokens=sum(one.output_tokens or 0 for one in found),
        cost_usd=f"{sum(known, start=Decimal(0)):f}",
        unknown_jobs=sum(one.jobs for one in found if one.cost_each_usd is None),
        budgets=_budgets(session, found, until),
    )


def _shown(one: Expected, until: datetime) -> ExpectedUsage:
    cost = one.cost_until(until)
    return ExpectedUsage(
        schedule_id=one.schedule.id,
        schedule=one.schedule.name,
        feature=one.feature,
        model=None if one.model is None else one.model.model_id,
        firings=len(one.instants),
        jobs=one.jobs,
        input_tokens=one.input_tokens,
        output_tokens=one.output_tokens,
        cost_usd=None if cost is None else f"{cost:f}",
    )


def _budgets(session: Session, found: list[Expected], until: datetime) -> list[ExpectedBudget]:
    shown = []
    for row in session.scalars(select(BudgetRow).where(BudgetRow.is_active).order_by(BudgetRow.id)):
        spent = budgets.spent(session, row)
        if spent is None or row.scope == "user":  # schedules run for no end user
            continue
        end = min(spent.ends_at, until)
        costs = [one.cost_until(end) for one in found if _covers(row, one)]
        coming = sum((cost for cost in costs if cost is not None), start=Decimal(0))
        total = Decimal(spent.usd) + coming
        shown.append(
            ExpectedBudget(
                budget_id=row.id,
                scope=row.scope,
                scope_id=row.scope_id,
                period=row.period,
                ends_at=spent.ends_at,
                limit_usd=None if row.limit_usd is None else f"{row.limit_usd:f}",
                spent_usd=spent.usd,
                expected_usd=f"{coming:f}",
                percent=None if row.limit_usd is None else round(float(100 * total / row.limit_usd), 2),
            )
        )
    return shown


def _covers(row: BudgetRow, one: Expected) -> bool:
    if row.scope == "feature":
        return row.scope_id == one.feature
    if row.scope == "provider":
        return one.model is not None and row.scope_id == str(one.model.provider_id)
    return True
