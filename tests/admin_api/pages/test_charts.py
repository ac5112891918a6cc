"""Charts: what is drawn, what is told, and what cannot break out."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree as ET

import pytest

from admin_api.pages.charts import Chart, Series, bars, lines, sparkline
from admin_api.pages.formats import DASH

START = datetime(2026, 3, 1, tzinfo=UTC)
EVIL = '"><script>alert(1)</script>'


def _hours(count: int) -> list[datetime]:
    return [START + timedelta(hours=hour) for hour in range(count)]


def _one(kind: str, values: list[float | None]) -> Chart:
    series = [Series("calls", values, "cyan")]
    times = _hours(len(values))
    return lines("Calls", times, series) if kind == "lines" else bars("Calls", times, series)


@pytest.mark.parametrize(("kind", "marks"), [("lines", "points"), ("bars", "bars")])
def test_each_value_is_told_in_the_table_that_marks_are_made_of(kind: str, marks: str) -> None:
    chart = _one(kind, [1, 2.5, 4])
    assert ET.fromstring(str(chart.svg)).get("data-marks") == marks
    assert list(chart.columns) == ["Time (UTC)", "calls"]
    assert list(chart.rows) == [("00:00", "1"), ("01:00", "2.5"), ("02:00", "4")]


@pytest.mark.parametrize("kind", ["lines", "bars"])
def test_nothing_to_draw_is_no_error(kind: str) -> None:
    assert _one(kind, []).is_empty
    assert _one(kind, [None, None]).is_empty
    assert not _one(kind, [0, 0]).is_empty
    assert sparkline("None", []) == ""


def test_a_gap_is_a_gap() -> None:
    chart = _one("lines", [1, None, 3, 4])
    assert len(re.findall(r'class="line', str(chart.svg))) == 2
    assert chart.rows[1] == ("01:00", DASH)


def test_bars_stand_on_each_other() -> None:
    chart = bars("Calls", _hours(1), [Series("good", [3], "cyan"), Series("bad", [1], "red")])
    drawn = re.findall(r'class="columns tone-(\w+)" stroke-width="7.6" d="M5 (\d+)V(\d+)"', str(chart.svg))
    assert drawn == [("cyan", "200", "50"), ("red", "50", "0")]
    assert chart.rows == [("2026-03-01 00:00", "3", "1")]


def test_one_of_a_thousand_is_seen() -> None:
    chart = bars("Calls", _hours(1), [Series("good", [999], "cyan"), Series("bad", [1], "red")])
    assert 'tone-red" stroke-width="7.6" d="M5 0V-1"' in str(chart.svg)


@pytest.mark.parametrize(("most", "top"), [(7, "8"), (0.3, "0.4"), (1000, "1k"), (1001, "2k"), (0, "1")])
def test_the_axis_ends_at_a_round_number(most: float, top: str) -> None:
    assert _one("lines", [0, most]).ticks[0] == top


def test_names_are_text() -> None:
    drawn = [
        lines(EVIL, _hours(2), [Series(EVIL, [1, 2], "cyan")]),
        bars(EVIL, _hours(2), [Series(EVIL, [1, 2], "cyan")]),
    ]
    for svg in [*(str(each.svg) for each in drawn), str(sparkline(EVIL, [1, 2]))]:
        assert "<script" not in svg
        assert "style" not in svg
        ET.fromstring(svg)


def test_times_are_labelled_as_far_as_they_differ() -> None:
    days = [START + timedelta(days=day) for day in range(30)]
    chart = bars("Days", days, [Series("calls", [1.0] * 30, "cyan")])
    assert (chart.labels[0], chart.labels[-1]) == ("03-01", "03-30")
    assert (len(chart.labels), chart.labels_each) == (5, False)
    assert bars("Week", days[:7], [Series("calls", [1.0] * 7, "cyan")]).labels_each
    years = [START, START + timedelta(days=400)]
    assert lines("Years", years, [Series("calls", [1.0, 2.0], "cyan")]).labels[0] == "2026-03-01"
