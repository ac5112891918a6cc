"""Cron expressions as people say them, where that is short; "" where the expression itself says it best."""

from __future__ import annotations

import re
from collections.abc import Sequence

_DAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
_MOST_TIMES = 4  # of a day


def in_words(expression: str) -> str:
    """When a stored expression, of five fields, fires."""
    said = _said(expression)
    return said[:1].upper() + said[1:]


def _said(expression: str) -> str:
    minute, hour, day, month, weekday = expression.upper().split()
    days = _days(day, month, weekday)
    if hour == "*":
        often = _often(minute)
        return often if days == "every day" or not often else f"{often}, {days}" if days else ""
    times = _times(minute, hour)
    return f"{days} at {times}" if days and times else ""


def _often(minute: str) -> str:
    if minute == "*":
        return "every minute"
    if (every := re.fullmatch(r"\*/(\d+)", minute)) and 60 % int(every[1]) == 0:
        return f"every {every[1]} minutes"
    return f"every hour at :{minute:0>2}" if minute.isdigit() else ""


def _times(minute: str, hour: str) -> str:
    hours = hour.split(",")
    if not minute.isdigit() or not all(each.isdigit() for each in hours) or len(hours) > _MOST_TIMES:
        return ""
    return _listed([f"{each:0>2}:{minute:0>2}" for each in hours])


def _days(day: str, month: str, weekday: str) -> str:
    if weekday == "*" and day == "*" and month == "*":
        return "every day"
    if weekday == "*" and day.isdigit():
        if month == "*":
            return f"on day {int(day)} of every month"
        return f"every {int(day)} {_MONTHS[int(month) - 1]}" if month.isdigit() else ""
    return _weekdays(weekday) if day == "*" and month == "*" else ""


def _weekdays(weekday: str) -> str:
    if span := re.fullmatch(r"(\w+)-(\w+)", weekday):
        names = [_weekday(span[1]), _weekday(span[2])]
        return f"{names[0]} to {names[1]}" if all(names) else ""
    names = [_weekday(each) for each in weekday.split(",")]
    return f"every {_listed(names)}" if all(names) else ""


def _weekday(text: str) -> str:
    if text.isdigit():
        return _DAYS[int(text) % 7]
    return next((name for name in _DAYS if name[:3].upper() == text), "")


def _listed(names: Sequence[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
