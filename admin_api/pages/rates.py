"""Prices as people compare them: by the million tokens, the minute, the image; not by the thousand units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

from admin_api.pages.formats import money

_SCALES: Mapping[str, tuple[Decimal, str]] = {
    "tokens": (Decimal(1000), "1M\N{NO-BREAK SPACE}tokens"),
    "characters": (Decimal(1000), "1M\N{NO-BREAK SPACE}characters"),
    "seconds": (Decimal("0.06"), "minute"),
    "images": (Decimal("0.001"), "image"),
}
"""By unit: what a price per 1,000 of it is multiplied by, and what that is the price of."""


class Priced(Protocol):
    """What has prices per 1,000 of a unit: a model, a price of it, a price of the catalog."""

    price_unit: str
    input_price_per_1k: str | None
    output_price_per_1k: str | None


@dataclass(frozen=True, slots=True)
class Rate:
    """Prices for what goes in and what comes out, and of how much; a dash where nobody knows."""

    entered: str
    left: str
    per: str

    @property
    def is_known(self) -> bool:
        """Whether there is a price at all."""
        return bool(self.per)


def rate(priced: Priced | None) -> Rate:
    """The prices as people compare them."""
    if priced is None or (priced.input_price_per_1k is None and priced.output_price_per_1k is None):
        return Rate(money(None), money(None), "")
    scale, per = _SCALES[priced.price_unit]
    return Rate(_scaled(priced.input_price_per_1k, scale), _scaled(priced.output_price_per_1k, scale), per)


def scaled(amount: str | None, unit: str) -> str:
    """One price per 1,000 of a unit, as people compare it."""
    return _scaled(amount, _SCALES[unit][0])


def _scaled(amount: str | None, scale: Decimal) -> str:
    return money(None if amount is None else Decimal(amount) * scale)
