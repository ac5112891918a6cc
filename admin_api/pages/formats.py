"""How times, money, durations and numbers read: one filter each. None, what nobody knows, is a dash."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from markupsafe import Markup, escape

DASH = "\N{EN DASH}"

_UNITS = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def ago(time: datetime | None) -> str:
    """How long ago (or when) that is; the exact time on demand."""
    if time is None:
        return DASH
    seconds = (datetime.now(UTC) - time).total_seconds()
    amount = abs(seconds)
    size, unit = next((pair for pair in _UNITS if amount >= pair[0]), (1, "s"))
    words = f"{int(amount // size)} {unit}"
    said = "now" if amount < 1 else f"{words} ago" if seconds > 0 else f"in {words}"
    return _time(time, said)


def at(time: datetime | None) -> str:
    """The time, to the second, in UTC."""
    return DASH if time is None else _time(time, time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S"))


def local(time: datetime | None, timezone: str) -> str:
    """The time as clocks in the zone show it, to the minute; the year where it is not this one."""
    if time is None:
        return DASH
    zone = ZoneInfo(timezone)
    shown = time.astimezone(zone)
    year = "" if shown.year == datetime.now(zone).year else f" {shown.year}"
    return _time(time, f"{shown:%a} {shown.day} {shown:%b}{year}, {shown:%H:%M}")


def _time(time: datetime, said: str) -> Markup:
    exact = time.astimezone(UTC)
    return Markup('<time datetime="{}" title="{} UTC">{}</time>').format(
        exact.strftime("%Y-%m-%dT%H:%M:%SZ"), exact.strftime("%Y-%m-%d %H:%M:%S"), said
    )


def money(dollars: Decimal | str | None) -> str:
    """Dollars: to the cent from one dollar on, below that to three digits that count."""
    if dollars is None:
        return DASH
    amount = Decimal(dollars)
    if amount == 0:
        return "$0"
    if abs(amount) >= 1:
        return f"${amount:,.2f}"
    whole, _, fraction = f"{amount:.{2 - amount.adjusted()}f}".partition(".")
    return f"${whole}.{fraction.rstrip('0'):0<2}"


def duration(seconds: float | None) -> str:
    """A span of time by its two largest units."""
    if seconds is None:
        return DASH
    if seconds < 1:
        return f"{round(seconds * 1000)} ms"
    if seconds < 60:
        return f"{seconds:.1f} s".replace(".0 s", " s")
    whole = round(seconds)
    first = next(index for index, (size, _) in enumerate(_UNITS) if whole >= size)
    size, unit = _UNITS[first]
    rest_size, rest_unit = _UNITS[first + 1]
    rest = whole % size // rest_size
    return f"{whole // size} {unit}" + (f" {rest} {rest_unit}" if rest else "")


def milliseconds(amount: float | None) -> str:
    """A span of time that is given in milliseconds."""
    return duration(None if amount is None else amount / 1000)


def size(amount: int | None) -> str:
    """Bytes, in the unit that suits them."""
    if amount is None:
        return DASH
    value = float(amount)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} GB"


def number(amount: float | None) -> str:
    """A count with its thousands apart."""
    if amount is None:
        return DASH
    return f"{amount:,.0f}" if float(amount).is_integer() else f"{amount:,.2f}"


def compact(amount: float | None) -> str:
    """A count as axes and tiles show it: 12.3k."""
    if amount is None:
        return DASH
    value = float(amount)
    for unit in ("", "k", "M"):
        if abs(value) < 999.5:
            return f"{value:.3g}{unit}"
        value /= 1000
    return f"{value:.3g}G"


def percent(share: float | None) -> str:
    """A share of 1 in percent."""
    if share is None:
        return DASH
    value = share * 100
    return f"{value:.1f} %".replace(".0 %", " %") if value < 99.95 or value == 100 else "99.9 %"


def short(identifier: Any) -> str:
    """The end of an id: its beginning is a time, which neighbours share."""
    text = str(identifier)
    return Markup('<span title="{}">…{}</span>').format(text, text[-8:]) if len(text) > 12 else escape(text)


FILTERS = {
    "ago": ago,
    "at": at,
    "bytes": size,
    "compact": compact,
    "duration": duration,
    "local": local,
    "milliseconds": milliseconds,
    "money": money,
    "number": number,
    "percent": percent,
    "short": short,
}
"""The filters by their names in templates."""
