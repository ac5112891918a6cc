"""Usage: what calls cost, how long they took and how they ended, against the period before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from fastapi import APIRouter, Request, Response

from admin_api import attempts, spreadsheet
from admin_api.attempts import AttemptFilters, AttemptQuery, ExportQuery, UsageAttempt
from admin_api.pages import usage_plots
from admin_api.pages.render import page
from admin_api.pages.route import PageRoute
from admin_api.pages.usage_figures import figures
from admin_api.pages.usage_plots import Plot
from admin_api.pages.usage_query import GROUPINGS, PERIODS, Asked, Span, read
from admin_api.refusals import Invalid, NotFound
from admin_api.security import Current, allow_reading
from admin_api.services import Services, Using
from admin_api.usage import Latency, Row, Stats, counted
from store.audit import Event, record
from workers.statistics import Dimension

router = APIRouter(route_class=PageRoute)

_MOST_POINTS = 5000  # groups of a chart: 90 weeks' worth of more models than anybody has
_GROUPS = 5
_ROWS = 4
_LATE = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Group:
    """A row of the table of groups; `href`: the page narrowed to it, "" where it cannot be."""

    name: str
    href: str
    sums: Row


@dataclass(frozen=True, slots=True)
class Groups:
    """The groups with most calls, or the newest times. `since`: from when on, for users' days are whole."""

    rows: Sequence[Group]
    is_cut: bool
    since: datetime

    @property
    def most(self) -> int:
        """Calls of the largest group."""
        return max((each.sums.calls for each in self.rows), default=0)


@dataclass(frozen=True, slots=True)
class Calls:
    """A page of the calls one by one, or why there is none."""

    items: Sequence[UsageAttempt]
    older: str
    problem: str = ""


@router.get("/usage")
@allow_reading
def usage(request: Request, using: Using) -> Response:
    """Figures, charts, groups and calls of a period."""
    asked, wrong = read(request)
    span, before = asked.spans(datetime.now(UTC))
    over_time = _over_time(asked, span, using)
    totals = over_time.totals
    return page(
        request,
        "usage.html",
        asked=asked,
        wrong=wrong,
        periods=[(said, days, asked.address(days=days)) for days, said in PERIODS.items()],
        groupings=[(by, asked.address(by=by)) for by in GROUPINGS],
        span=span,
        counted_at=over_time.counted_at,
        is_late=over_time.counted_at is None or over_time.counted_at < datetime.now(UTC) - _LATE,
        figures=figures(totals, counted(asked.query(before), using).totals),
        totals=totals,
        charts=[(plot.chart, _csv_of(asked, plot.name)) for plot in _plots(asked, span, over_time, using)],
        errors=sorted((totals.errors or {}).items(), key=lambda pair: -pair[1]),
        groups=_groups(asked, span, using),
        groups_csv=_csv_of(asked, "groups"),
        calls=_calls(asked, span, using),
    )


@router.get("/usage/export.csv")
@allow_reading
def export(request: Request, caller: Current, using: Using) -> Response:
    """The calls one by one as CSV, as the API exports them."""
    asked, _ = read(request)
    span, _ = asked.spans(datetime.now(UTC))
    return attempts.export_attempts(
        ExportQuery(since=span.since, until=span.until, **_filters(asked)), caller, using
    )


@router.get("/usage/charts/{name}.csv")
@allow_reading
def export_chart(name: str, request: Request, using: Using) -> Response:
    """The numbers of a chart, or of the groups, as CSV."""
    asked, _ = read(request)
    span, _ = asked.spans(datetime.now(UTC))
    rows = _rows(name, asked, span, using)
    told = {"chart": name, **asked.model_dump(mode="json", exclude_none=True)}
    with using.pool.connection() as db:
        record(db, Event("export", "usage", after=told))
    return Response(
        spreadsheet.lines(rows),
        media_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="orrery-{name}-{span.since:%Y%m%d}.csv"'},
    )


def _over_time(asked: Asked, span: Span, using: Services) -> Stats:
    return counted(asked.query(span, asked.step), using, most=_MOST_POINTS)


def _plots(asked: Asked, span: Span, over_time: Stats, using: Services) -> list[Plot]:
    told_apart = counted(asked.query(span, asked.step, asked.stacked), using, most=_MOST_POINTS)
    return [
        usage_plots.cost(asked, span, told_apart),
        usage_plots.calls(asked, span, over_time),
        usage_plots.latency(asked, span, over_time),
    ]


def _groups(asked: Asked, span: Span, using: Services) -> Groups:
    found = counted(asked.query(span, asked.by).model_copy(update={"limit": _GROUPS}), using)
    rows = [Group(_name(asked, row), asked.into(getattr(row, asked.by)), row) for row in found.items]
    return Groups(rows, found.truncated, found.since)


def _name(asked: Asked, row: Row) -> str:
    value = getattr(row, asked.by)
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%d %H:%M}"
    if value is None:
        return "no user" if asked.by == "user" else "unknown"
    return str(value)


def _calls(asked: Asked, span: Span, using: Services) -> Calls:
    try:
        query = AttemptQuery(limit=_ROWS, cursor=asked.cursor, since=span.since, **_filters(asked))
        found = attempts.list_attempts(query, using)
    except Invalid as refused:
        return Calls((), "", refused.message)
    return Calls(found.items, asked.address(cursor=found.next_cursor) + "#calls" if found.next_cursor else "")


def _filters(asked: Asked) -> dict[str, object]:
    return {name: getattr(asked, name) for name in AttemptFilters.model_fields if hasattr(asked, name)}


def _csv_of(asked: Asked, name: str) -> str:
    return asked.address(f"/usage/charts/{name}.csv")


def _rows(name: str, asked: Asked, span: Span, using: Services) -> Iterable[Sequence[object]]:
    """What a CSV has. Raises NotFound."""
    if name == "groups":
        return _group_rows(asked, counted(asked.query(span, asked.by), using))
    found = {plot.name: plot for plot in _plots(asked, span, _over_time(asked, span, using), using)}
    if name not in found:
        raise NotFound(f"There is no chart {name!r}: {', '.join(found)} and groups are.")
    return found[name].rows()


def _group_rows(asked: Asked, found: Stats) -> Iterator[Sequence[object]]:
    sums = [name for name in Row.model_fields if name not in (*Dimension, "latency_ms", "errors")]
    percentiles = list(Latency.model_fields)
    yield [asked.by, *sums, *(f"latency_ms_{each}" for each in percentiles)]
    for row in found.items:
        times = [getattr(row.latency_ms, each) for each in percentiles]
        yield [getattr(row, asked.by), *(getattr(row, name) for name in sums), *times]
