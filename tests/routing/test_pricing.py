from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.pricing import cost
from routing.values import Price, PriceUnit, Usage
from tests.routing import factories

_counts = st.integers(0, 10**9)
_rates = st.decimals(0, 100, places=10)


@st.composite
def _usages(draw: st.DrawFn) -> Usage:
    """Usages whose parts are parts: cached and written tokens are among the input's."""
    cached, written, fresh = draw(_counts), draw(_counts), draw(_counts)
    return Usage(cached + written + fresh, draw(_counts), cached, written)


@st.composite
def _prices(draw: st.DrawFn) -> Price:
    return factories.price(
        input_per_1k=draw(_rates),
        output_per_1k=draw(_rates),
        cached_input_per_1k=draw(st.none() | _rates),
        cache_write_per_1k=draw(st.none() | _rates),
    )


def _plus(a: Usage, b: Usage) -> Usage:
    names = ("input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens")
    return replace(a, **{name: getattr(a, name) + getattr(b, name) for name in names})


def _known(usage: Usage, price: Price) -> Decimal:
    amount = cost(usage, price)
    assert amount is not None
    return amount


@given(_usages(), _prices())
def test_total_is_the_sum_of_its_parts(usage: Usage, price: Price) -> None:
    cached, written = usage.cached_tokens or 0, usage.cache_write_tokens or 0
    parts = (
        Usage((usage.input_tokens or 0) - cached - written, 0),
        Usage(cached, 0, cached),
        Usage(written, 0, 0, written),
        Usage(0, usage.output_tokens),
    )
    assert abs(_known(usage, price) - sum(_known(part, price) for part in parts)) <= Decimal("4E-12")


@given(_usages(), _usages(), _prices())
def test_cost_is_additive_and_never_negative(a: Usage, b: Usage, price: Price) -> None:
    together = _known(_plus(a, b), price)
    assert abs(together - _known(a, price) - _known(b, price)) <= Decimal("3E-12")
    assert _known(a, price) >= 0


@given(_usages(), _prices(), st.sampled_from(["input_tokens", "output_tokens"]), _counts)
def test_more_tokens_never_cost_less(usage: Usage, price: Price, name: str, more: int) -> None:
    grown = replace(usage, **{name: getattr(usage, name) + more})
    assert _known(grown, price) >= _known(usage, price)


def test_rates_apply_to_what_they_are_for() -> None:
    price = factories.price(
        input_per_1k=Decimal(1),
        output_per_1k=Decimal(100),
        cached_input_per_1k=Decimal("0.1"),
        cache_write_per_1k=Decimal("1.25"),
    )
    # 500 fresh at 1, 300 cached at 0.1, 200 written at 1.25, 10 out at 100
    assert cost(Usage(1000, 10, 300, 200), price) == Decimal("0.5") + Decimal("0.03") + Decimal("0.25") + 1


@pytest.mark.parametrize(
    ("usage", "price", "expected"),
    [
        (Usage(1000, 0, 400), factories.price(), Decimal("0.001")),  # no cached price: the input's
        (Usage(1000, 0, 0, 400), factories.price(), Decimal("0.001")),  # no write price: the input's
        (Usage(10, 10), factories.price(output_per_1k=None), None),
        (Usage(10, 0), factories.price(output_per_1k=None), Decimal("0.00001")),
        (Usage(10, 10), None, None),
        (Usage(0, 0), None, Decimal(0)),
        (Usage(), None, Decimal(0)),
        (Usage(5, 0, 500), factories.price(cached_input_per_1k=Decimal(1)), Decimal("0.005")),  # clamped
        (Usage(characters=50), factories.price(), None),  # priced by tokens, counted in characters
        (Usage(characters=50), factories.price(unit=PriceUnit.CHARACTERS), Decimal("0.00005")),
        (Usage(seconds=1.5), factories.price(unit=PriceUnit.SECONDS), Decimal("0.0000015")),
        (Usage(images=2), factories.price(unit=PriceUnit.IMAGES, input_per_1k=None), Decimal("0.000004")),
        (
            Usage(characters=50),
            factories.price(unit=PriceUnit.CHARACTERS, input_per_1k=None, output_per_1k=None),
            None,
        ),
    ],
)
def test_unknown_is_none_and_never_zero(usage: Usage, price: Price | None, expected: Decimal | None) -> None:
    assert cost(usage, price) == expected


def test_rounding_happens_once_at_the_end() -> None:
    price = factories.price(input_per_1k=Decimal("0.0000000004"), output_per_1k=Decimal("0.0000000004"))
    assert cost(Usage(1, 1), price) == Decimal("0.000000000001")  # 0.4E-12 twice, rounded together
