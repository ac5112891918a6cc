"""Charts as SVG, made here: what they show is in the page before any script runs.

pygal was tried first: each of its charts is 16 kB with a <style>, a <script> and an address elsewhere inside,
none of which our policy lets through, and without them it has neither tooltips nor a theme.

The drawing stretches to whatever room there is (`preserveAspectRatio="none"`, strokes that do not scale), and
its labels are HTML beside it, so text has the same size on a phone and on a wall. Each chart brings its
numbers as a table, once: of its rows the script makes what can be pointed at, or reached by keyboard.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import accumulate
from typing import Literal

from markupsafe import Markup

from admin_api.pages.formats import DASH, compact

Tone = Literal["cyan", "violet", "pink", "green", "amber", "red", "muted"]
Format = Callable[[float], str]
Marks = Literal["points", "bars"]
"""How the rows of the table lie in the drawing: where lines pass, or as columns."""

TONES: Sequence[Tone] = ("cyan", "violet", "pink", "green", "amber", "red", "muted")
"""In the order in which series take them."""

# The drawing's own coordinates are whole numbers: those of a month in five series have a kilobyte less so.
_STEP, _HEIGHT = 10, 200
_BAR = 7.6  # of a step
_TICKS = 4
_LABELS = 5  # along the time axis, at most; of bars each has its own
_BARS_LABELLED = 8


@dataclass(frozen=True, slots=True)
class Series:
    """Values along an axis, one for each of its places; None where there is none."""

    name: str
    values: Sequence[float | None]
    tone: Tone


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing, its labels, and its numbers. Templates show it by the macro `chart`."""

    title: str
    marks: Marks
    svg: Markup
    ticks: Sequence[str]  # from the top down
    labels: Sequence[str]  # from left to right
    legend: Sequence[tuple[str, Tone]]
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    summary: str

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not self.rows

    @property
    def labels_each(self) -> bool:
        """Whether each bar has a label of its own."""
        return self.marks == "bars" and len(self.labels) == len(self.rows)


def lines(
    title: str, times: Sequence[datetime], series: Sequence[Series], *, shown: Format = compact
) -> Chart:
    """Lines over time."""
    top = _top(value for each in series for value in each.values)
    width = _line_width(times)
    parts = [_grid(width)]
    for each in series:
        parts += [_line(run, top, each.tone) for run in _runs(each.values)]
    return _chart(title, "points", _names(times), series, shown, top, width, parts)


def bars(
    title: str, times: Sequence[datetime], series: Sequence[Series], *, shown: Format = compact
) -> Chart:
    """Bars over time, the series of each place on top of each other."""
    heaps = [list(accumulate(each.values[index] or 0 for each in series)) for index in range(len(times))]
    top = _top(heap[-1] for heap in heaps if heap)
    width = max(len(times), 1) * _STEP
    parts = [_grid(width)]
    for place, each in enumerate(series):
        parts.append(_stacked(each, [(heap[place - 1] if place else 0, heap[place]) for heap in heaps], top))
    return _chart(title, "bars", _names(times), series, shown, top, width, parts)


def sparkline(title: str, values: Sequence[float], *, shown: Format = compact, tone: Tone = "cyan") -> Markup:
    """A line without axes, for a tile; nothing where there are no values."""
    if not values:
        return Markup("")
    top = _top(values)
    drawn = Markup("").join(_area(run, top, tone) + _line(run, top, tone) for run in _runs(values))
    said = f"{title}: {shown(values[-1])} now, {shown(max(values))} at most"
    return Markup(
        '<svg class="spark" viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" aria-label="{}">'
        "<title>{}</title>{}</svg>"
    ).format(_line_width(values), _HEIGHT, said, said, drawn)


def _chart(
    title: str,
    marks: Marks,
    names: Sequence[str],
    series: Sequence[Series],
    shown: Format,
    top: float,
    width: int,
    parts: Sequence[Markup],
) -> Chart:
    known = [value for each in series for value in each.values if value is not None]
    summary = f"{names[0]} to {names[-1]}, at most {shown(max(known))}" if known and names else "No data"
    return Chart(
        title=title,
        marks=marks,
        svg=_svg(title, marks, width, summary, parts),
        ticks=[shown(top * step / _TICKS) for step in range(_TICKS, -1, -1)],
        labels=names if marks == "bars" and len(names) <= _BARS_LABELLED else _thinned(names),
        legend=[(each.name, each.tone) for each in series],
        columns=("Time (UTC)", *(each.name for each in series)),
        rows=[
            (name, *(_told(each.values[index], shown) for each in series))
            for index, name in enumerate(names)
            if known
        ],
        summary=summary,
    )


