"""What usage adds up to, each figure against the period before."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from admin_api.pages.formats import compact, milliseconds, money, number, percent
from admin_api.usage import Sums

_SAME = 0.005  # a change of less than this share is none
_MANIFOLD = 10


@dataclass(frozen=True, slots=True)
class Change:
    """How a figure differs from the one before: as people see it, and as it is read out.

    `tone`: whether that is good or bad; "quiet" where it is neither.
    """

    sign: str
    amount: str
    words: str
    tone: str = "quiet"


@dataclass(frozen=True, slots=True)
class Figure:
    """A key figure. `tone` as of the macro `figure`."""

    label: str
    value: str
    change: Change | None
    note: str
    tone: str = "key"


def figures(now: Sums, before: Sums) -> list[Figure]:
    """The figures of a period."""
    return [
        Figure(
            "Cost",
            money(now.cost_usd),
            _change(float(now.cost_usd), float(before.cost_usd)),
            _rate(now),
        ),
        Figure("Calls", compact(now.calls), _change(now.calls, before.calls), _passed_over(now)),
        Figure(
            "Tokens",
            compact(_tokens(now)),
            _change(_tokens(now), _tokens(before)),
            _kinds(now),
        ),
        Figure(
            "Latency, p50",
            milliseconds(now.latency_ms.p50),
            _change(now.latency_ms.p50, before.latency_ms.p50, more_is="bad"),
            f"p95 {milliseconds(now.latency_ms.p95)} · p99 {milliseconds(now.latency_ms.p99)}",
        ),
        Figure(
            "Error rate",
            percent(now.error_rate),
            _points(now.error_rate, before.error_rate),
            f"{number(now.failed)} failed",
            "bad" if (now.error_rate or 0) >= 0.1 else "warn" if now.failed else "key",
        ),
        Figure(
            "Failovers",
            compact(now.failovers),
            _change(now.failovers, before.failovers, more_is="bad"),
            "calls of the next route",
        ),
        Figure(
            "Wasted",
            money(now.wasted_usd),
            _change(float(now.wasted_usd), float(before.wasted_usd), more_is="bad"),
            "failed, superseded or lost",
        ),
        Figure(
            "Unpriced calls",
            compact(now.unpriced_calls),
            _change(now.unpriced_calls, before.unpriced_calls, more_is="bad"),
            "in no cost: nobody knows",
            "warn" if now.unpriced_calls else "key",
        ),
    ]


def _tokens(sums: Sums) -> int:
    return sums.input_tokens + sums.output_tokens


def _kinds(sums: Sums) -> str:
    entered, left = f"{compact(sums.input_tokens)} in", f"{compact(sums.output_tokens)} out"
    if sums.cached_tokens:
        entered += f" ({compact(sums.cached_tokens)} cached)"
    if sums.reasoning_tokens:
        left += f" ({compact(sums.reasoning_tokens)} reasoning)"
    estimated = f" · {compact(sums.estimated_calls)} calls estimated" if sums.estimated_calls else ""
    return f"{entered} · {left}{estimated}"


def _rate(sums: Sums) -> str:
    """What a thousand calls cost whose price is known."""
    priced = sums.calls - sums.unpriced_calls
    said = f"{money(Decimal(sums.cost_usd) / priced * 1000)} per 1,000 calls" if priced else "of all calls"
    return f"{said}, without {compact(sums.unpriced_calls)} unpriced" if sums.unpriced_calls else said


def _passed_over(sums: Sums) -> str:
    others = sums.attempts - sums.calls
    return f"{compact(others)} routes passed over" if others else "reached a provider"


def _change(now: float | None, before: float | None, *, more_is: str = "quiet") -> Change | None:
    """None where one of them is unknown, or both are nothing."""
    if now is None or before is None or not (now or before):
        return None
    if not before:
        return Change("↑", "new", "none in the period before", more_is)
    share = now / before - 1
    if abs(share) < _SAME:
        return Change("=", "same", "as much as in the period before")
    amount = f"{abs(share) * 100:.3g} %" if share < _MANIFOLD else f"{now / before:,.0f} times"
    return _told(share, amount, more_is)


def _points(now: float | None, before: float | None) -> Change | None:
    """The change of a share, of which a share would mislead."""
    if now is None or before is None:
        return None
    if abs(now - before) < _SAME / 10:
        return Change("=", "same", "as much as in the period before")
    return _told(now - before, f"{abs(now - before) * 100:.1f} points", "bad")


def _told(difference: float, amount: str, more_is: str) -> Change:
    if difference > 0:
        return Change("↑", amount, f"up {amount} from the period before", more_is)
    tone = "good" if more_is == "bad" else more_is
    return Change("↓", amount, f"down {amount} from the period before", tone)
