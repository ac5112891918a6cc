"""Runs of plans, with everything that a worker brings along."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from typing import Any

from routing.breaker import Breakers
from routing.cooldowns import Cooldowns
from routing.failover import execute
from routing.limits import ProcessLimits
from routing.retry_budget import RetryBudget
from routing.transport import Transport
from routing.values import Outcome, Plan
from tests.routing import factories
from tests.routing.factories import VAULT


def ran(plan: Plan, values: Mapping[str, Any] | None = None) -> Outcome:
    """How the plan ends for a job of this input, in a process that knows nothing yet.

    What the input points to may lie on this machine.
    """
    with closing(Transport(private_inputs=True)) as transport:
        return execute(
            plan,
            factories.request(values),
            transport=transport,
            breakers=Breakers(),
            cooldowns=Cooldowns(),
            limits=ProcessLimits(),
            vault=VAULT,
            budget=RetryBudget(),
            still_ours=lambda: True,
            reserve=lambda _: None,
        )
