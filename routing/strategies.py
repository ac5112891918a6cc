"""In which order an assignment's targets are tried. Pure: no I/O, no clock, and chance only by hash.

A strategy takes the usable targets in the order in which they are listed and returns them in the order in
which they are tried. What it cannot tell apart keeps its place.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TypeAlias
from uuid import UUID

from routing.figures import Figures
from routing.values import Route, Target

EXPLORED = 0.05
"""The share of jobs for which `fastest` tries a route first that nothing is known of yet."""

_SAME_OF_BOTH = (1.0, 1.0)  # input and output, where a feature's calls were not counted yet


@dataclass(frozen=True, slots=True)
class Choice:
    """A usable target."""

    target: Target
    route: Route


@dataclass(frozen=True, slots=True)
class Situation:
    """What strategies look at. `sticky` names whom a choice by hash sticks to."""

    assignment_id: UUID
    feature: str
    sticky: str
    figures: Figures


Strategy: TypeAlias = Callable[[Sequence[Choice], Situation], list[Choice]]


def priority(choices: Sequence[Choice], situation: Situation) -> list[Choice]:
    """As they are listed."""
    return list(choices)


def weighted(choices: Sequence[Choice], situation: Situation) -> list[Choice]:
    """Each first as often as its weight's share; one caller always meets the same order.

    Rendezvous hashing: where a weight changes, only as many callers move as must. Weight 0 is never first
    while others have one.
    """

    def distance(choice: Choice) -> float:
        weight = choice.target.weight
        drawn = _drawn(situation, str(choice.target.model_id))
        return -math.log(drawn) / weight if weight else math.inf

    return sorted(choices, key=distance)


def cheapest(choices: Sequence[Choice], situation: Situation) -> list[Choice]:
    """By what the feature's usual call costs. An unknown price comes last: it is not free."""
    usual = situation.figures.tokens.get(situation.feature, _SAME_OF_BOTH)

    def cost(choice: Choice) -> tuple[bool, Decimal]:
        price = choice.route.price
        known = [
            part * Decimal(amount)
            for part, amount in zip(
                (price.input_per_1k, price.output_per_1k) if price else (), usual, strict=False
            )
            if part is not None
        ]
        return not known, sum(known, start=Decimal(0))

    return sorted(choices, key=cost)


def fastest(choices: Sequence[Choice], situation: Situation) -> list[Choice]:
    """By the median latency of late.

    What was not called of late comes last, by its provider's last probe, but first for a few jobs: else it
    would never be known. What failed its probe comes after all others.
    """
    p50, probes = situation.figures.p50_ms, situation.figures.probe_ms
    unknown = -math.inf if _drawn(situation, "explore") < EXPLORED else math.inf

    def slowness(choice: Choice) -> tuple[bool, float, float]:
        probe = probes.get(choice.route.provider.id)
        return (
            probe == math.inf,
            p50.get(choice.target.model_id, unknown),
            math.inf if probe is None else probe,
        )

    return sorted(choices, key=slowness)


def least_used(choices: Sequence[Choice], situation: Situation) -> list[Choice]:
    """By how often each was called of late."""
    calls = situation.figures.calls
    return sorted(choices, key=lambda choice: calls.get(choice.target.model_id, 0))


STRATEGIES: Mapping[str, Strategy] = {
    "priority": priority,
    "weighted": weighted,
    "cheapest": cheapest,
    "fastest": fastest,
    "least_used": least_used,
}


def _drawn(situation: Situation, what: str) -> float:
    """A number in (0, 1], evenly spread over callers, the same each time for one."""
    text = f"{situation.assignment_id}:{situation.sticky}:{what}"
    drawn = int.from_bytes(hashlib.blake2b(text.encode(errors="replace"), digest_size=8).digest())
    return (drawn + 1) / 2**64
