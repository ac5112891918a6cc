"""Usage over time: what each chart shows, for the page and as numbers for CSV."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from admin_api.pages.charts import TONES, Chart, Format, Series, bars, lines
from admin_api.pages.formats import compact, milliseconds, money
from admin_api.pages.usage_query import Asked, Span, Step
from admin_api.usage import Row, Stats

_MOST_SERIES = 3  # told apart; the others are one
_OTHERS = "others"
_UNKNOWN = "unknown"
_STEPS: Mapping[Step, timedelta] = {
    "hour": timedelta(hours=1),
    "day": timedelta(days=1),
    "week": timedelta(weeks=1),
}


@dataclass(frozen=True, slots=True)
class Plot:
    """A chart before it is drawn."""

    name: str
    title: str
    draw: Callable[..., Chart]
    times: Sequence[datetime]
    series: Sequence[Series]
    shown: Format

    @property
    def chart(self) -> Chart:
        """The drawing; none where there is nothing but zeros."""
        has_any = any(value for each in self.series for value in each.values)
        times, series = (self.times, self.series) if has_any else ([], [])
        return self.draw(self.title, times, series, shown=self.shown)

    def rows(self) -> Iterator[Sequence[object]]:
        """The numbers with their heads, as CSV has them."""
        yield ["time", *(each.name for each in self.series)]
        for place, time in enumerate(self.times):
            yield [time, *(each.values[place] for each in self.series)]


def cost(asked: Asked, span: Span, found: Stats) -> Plot:
    """Dollars over time, by provider, model or feature. `found` is told apart by time and by those."""
    times = _times(asked.step, span)
    sums: dict[str, dict[datetime, float]] = defaultdict(dict)
    for row in found.items:
        name, time = getattr(row, asked.stacked) or _UNKNOWN, _time(asked.step, row)
        sums[name][time] = sums[name].get(time, 0) + float(row.cost_usd)
    ranked = sorted(sums, key=lambda name: -sum(sums[name].values()))
    first, rest = ranked[:_MOST_SERIES], ranked[_MOST_SERIES:]
    series = [
        Series(name, [sums[name].get(time, 0) for time in times], tone)
        for name, tone in zip(first, TONES, strict=False)
    ]
    if rest:
        others = [sum(sums[name].get(time, 0) for name in rest) for time in times]
        series.append(Series(_OTHERS, others, "muted"))
    return Plot("cost", f"Cost by {asked.stacked}", bars, times, series, _dollars)


def calls(asked: Asked, span: Span, found: Stats) -> Plot:
    """Calls over time, by how they ended. `found` is told apart by time alone."""
    times, rows = _times(asked.step, span), _by_time(asked.step, found.items)
    outcomes = (
        Series("succeeded", [rows[t].succeeded if t in rows else 0 for t in times], "cyan"),
        Series("failed", [rows[t].failed if t in rows else 0 for t in times], "red"),
        Series("superseded", [rows[t].superseded if t in rows else 0 for t in times], "amber"),
        Series("lost", [rows[t].lost if t in rows else 0 for t in times], "violet"),
    )
    usual, rare = outcomes[:2], [each for each in outcomes[2:] if any(each.values)]
    return Plot("calls", "Calls by outcome", bars, times, [*usual, *rare], compact)


def latency(asked: Asked, span: Span, found: Stats) -> Plot:
    """Percentiles over time. `found` is told apart by time alone."""
    times, rows = _times(asked.step, span), _by_time(asked.step, found.items)
    series = (
        Series("p50", [rows[t].latency_ms.p50 if t in rows else None for t in times], "cyan"),
        Series("p95", [rows[t].latency_ms.p95 if t in rows else None for t in times], "violet"),
        Series("p99", [rows[t].latency_ms.p99 if t in rows else None for t in times], "pink"),
    )
    return Plot("latency", "Latency", lines, times, series, milliseconds)


def _times(step: Step, span: Span) -> list[datetime]:
    """The points of the axis; weeks begin with a Monday, so the first one may have begun before the span."""
    begin = span.since - timedelta(days=span.since.weekday()) if step == "week" else span.since
    count = -((begin - span.until) // _STEPS[step])
    return [begin + _STEPS[step] * place for place in range(count)]


def _by_time(step: Step, rows: Iterable[Row]) -> dict[datetime, Row]:
    return {_time(step, row): row for row in rows}


def _time(step: Step, row: Row) -> datetime:
    found: datetime | date = getattr(row, step)
    if isinstance(found, datetime):
        return found.astimezone(UTC)
    return datetime(found.year, found.month, found.day, tzinfo=UTC)


def _dollars(amount: float) -> str:
    return money(f"{amount:.12f}")
