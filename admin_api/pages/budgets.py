"""Budgets: what may be spent, how much of it is, and what happens then."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy import select
from sqlalchemy.orm import Session

from admin_api.budgets import (
    Budget,
    BudgetBody,
    BudgetQuery,
    change_budget,
    create_budget,
    delete_budget,
    get_budget,
    list_budgets,
)
from admin_api.forecast import ExpectedBudget
from admin_api.pages.controls import Tweak
from admin_api.pages.forms import Form, Group
from admin_api.pages.render import page
from admin_api.pages.route import PageRoute, Sent, changes, done
from admin_api.security import Current, allow_reading, allow_writing
from admin_api.sessions import Reading, Writing
from store.tables import AIProvider

router = APIRouter(route_class=PageRoute)

PATH = "/budgets"

_AT_ONCE = 50

BUDGET = Form(
    BudgetBody,
    Group("Whose", "scope", "scope_id", "period"),
    Group("How much", "limit_usd", "limit_tokens"),
    Group("What happens", "action", "alert_percent", "is_active"),
    scope_id=Tweak(
        label="Which one",
        help="A provider's slug, a feature's name or a user. Global: empty. User, empty: each has his own.",
    ),
    limit_usd=Tweak(label="Limit, $", placeholder="25.00"),
    limit_tokens=Tweak(label="Limit, tokens", help="Input and output together."),
    action=Tweak(
        label="At 100 %",
        help="alert: nothing stops. downgrade: the cheapest route. block: jobs fail. defer: they wait for "
        "the next period.",
    ),
    alert_percent=Tweak(label="Tell at, %", help="Once a period each, to every active integration."),
)


@router.get(PATH)
@allow_reading
def show_budgets(query: Annotated[BudgetQuery, Query()], request: Request, session: Reading) -> Response:
    found = list_budgets(query.model_copy(update={"limit": _AT_ONCE}), session)
    return page(
        request,
        "budgets.html",
        budgets=[(each, called(each, session)) for each in found.items],
        first=PATH if query.cursor else "",
        further=f"{PATH}?cursor={found.next_cursor}" if found.next_cursor else "",
    )


@router.get(f"{PATH}/new")
@allow_writing
def new_budget(request: Request) -> Response:
    return page(
        request,
        "form.html",
        title="New budget",
        lead="It counts what this period has cost already, and holds for every call from now on.",
        crumbs=[("Budgets", PATH)],
        form=BUDGET.view(request, given={"scope": "global"}),
        submit="Save budget",
        cancel=PATH,
    )


@router.post(f"{PATH}/new")
@allow_writing
def add_budget(sent: Sent, session: Writing, caller: Current) -> Response:
    made = create_budget(BUDGET.body(sent), session, caller)
    return done(PATH, f"The budget for {called(made, session)} is there.")


@router.get(PATH + "/{budget_id}/edit")
@allow_writing
def edit_budget(budget_id: UUID, request: Request, session: Reading) -> Response:
    stored = get_budget(budget_id, session)
    return page(
        request,
        "form.html",
        title=f"Budget for {called(stored, session)}",
        lead="What is spent stays counted.",
        crumbs=[("Budgets", PATH)],
        form=BUDGET.view(request, stored),
        submit="Save budget",
        cancel=PATH,
    )


@router.post(PATH + "/{budget_id}/edit")
@allow_writing
@changes(get_budget)
def save_budget(budget_id: UUID, sent: Sent, session: Writing, caller: Current) -> Response:
    change_budget(budget_id, BUDGET.changes(sent), session, caller)
    return done(PATH, "Budget saved.")


@router.post(PATH + "/{budget_id}/delete")
@allow_writing
def remove_budget(budget_id: UUID, session: Writing) -> Response:
    name = called(get_budget(budget_id, session), session)
    delete_budget(budget_id, session)
    return done(PATH, f"The budget for {name} is gone. It limits nothing any more.")


def called(budget: Budget | ExpectedBudget, session: Session) -> str:
    """Whose budget it is, as people say it."""
    if budget.scope == "global":
        return "everything"
    if budget.scope_id is None:
        return "each user"
    if budget.scope != "provider":
        return budget.scope_id
    slug = session.scalar(select(AIProvider.slug).where(AIProvider.id == UUID(budget.scope_id)))
    return slug or "a provider that is gone"
