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
from itertools import islice
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
            if at > newest:
                newest = at
                yield at

    def next(self, after: datetime) -> datetime | None:
        """The first instant after `after`; None where none ever comes."""
        return next(self.after(after), None)

    def last(self, since: datetime, until: datetime) -> datetime | None:
        """The latest instant after `since` and up to `until`."""
        backwards = CronSim(self.expression, (until + _FOLD).astimezone(self.zone), reverse=True)
        for found in backwards:
            at = found.astimezone(UTC)
            if at <= until:
                return at if at > since else None
            if at <= since:
                return None
        return None


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
