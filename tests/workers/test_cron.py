"""When schedules fire, against a search through every minute of the years."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise, takewhile
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.cron import Cron, CronInvalid, parse, upcoming

ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Cairo", "Asia/Kolkata"]
MINUTE = timedelta(minutes=1)


def field(low: int, high: int) -> st.SearchStrategy[str]:
    one = st.integers(low, high).map(str)
    several = st.lists(st.integers(low, high), min_size=2, max_size=3, unique=True)
    return one | several.map(lambda values: ",".join(map(str, sorted(values))))


def numbers(text: str, low: int, high: int) -> set[int]:
    if text == "*":
        return set(range(low, high + 1))
    if text.startswith("*/"):
        return set(range(low, high + 1, int(text[2:])))
    return set(map(int, text.split(",")))


def instants(expression: str, zone: ZoneInfo, first: date, days: int) -> list[datetime]:
    """By trying each minute. Days of the week and of the month are left to the library."""
    minute, hour, *_ = expression.split()
    minutes, hours = numbers(minute, 0, 59), numbers(hour, 0, 23)
    begin = datetime(first.year, first.month, first.day, tzinfo=zone)
    found: set[datetime] = set()
    if minute.startswith("*") or hour.startswith("*"):
        at = begin.astimezone(UTC)
        end = (begin + timedelta(days=days)).astimezone(UTC)
        while at < end:
            local = at.astimezone(zone)
            if local.minute in minutes and local.hour in hours:
                found.add(at)
            at += MINUTE
        return sorted(found)
    for day in range(days):
        for wanted in sorted((h, m) for h in hours for m in minutes):
            naive = datetime(first.year, first.month, first.day, *wanted) + timedelta(days=day)
            while _is_left_out(naive, zone):
                naive += MINUTE
            found.add(naive.replace(tzinfo=zone).astimezone(UTC))
    return sorted(found)


def _is_left_out(naive: datetime, zone: ZoneInfo) -> bool:
    there = naive.replace(tzinfo=zone).astimezone(UTC).astimezone(zone)
    return there.replace(tzinfo=None) != naive


def between(cron: Cron, since: datetime, until: datetime) -> list[datetime]:
    return list(takewhile(lambda at: at < until, cron.after(since)))


MONTHS = st.sampled_from([date(2026, 3, 1), date(2026, 10, 1), date(2027, 4, 1), date(2026, 11, 1)])
EXPRESSIONS = st.one_of(
    st.tuples(field(0, 59), field(0, 23)),
    st.tuples(field(0, 59), st.just("*")),
    st.tuples(st.sampled_from(["*/15", "*/20", "*"]), field(0, 3)),
    st.tuples(st.just("30"), st.sampled_from(["*/2", "*/3"])),
).map(lambda parts: f"{parts[0]} {parts[1]} * * *")


@settings(deadline=None)
@given(EXPRESSIONS, st.sampled_from(ZONES), MONTHS)
def test_instants_are_those_of_a_search_through_all_minutes(
    expression: str, timezone: str, first: date
) -> None:
    zone = ZoneInfo(timezone)
    expected = instants(expression, zone, first, 30)
    since = datetime(first.year, first.month, first.day, tzinfo=zone).astimezone(UTC) - MINUTE
    cron = Cron(expression, zone)

    found = between(cron, since, since + MINUTE + (expected[-1] - since))

    assert found == expected


@settings(deadline=None)
@given(
    EXPRESSIONS,
    st.sampled_from(ZONES),
    MONTHS,
    st.lists(st.integers(0, 60 * 24 * 28), min_size=2, max_size=8),
)
def test_wherever_one_looks_from_the_instants_are_the_same(
    expression: str, timezone: str, first: date, looks: list[int]
) -> None:
    """A scheduler looks at any moment, also inside of an hour that comes twice."""
    zone = ZoneInfo(timezone)
    cron = Cron(expression, zone)
    begin = datetime(first.year, first.month, first.day, tzinfo=UTC)
    everything = between(cron, begin, begin + timedelta(days=30))
    times = sorted({begin + MINUTE * look + timedelta(seconds=look % 60) for look in looks})
    for since, until in pairwise(times):
        inside = [at for at in everything if since < at <= until]
        assert between(cron, since, until + timedelta(microseconds=1)) == inside
        assert cron.last(since, until) == (inside[-1] if inside else None)


@pytest.mark.parametrize("first", [date(2026, 10, 1), date(2027, 4, 1)])
@pytest.mark.parametrize("expression", ["30 * * * *", "0 * * * *", "15,45 */2 * * *", "*/20 1,2 * * *"])
def test_clocks_that_change_by_half_an_hour(expression: str, first: date) -> None:
    zone = ZoneInfo("Australia/Lord_Howe")
    expected = instants(expression, zone, first, 10)
    cron, since = Cron(expression, zone), expected[0] - MINUTE
    assert between(cron, since, expected[-1] + MINUTE) == expected
    for before, at in pairwise(expected):
        assert cron.last(before, at) == at
        assert cron.last(since, at - MINUTE) == before


def test_an_hour_left_out_and_an_hour_twice() -> None:
    berlin = parse("30 2 * * *", "Europe/Berlin")
    spring = upcoming(berlin, datetime(2027, 3, 27, 12, tzinfo=UTC), 2)
    assert [at.isoformat() for at in spring] == ["2027-03-28T01:00:00+00:00", "2027-03-29T00:30:00+00:00"]
    autumn = upcoming(berlin, datetime(2027, 10, 30, 12, tzinfo=UTC), 2)
    assert [at.isoformat() for at in autumn] == ["2027-10-31T00:30:00+00:00", "2027-11-01T01:30:00+00:00"]


@pytest.mark.parametrize(
    ("expression", "timezone", "field"),
    [
        ("", "UTC", "cron"),
        ("0 6 * *", "UTC", "cron"),
        ("0 0 6 * * *", "UTC", "cron"),
        ("61 6 * * *", "UTC", "cron"),
        ("@sometimes", "UTC", "cron"),
        ("0 0 31 2 *", "UTC", "cron"),
        ("0 0 31 4 *", "UTC", "cron"),
        ("* * * * *" * 100, "UTC", "cron"),
        ("0 6 * * *", "Mars/Olympus", "timezone"),
        ("0 6 * * *", "../../etc/passwd", "timezone"),
        ("0 6 * * *", "", "timezone"),
    ],
)
def test_what_is_no_schedule_is_refused(expression: str, timezone: str, field: str) -> None:
    with pytest.raises(CronInvalid) as refused:
        parse(expression, timezone)
    assert refused.value.field == field


def test_names_stand_for_expressions() -> None:
    assert parse("@Daily", "UTC").expression == "0 0 * * *"
    assert parse("  30   6 * *  MON-FRI ", "UTC").expression == "30 6 * * MON-FRI"
