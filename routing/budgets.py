"""What a call may cost, before it is made: reserved with the budgets that cover it, or refused by one.

The figures are the database's. Where no budget covers a call nothing is asked.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import TypeAlias
from uuid import UUID

from routing import estimate, pricing
from routing.errors import BudgetDeferred, BudgetSpent, RoutingError
from routing.values import Call, Capability, Plan, Route, Usage

_UNDER_WAY_SECONDS = 1.0  # until it is worth to ask again, where others' calls are about to end
_MOST_OUTPUT = 1024  # tokens of an answer, where neither the call nor its model says


@dataclass(frozen=True, slots=True)
class Reservation:
    """What a call may take, at most by estimate. `n` is its number in its run."""

    n: int
    feature: str
    user_id: str | None
    provider_id: UUID
    usd: Decimal
    tokens: int
    is_cheapest: bool


@dataclass(frozen=True, slots=True)
class InTheWay:
    """A budget that has no room for a call, and what it does then; `wait`: calls under way have reserved what
    is left. `seconds_left`: until its period ends."""

    scope: str
    scope_id: str
    period: str
    action: str
    left_usd: Decimal | None
    left_tokens: int | None
    seconds_left: float


Reserve: TypeAlias = Callable[[Reservation], InTheWay | None]


def refusal(plan: Plan, call: Call, n: int, user_id: str | None, reserve: Reserve) -> RoutingError | None:
    """Reserve what `call` may cost; why it must not be made, or None.

    One round trip; none where no budget covers it.
    """
    route = call.route
    covered = any(
        budget.covers(feature=plan.feature.name, user_id=user_id, provider_id=route.provider.id)
        for budget in plan.budgets
    )
    if not covered:
        return None
    most = at_most(call)
    reservation = Reservation(
        n=n,
        feature=plan.feature.name,
        user_id=user_id,
        provider_id=route.provider.id,
        usd=pricing.cost(most, route.price) or Decimal(0),
        tokens=(most.input_tokens or 0) + (most.output_tokens or 0),
        is_cheapest=_is_cheapest(plan, route),
    )
    found = reserve(reservation)
    return None if found is None else _error(found, reservation)


def at_most(call: Call) -> Usage:
    """What a call may consume: its input as it is, and as much output as it asks for."""
    limits = (call.parameters.get(name) for name in ("max_tokens", "max_completion_tokens"))
    asked = next((limit for limit in limits if isinstance(limit, int)), None)
    output = asked or min(call.route.model.max_output_tokens or _MOST_OUTPUT, _MOST_OUTPUT)
    writes = call.capability in (Capability.TEXT, Capability.VISION)
    number = call.parameters.get("n")
    return Usage(
        input_tokens=estimate.prompt_tokens(call),
        output_tokens=output if writes else 0,
        characters=sum(map(len, call.texts or (call.user,))),
        images=number if isinstance(number, int) else 1,
        estimated=True,
    )


def _is_cheapest(plan: Plan, route: Route) -> bool:
    return _rate(route) <= min(_rate(other) for other in plan.routes)


def _rate(route: Route) -> Decimal | float:
    price = route.price
    known = [part for part in (price.input_per_1k, price.output_per_1k) if part is not None] if price else []
    return sum(known) if known else math.inf


def _error(found: InTheWay, wanted: Reservation) -> RoutingError:
    whose = "" if found.scope == "global" else f" of {found.scope} {found.scope_id}"
    left = [f"${found.left_usd:f}"] if found.left_usd is not None else []
    left += [f"{found.left_tokens:,} tokens"] if found.left_tokens is not None else []
    message = (
        f"The budget{whose} for this {found.period} has {' and '.join(left)} left, and this call may take "
        f"${wanted.usd:f} and {wanted.tokens:,} tokens. Raise the limit, or wait for the next {found.period} "
        "(UTC)."
    )
    if found.action == "wait":
        return BudgetDeferred(f"{message} Calls under way have reserved it.", retry_after=_UNDER_WAY_SECONDS)
    if found.action == "defer":
        return BudgetDeferred(message, retry_after=found.seconds_left)
    return BudgetSpent(message)
