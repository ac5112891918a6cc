"""What a call costs: usage times price, in dollars and exact decimals.

What is unknown stays unknown: a count without a price costs None, never 0. Two prices have a stand-in,
because vendors that do not list them charge no separate rate:

* cached input without a cached price costs the input price. That overestimates, never hides spend.
* cache writes without a write price cost the input price. The vendors that do charge more for a write
  (25-100 %) publish the rate, and the catalog carries it.

What was served at a batch's rate costs the batch prices; what they do not name costs as much less as they are
below the usual ones, and without them the usual ones hold. Where a gateway says what it took, that is it.
"""

from __future__ import annotations

from dataclasses import replace
from decimal import ROUND_HALF_EVEN, Decimal, localcontext

from routing.values import Price, PriceUnit, Usage

_PLACES = Decimal("1E-12")
_DIGITS = 60  # far more than any count times any price needs: nothing rounds before the end


def cost(usage: Usage, price: Price | None) -> Decimal | None:
    """Dollars for `usage`, to 12 places; None where a price of something consumed is unknown.

    Counts that are None cost nothing where another count of the same unit is known (an embedding has no
    output). Where the price's unit was not counted at all but something else was, the cost is unknown.
    """
    with localcontext() as context:
        context.prec = _DIGITS
        total = _total(usage, price) if usage.cost_usd is None else usage.cost_usd
        return None if total is None else total.quantize(_PLACES, rounding=ROUND_HALF_EVEN)


def _total(usage: Usage, price: Price | None) -> Decimal | None:
    if not _consumed(usage):
        return Decimal(0)
    if price is None:
        return None
    if price.unit is PriceUnit.TOKENS:
        return _of_tokens(usage, _as_batch(price) if usage.batch_rate else price)
    counts = {
        PriceUnit.CHARACTERS: usage.characters,
        PriceUnit.SECONDS: usage.seconds,
        PriceUnit.IMAGES: usage.images,
    }
    count = counts[price.unit]
    if count is None:
        return None
    # One count, one rate: rows keep it on the input side; an image model's may stand on the output side.
    return _part(count, price.output_per_1k if price.input_per_1k is None else price.input_per_1k)


def _of_tokens(usage: Usage, price: Price) -> Decimal | None:
    if usage.input_tokens is None and usage.output_tokens is None:
        return None
    entered = usage.input_tokens or 0
    cached = min(usage.cached_tokens or 0, entered)
    written = min(usage.cache_write_tokens or 0, entered - cached)
    parts = [
        _part(entered - cached - written, price.input_per_1k),
        _part(cached, _first_known(price.cached_input_per_1k, price.input_per_1k)),
        _part(written, _first_known(price.cache_write_per_1k, price.input_per_1k)),
        _part(usage.output_tokens or 0, price.output_per_1k),
    ]
    known = [part for part in parts if part is not None]
    return sum(known, Decimal(0)) if len(known) == len(parts) else None


def _as_batch(price: Price) -> Price:
    """The price at a batch's rate: cached and written tokens are discounted as other input is."""
    entered = _first_known(price.batch_input_per_1k, price.input_per_1k)
    discount = entered / price.input_per_1k if entered is not None and price.input_per_1k else Decimal(1)
    return replace(
        price,
        input_per_1k=entered,
        output_per_1k=_first_known(price.batch_output_per_1k, price.output_per_1k),
        cached_input_per_1k=_times(price.cached_input_per_1k, discount),
        cache_write_per_1k=_times(price.cache_write_per_1k, discount),
    )


def _times(price: Decimal | None, discount: Decimal) -> Decimal | None:
    return None if price is None else price * discount


def _part(count: float, per_1k: Decimal | None) -> Decimal | None:
    if not count:
        return Decimal(0)
    return None if per_1k is None else Decimal(str(count)) * per_1k / 1000


def _first_known(*prices: Decimal | None) -> Decimal | None:
    return next((price for price in prices if price is not None), None)


def _consumed(usage: Usage) -> bool:
    return any(
        (usage.input_tokens, usage.output_tokens, usage.characters, usage.seconds, usage.images),
    )
