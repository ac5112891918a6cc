"""The actors: one for each capability. A queue is a lane, and any actor may be called from any lane."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

import dramatiq

from routing.values import Capability

Run = Callable[[UUID], None]


def declare(broker: dramatiq.Broker, run: Run) -> None:
    """Register an actor per capability that hands its job to `run`."""
    for capability in Capability:
        declare_actor = dramatiq.actor(actor_name=capability, queue_name="standard", broker=broker)
        declare_actor(_actor(run))


def _actor(run: Run) -> Callable[[str], None]:
    def perform(job_id: str) -> None:
        run(UUID(job_id))

    return perform
