"""The forecast: what schedules are going to take, and what that leaves of budgets."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from admin_api.forecast import ForecastQuery, forecasted
from admin_api.pages.budgets import called
from admin_api.pages.render import page
from admin_api.pages.route import PageRoute
from admin_api.security import allow_reading
from admin_api.services import Using
from admin_api.sessions import Reading

router = APIRouter(route_class=PageRoute)

PATH = "/forecast"

_MOST = 20
_PERIODS = (("1 d", 1), ("7 d", 7), ("30 d", 30), ("90 d", 90))


@router.get(PATH)
@allow_reading
def show_forecast(
    query: Annotated[ForecastQuery, Query()], request: Request, session: Reading, using: Using
) -> Response:
    """What active schedules take from now on, dearest first."""
    found = forecasted(session, using, days=query.days)
    return page(
        request,
        "forecast.html",
        forecast=found,
        days=query.days,
        items=sorted(found.items, key=lambda each: -float(each.cost_usd or 0))[:_MOST],
        budgets=[(each, called(each, session)) for each in found.budgets],
        periods=[(said, days, f"{PATH}?days={days}") for said, days in _PERIODS],
    )
