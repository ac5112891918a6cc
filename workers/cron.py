"""When a schedule fires: cron expressions in a time zone.

Five fields, as Debian's cron reads them, or `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`. What names
its hours fires once a day, also on days that are an hour longer or shorter: what falls into the hour that is
left out fires at the first instant after it, what falls into the hour that comes twice at its first
occurrence. What runs every hour or every few minutes goes by the time that passes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import islice, takewhile
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

_NAMED = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_LONGEST = 200  # characters
_FOLD = timedelta(hours=4)  # longer than any hour that comes twice
_MINUTE = timedelta(minutes=1)


class CronInvalid(ValueError):
    """An expression or a zone that is none. `field` is `cron` or `timezone`."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field
        self.message = message


@dataclass(frozen=True, slots=True)
class Cron:
    """The instants of an expression in a zone. All instants are aware; those returned are in UTC."""

    expression: str
    zone: ZoneInfo

    def after(self, instant: datetime) -> Iterator[datetime]:
        """The instants after `instant`, the earliest first, while any comes."""
        # Inside of an hour that comes twice the library begins again with its first occurrence.
        begin = (instant - timedelta(seconds=1)).astimezone(self.zone)
        newest = instant
        for found in CronSim(self.expression, begin):
            at = found.astimezone(UTC)
            if at <= newest:
                continue
            yield from self._leapt_over(newest, at)
            newest = at
            yield at

    def next(self, after: datetime) -> datetime | None:
        """The first instant after `after`; None where none ever comes."""
        return next(self.after(after), None)

    def last(self, since: datetime, until: datetime) -> datetime | None:
        """The latest instant after `since` and up to `until`."""
        newest = since
        for found in CronSim(self.expression, (until + _FOLD).astimezone(self.zone), reverse=True):
            at = found.astimezone(UTC)
            if at <= until:
                newest = max(at, since)
                break
        for at in takewhile(lambda at: at <= until, self.after(newest)):
            newest = at
        return newest if newest > since else None

    def _leapt_over(self, since: datetime, until: datetime) -> Iterator[datetime]:
        """What the library misses between two instants where clocks change by half an hour: where it goes by
        the time that passes it goes by whole hours, and in between tries no minute."""
        change = _offset(until, self.zone) - _offset(since, self.zone)
        fields = CronSim(self.expression, since.astimezone(self.zone))
        if not change % timedelta(hours=1) or fields.fixup_tz is not None:
            return
        at = since.replace(second=0, microsecond=0) + _MINUTE
        while at < until:
            local = at.astimezone(self.zone)
            is_time = local.minute in fields.minutes and local.hour in fields.hours
            if is_time and local.month in fields.months and fields.match_day(local.date()):
                yield at
            at += _MINUTE


def _offset(at: datetime, zone: ZoneInfo) -> timedelta:
    return at.astimezone(zone).utcoffset() or timedelta(0)


def parse(expression: str, timezone: str) -> Cron:
    """The expression in the zone. Raises CronInvalid."""
    if timezone not in _zones():
        raise CronInvalid(
            "timezone", f"There is no time zone {timezone[:100]!r}. Name one as Europe/Berlin, or UTC."
        )
    text = " ".join(expression.split())
    text = _NAMED.get(text.lower(), text)
    if len(text) > _LONGEST or len(text.split()) != 5:
        raise CronInvalid(
            "cron",
            "A schedule has five fields: minute, hour, day of month, month, day of week, as 0 6 * * *.",
        )
    cron = Cron(text, ZoneInfo(timezone))
    try:
        if cron.next(datetime.now(UTC)) is None:
            raise CronInvalid("cron", "No day ever matches this schedule.")
    except CronSimError as error:
        raise CronInvalid("cron", f"This is no schedule: {error}.") from None
    return cron


def upcoming(cron: Cron, after: datetime, count: int) -> list[datetime]:
    """The next `count` instants."""
    return list(islice(cron.after(after), count))


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones() - {"localtime", "Factory"})
