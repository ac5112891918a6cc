"""Strategies and conditions, through the resolver."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.figures import Figures
from routing.resolver import resolve
from routing.snapshot import Snapshot
from routing.strategies import EXPLORED, STRATEGIES, Choice, Situation
from routing.values import Budget, Plan, Price, Target
from tests.routing import factories

NOW = datetime(2026, 11, 28, tzinfo=UTC)


class World:
    """One feature with as many models as wanted, each of a provider of its own."""

    def __init__(
        self,
        count: int,
        *,
        strategy: str = "priority",
        targets: Sequence[dict[str, Any]] = (),
        number: int = 0,
        **assigned: Any,
    ) -> None:
        # The same ids in every run: choices by hash depend on them.
        chance = random.Random(number)
        self.feature = factories.feature(id=_id(chance))
        self.providers = [factories.provider(slug=f"p{n}", id=_id(chance)) for n in range(count)]
        self.models = [
            factories.model(owner.id, model_id=f"m{n}", id=_id(chance))
            for n, owner in enumerate(self.providers)
        ]
        self.assignment = factories.assignment(
            id=_id(chance),
            feature_id=self.feature.id,
            strategy=strategy,
            targets=tuple(
                Target(model.id, **(targets[n] if n < len(targets) else {}))
                for n, model in enumerate(self.models)
            ),
            **assigned,
        )
        self.prices: dict[UUID, Sequence[Price]] = {}
        self.budgets: list[Budget] = []

    def plan(self, *, figures: Figures | None = None, **asked: Any) -> Plan:
        snapshot = Snapshot(
            version=1,
            features={self.feature.name: self.feature},
            assignments={self.feature.id: self.assignment},
            models={model.id: model for model in self.models},
            providers={provider.id: provider for provider in self.providers},
            prices=self.prices,
            budgets=self.budgets,
        )
        return resolve(snapshot, factories.request(**asked), now=NOW, figures=figures)

    def order(self, **asked: Any) -> list[str]:
        return [route.model.model_id for route in self.plan(**asked).routes]


def _id(chance: random.Random) -> UUID:
    return UUID(int=chance.getrandbits(128), version=4)


def _share(world: World, **asked: Any) -> float:
    """Of 10,000 callers, the share for whom the second model comes first."""
    return sum(world.order(sticky=f"user-{n}", **asked)[0] == "m1" for n in range(10_000)) / 10_000


def test_priority_keeps_the_order_of_the_assignment() -> None:
    assert World(3).order(sticky="ada") == ["m0", "m1", "m2"]


class TestWeighted:
    @pytest.mark.parametrize("share", [0.1, 0.5])
    def test_each_is_first_as_often_as_its_share(self, share: float) -> None:
        targets = [{"weight": 1 - share}, {"weight": share}]
        worlds = [World(2, strategy="weighted", targets=targets, number=n) for n in range(5)]

        first = [_share(world) for world in worlds]

        assert max(abs(each - share) for each in first) < 0.01
        assert abs(sum(first) / len(first) - share) < 0.005

    def test_one_caller_always_meets_the_same_order(self) -> None:
        world = World(4, strategy="weighted")

        assert len({tuple(world.order(sticky="ada")) for _ in range(20)}) == 1

    def test_raising_a_weight_moves_callers_to_it_alone(self) -> None:
        before = World(3, strategy="weighted")
        targets = list(before.assignment.targets)
        after_targets = (targets[0], targets[1], replace(targets[2], weight=2.0))

        callers = [f"user-{n}" for n in range(500)]
        first = {caller: before.order(sticky=caller)[0] for caller in callers}
        before.assignment = replace(before.assignment, targets=after_targets)
        moved = {caller for caller in callers if before.order(sticky=caller)[0] != first[caller]}

        assert moved
        assert {before.order(sticky=caller)[0] for caller in moved} == {"m2"}

    def test_without_a_weight_it_is_only_a_backup(self) -> None:
        world = World(2, strategy="weighted", targets=[{"weight": 0}, {"weight": 1}])

        assert {tuple(world.order(sticky=f"user-{n}")) for n in range(200)} == {("m1", "m0")}


class TestCheapest:
    def test_unknown_prices_come_last(self) -> None:
        world = World(3, strategy="cheapest")
        dear = factories.price(input_per_1k=Decimal(2), output_per_1k=Decimal(2))
        cheap = factories.price(input_per_1k=Decimal(1), output_per_1k=Decimal(2))
        world.prices = {world.models[1].id: [dear], world.models[2].id: [cheap]}

        assert world.order() == ["m2", "m1", "m0"]

    def test_what_the_feature_usually_takes_decides(self) -> None:
        world = World(2, strategy="cheapest")
        reads_cheaply = factories.price(input_per_1k=Decimal(1), output_per_1k=Decimal(10))
        writes_cheaply = factories.price(input_per_1k=Decimal(5), output_per_1k=Decimal(5))
        world.prices = {world.models[0].id: [reads_cheaply], world.models[1].id: [writes_cheaply]}

        reading = Figures(tokens={world.feature.name: (1000, 10)})
        writing = Figures(tokens={world.feature.name: (10, 1000)})

        assert world.order(figures=reading) == ["m0", "m1"]
        assert world.order(figures=writing) == ["m1", "m0"]


class TestFastest:
    def test_by_median_latency(self) -> None:
        world = World(3, strategy="fastest")
        figures = Figures(p50_ms=dict(zip((m.id for m in world.models), (300.0, 100.0, 200.0), strict=True)))

        assert world.order(figures=figures) == ["m1", "m2", "m0"]

    def test_what_nobody_measured_is_tried_by_a_few(self) -> None:
        world = World(2, strategy="fastest")
        figures = Figures(p50_ms={world.models[0].id: 100.0})

        assert abs(_share(world, figures=figures) - EXPLORED) < 0.01

    def test_what_nobody_measured_goes_by_its_last_probe(self) -> None:
        world = World(4, strategy="fastest")
        probes = dict(zip((p.id for p in world.providers), (math.inf, 90.0, 40.0, 300.0), strict=True))
        figures = Figures(p50_ms={world.models[3].id: 500.0}, probe_ms=probes)

        orders = Counter(tuple(world.order(figures=figures, sticky=f"job-{n}")) for n in range(1000))

        assert set(orders) == {("m3", "m2", "m1", "m0"), ("m2", "m1", "m3", "m0")}
        assert orders["m3", "m2", "m1", "m0"] > 900, "the others are few, and never try what failed"

    def test_what_failed_its_probe_is_not_fast_any_more(self) -> None:
        world = World(2, strategy="fastest")
        figures = Figures(
            p50_ms={world.models[0].id: 10.0, world.models[1].id: 900.0},
            probe_ms={world.providers[0].id: math.inf},
        )

        assert world.order(figures=figures) == ["m1", "m0"]


def test_least_used_comes_first() -> None:
    world = World(3, strategy="least_used")
    figures = Figures(calls={world.models[0].id: 9, world.models[1].id: 3})

    assert world.order(figures=figures) == ["m2", "m1", "m0"]


class TestConditions:
    def test_a_plan_has_its_own_target(self) -> None:
        world = World(2, targets=[{"plan": "premium"}, {}])

        assert world.order(plan="premium") == ["m0", "m1"]
        assert world.order(plan="free") == ["m1"]
        (over,) = world.plan(plan="free").passed_over
        assert over.reason == "It serves jobs of plan 'premium' only, and not those of plan 'free'."

    def test_a_burned_budget_opens_a_cheaper_target(self) -> None:
        world = World(2, targets=[{"budget_burn_percent": 80}, {}])
        budget = Budget(uuid4(), "feature", world.feature.name, "day", Decimal(1), None, "alert")
        world.budgets = [budget]

        assert world.order(figures=Figures(burn={budget.id: 79.9})) == ["m1"]
        assert world.order(figures=Figures(burn={budget.id: 80.0})) == ["m0", "m1"]
        (over,) = world.plan(figures=Figures()).passed_over
        assert over.reason == "It serves jobs once 80 % of a budget are burned; now it is 0 %."

    def test_where_nobody_counts_it_may_hold(self) -> None:
        world = World(2, targets=[{"budget_burn_percent": 80}, {}])

        assert world.order() == ["m0", "m1"]

    def test_another_features_budget_opens_nothing(self) -> None:
        world = World(2, targets=[{"budget_burn_percent": 80}, {}])
        budget = Budget(uuid4(), "feature", "other", "day", Decimal(1), None, "alert")
        world.budgets = [budget]

        assert world.order(figures=Figures(burn={budget.id: 100.0})) == ["m1"]


_NUMBERS = st.one_of(st.none(), st.floats(0, 1e6))


@given(
    strategy=st.sampled_from(sorted(STRATEGIES)),
    weights=st.lists(st.floats(0, 1e6), max_size=8),
    known=st.lists(_NUMBERS, min_size=8, max_size=8),
    sticky=st.text(),
)
def test_a_strategy_neither_loses_nor_invents_a_route(
    strategy: str, weights: list[float], known: list[float | None], sticky: str
) -> None:
    choices = [Choice(Target(uuid4(), weight=weight), factories.route()) for weight in weights]
    measured = {
        choice.target.model_id: value
        for choice, value in zip(choices, known, strict=False)
        if value is not None
    }
    figures = Figures(p50_ms=measured, calls={model_id: int(value) for model_id, value in measured.items()})
    situation = Situation(uuid4(), "feature", sticky, figures)

    ordered = STRATEGIES[strategy](choices, situation)

    assert sorted(map(id, ordered)) == sorted(map(id, choices))
    assert STRATEGIES[strategy](choices, situation) == ordered