def _svg(title: str, marks: Marks, width: int, summary: str, parts: Sequence[Markup]) -> Markup:
    # A group, not an image: what is inside of an image cannot be reached.
    return Markup(
        '<svg class="plot" viewBox="0 0 {} {}" preserveAspectRatio="none" role="group" data-marks="{}" '
        'aria-label="{}. {}">{}</svg>'
    ).format(width, _HEIGHT, marks, title, summary, Markup("").join(parts))


def _grid(width: int) -> Markup:
    drawn = "".join(f"M0 {_HEIGHT * step // _TICKS}H{width}" for step in range(_TICKS + 1))
    return Markup('<path class="rule" d="{}"/>').format(drawn)


def _line(run: Sequence[tuple[int, float]], top: float, tone: Tone) -> Markup:
    if len(run) == 1:  # without length: its round ends are a dot
        return Markup('<path class="line dot tone-{}" d="{}h0"/>').format(tone, _path(run, top))
    return Markup('<path class="line tone-{}" d="{}"/>').format(tone, _path(run, top))


def _area(run: Sequence[tuple[int, float]], top: float, tone: Tone) -> Markup:
    """What lies below a line."""
    made = Markup('<path class="area tone-{}" d="{}V{}H{}Z"/>')
    return made.format(tone, _path(run, top), _HEIGHT, run[0][0])


def _path(run: Sequence[tuple[int, float]], top: float) -> str:
    return "M" + "L".join(f"{x} {_y(value, top)}" for x, value in run)


def _stacked(series: Series, spans: Sequence[tuple[float, float]], top: float) -> Markup:
    """The bars of one series, each from where the one below it ends: upright lines, as wide as a bar.

    However little a value is, it is seen.
    """
    drawn = "".join(
        f"M{place * _STEP + _STEP // 2} {_y(lower, top)}V{min(_y(upper, top), _y(lower, top) - 1)}"
        for place, (lower, upper) in enumerate(spans)
        if upper > lower
    )
    made = Markup('<path class="columns tone-{}" stroke-width="{}" d="{}"/>')
    return made.format(series.tone, _BAR, drawn) if drawn else Markup("")


def _line_width(places: Sequence[object]) -> int:
    return max(len(places) - 1, 1) * _STEP


def _runs(values: Sequence[float | None]) -> list[list[tuple[int, float]]]:
    """The stretches without gaps, with how far to the right each value lies; one alone is in the middle."""
    runs: list[list[tuple[int, float]]] = [[]]
    for place, value in enumerate(values):
        if value is None:
            runs.append([])
        else:
            runs[-1].append((place * _STEP if len(values) > 1 else _STEP // 2, value))
    return [run for run in runs if run]


def _top(values: Iterable[float | None]) -> float:
    """A round number that no value exceeds, so that the ticks are round, too."""
    known = [value for value in values if value is not None]
    most = max(known, default=0)
    if most <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(most))
    return next(step * power for step in (1, 2, 4, 5, 8, 10) if step * power >= most)


def _y(value: float, top: float) -> int:
    return _HEIGHT - round(value / top * _HEIGHT)


def _names(times: Sequence[datetime]) -> list[str]:
    """Each time as far as it differs from its neighbours."""
    if len(times) < 2:
        return [time.strftime("%Y-%m-%d %H:%M") for time in times]
    if times[1] - times[0] >= timedelta(days=1):
        is_one_year = times[-1] - times[0] < timedelta(days=360)
        return [time.strftime("%m-%d" if is_one_year else "%Y-%m-%d") for time in times]
    if times[-1] - times[0] < timedelta(days=1):
        return [time.strftime("%H:%M") for time in times]
    return [time.strftime("%m-%d %H:%M") for time in times]


def _thinned(names: Sequence[str]) -> list[str]:
    """Labels at even distances, with the first and the last."""
    if len(names) <= _LABELS:
        return list(names)
    return [names[round(place * (len(names) - 1) / (_LABELS - 1))] for place in range(_LABELS)]


def _told(value: float | None, shown: Format) -> str:
    return DASH if value is None else shown(value)
