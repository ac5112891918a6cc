"""What calls add up to, by any grouping: read from the rollups, so thirty days cost what their hours cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple, TypedDict

import orjson
from psycopg import Connection
from psycopg.rows import DictRow, tuple_row

from workers.histogram import BUCKETS, percentiles
from workers.rollup import HISTOGRAM, LONGEST_USER, OBSERVED, OUTCOMES, SUMS

Database = Connection[DictRow]


class Dimension(StrEnum):
    """What calls can be grouped by."""

    PROVIDER = "provider"
    MODEL = "model"
    FEATURE = "feature"
    USER = "user"
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"  # by its Monday


@dataclass(frozen=True, slots=True)
class UsageFilter:
    """Narrows what is counted; None = any."""

    provider: str | None = None
    model: str | None = None
    feature: str | None = None
    user_id: str | None = None


class Latency(TypedDict):
    """Milliseconds. Percentiles are None without calls, and without histograms: of users by the day."""

    avg: int | None
    p50: int | None
    p95: int | None
    p99: int | None
    max: int | None


# A tuple: to make a thousand frozen dataclasses takes as long as to count what is in them.
class Group(NamedTuple):
    """Sums of the attempts that have the members of `key` in common, by the names of the rollups' columns.

    `calls` reached a provider; `unpriced_calls` of them cost something that nobody knows, and are in no
    `cost_usd`, of which `wasted_usd` is what did not succeed. `failovers` are first calls of a route after
    another one of the same run failed; of `estimated_calls` the tokens are estimates. `succeeded`, `failed`,
    `superseded` and `lost` are calls by outcome. `errors`: failed calls by class, None where users are told
    apart. Money is text, as PostgreSQL writes it: what is only shown need not become a number.
    """

    key: Mapping[str, Any]
    sums: Mapping[str, Any]
    latency: Latency
    errors: Mapping[str, int] | None


@dataclass(frozen=True, slots=True)
class Statistics:
    """Groups, those of the newest time first and then those with most calls, and the totals of all calls.

    `is_cut`: there are more groups than these. `counted_at`: until when calls are counted.
    """

    groups: Sequence[Group]
    totals: Group
    is_cut: bool
    counted_at: datetime | None


class _Source(StrEnum):
    """Where sums are read from. Of users only days are kept, and nothing else that would tell calls apart;
    overall, hours and nothing else."""

    HOURS = "usage_hourly"
    OVERALL = "usage_overall_hourly"
    DAYS = "usage_daily"
    USERS = "usage_user_daily"
    CALLS = "ai_usage_analytics"


def statistics(
    db: Database,
    by: Sequence[Dimension],
    filters: UsageFilter,
    *,
    since: datetime,
    until: datetime,
    limit: int,
) -> Statistics:
    """Sums from `since` (inclusive) to `until` (exclusive), which `span` has rounded.

    By user it is those of the users with most calls. Users together with anything but days are read from the
    calls themselves: give the statement a time limit.
    """
    query = _Query(tuple(dict.fromkeys(by)), filters, since, until, limit)
    state = db.execute(_BEGIN).fetchone()
    counted_at = state["at"] if state else None
    source, users, is_cut = query.source, None, False
    if query.ranks_users:
        most = _MOST_USERS_READ if source is _Source.CALLS else _MOST_USERS_TOLD_APART
        most = min(limit, _MOST_USERS if query.by == (Dimension.USER,) else most)
        users = query.busiest(db, most + 1)
        users, is_cut = users[:most], len(users) > most
    elif Dimension.HOUR in query.by and source in (_Source.HOURS, _Source.OVERALL):
        query = replace(query, since=query.newest_hours(db, source))
    if query.ranks_users or query.since != since:
        groups = query.groups(db, source, users)
        everything = _Query((), filters, since, until, limit)
        [totals] = everything.groups(db, everything.source, totals=True)
    else:
        totals, *groups = query.groups(db, source, totals=True)
    return Statistics(groups[:limit], totals, is_cut or len(groups) > limit, counted_at)


def span(
    by: Sequence[Dimension], filters: UsageFilter, since: datetime, until: datetime
) -> tuple[datetime, datetime]:
    """The span rounded to whole hours, or to whole days (UTC): where only those are kept, and where it begins
    with a day and ends now."""
    hour, day = timedelta(hours=1), timedelta(days=1)
    first = _down(since, hour)
    of_users = _source(by, filters, whole_days=True) is _Source.USERS
    step = day if of_users or (first == _down(first, day) and until >= datetime.now(UTC) - hour) else hour
    return _down(since, step), _EPOCH - (_EPOCH - until) // step * step


def _down(time: datetime, step: timedelta) -> datetime:
    return _EPOCH + (time - _EPOCH) // step * step


def _source(by: Sequence[Dimension], filters: UsageFilter, *, whole_days: bool) -> _Source:
    if Dimension.USER not in by and filters.user_id is None:
        if whole_days and Dimension.HOUR not in by:
            return _Source.DAYS
        are_hours = set(by) <= {Dimension.HOUR, Dimension.DAY, Dimension.WEEK}
        return _Source.OVERALL if are_hours and not _narrowed(filters) else _Source.HOURS
    days_suffice = set(by) <= {Dimension.USER, Dimension.DAY, Dimension.WEEK}
    return _Source.USERS if days_suffice and not _narrowed(filters) else _Source.CALLS


def _narrowed(filters: UsageFilter) -> bool:
    return (filters.provider, filters.model, filters.feature) != (None, None, None)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MOST_USERS = 200
_MOST_USERS_TOLD_APART = 30
_MOST_USERS_READ = 15  # out of calls: each is some hundreds of rows, far apart from each other
_OF_TIME = (Dimension.HOUR, Dimension.DAY, Dimension.WEEK)
_TIMES: Mapping[_Source, str] = {
    _Source.HOURS: "hour",
    _Source.OVERALL: "hour",
    _Source.DAYS: "day",
    _Source.USERS: "day",
    _Source.CALLS: "finished_at",
}
_HOUR: Mapping[_Source, str] = {
    _Source.HOURS: "hour",
    _Source.OVERALL: "hour",
    _Source.CALLS: "date_trunc('hour', finished_at, 'UTC')",
}
_DAY: Mapping[_Source, str] = {
    _Source.HOURS: "(hour AT TIME ZONE 'UTC')::date",
    _Source.OVERALL: "(hour AT TIME ZONE 'UTC')::date",
    _Source.DAYS: "day",
    _Source.USERS: "day",
    _Source.CALLS: "(finished_at AT TIME ZONE 'UTC')::date",
}
_WEEK = {source: f"date_trunc('week', {day}::timestamp)::date" for source, day in _DAY.items()}


def _again(name: str) -> str:
    """The total of a sum's groups."""
    return f"coalesce({'max' if name.endswith('_max') else 'sum'}({name}), 0)"


_OF_LATENCY = ("latency_ms_sum", "latency_ms_max", *BUCKETS)
_KEPT = {name: _again(name) for name in SUMS}
_OUTCOMES = {name: _again(name) for name in OUTCOMES}
_BUCKETS = {name: _again(name) for name in BUCKETS}
_BY_OUTCOME: Mapping[str, str] = {
    **_KEPT,
    **{name: f"coalesce(sum(calls) FILTER (WHERE outcome = '{name}'), 0)" for name in OUTCOMES},
    **_BUCKETS,
}
_SUMS: Mapping[_Source, Mapping[str, str]] = {
    source: dict(sorted(sums.items(), key=lambda sum_: sum_[0] in _OF_LATENCY))  # those come last
    for source, sums in {
        _Source.HOURS: _BY_OUTCOME,
        _Source.DAYS: _BY_OUTCOME,
        _Source.OVERALL: {**_KEPT, **_OUTCOMES, **_BUCKETS},
        _Source.USERS: {**_KEPT, **_OUTCOMES},
        _Source.CALLS: {**SUMS, **OUTCOMES, **HISTOGRAM},
    }.items()
}


_TYPES = {"cost_usd": "numeric", "wasted_usd": "numeric", "seconds": "float8"}


def _typed(name: str, term: str, *, shown: bool) -> str:
    """A sum under its name. What is `shown` has money as text."""
    kind = _TYPES.get(name, "bigint")
    return f"({term})::{'text' if shown and kind == 'numeric' else kind} AS {name}"


@dataclass(frozen=True, slots=True)
class _Query:
    by: tuple[Dimension, ...]
    filters: UsageFilter
    since: datetime
    until: datetime
    limit: int

    @property
    def source(self) -> _Source:
        """Where the sums are read from."""
        whole_days = all(time == _down(time, timedelta(days=1)) for time in (self.since, self.until))
        return _source(self.by, self.filters, whole_days=whole_days)

    @property
    def ranks_users(self) -> bool:
        """Whether only the busiest users are looked at. Who they are is known where nothing is left out."""
        return Dimension.USER in self.by and self.filters == UsageFilter()

    def groups(
        self,
        db: Database,
        source: _Source,
        users: Sequence[str | None] | None = None,
        *,
        totals: bool = False,
    ) -> list[Group]:
        """The groups, one more than `limit` at most; if wanted, behind the `totals` of all of them.

        Not prepared: a plan for any user and any span is a bad one for most.
        """
        statement = self._statement(source, users, totals).encode()
        classed = _Source.HOURS if source is _Source.OVERALL else source
        errors = self._errors(db, classed) if classed in (_Source.HOURS, _Source.DAYS) else None
        by = [name.value for name in self.by]
        names = [name for name in _SUMS[source] if name not in _OF_LATENCY]
        with db.cursor(row_factory=tuple_row, binary=True) as cursor:  # dicts, and digits, take longer
            rows = cursor.execute(statement, self._values(source, users), prepare=False).fetchall()
        return [_group(row, by, names, errors) for row in rows]

    def busiest(self, db: Database, most: int) -> list[str | None]:
        """The users with most calls, by whole weeks and the days around them. This one is whole up to now."""
        since, until = self.since.date(), self.until.date()
        first = since + timedelta(days=-since.weekday() % 7)
        last = max(first, until - timedelta(days=until.weekday()))
        if until > datetime.now(UTC).date():
            last = max(first, until)
        values = {"since": since, "until": until, "first": first, "last": last, "most": most}
        return [row["user_id"] for row in db.execute(_BUSIEST, values, prepare=False)]

    def newest_hours(self, db: Database, source: _Source) -> datetime:
        """The hour from which on there are more groups than `limit`, or the first one."""
        keys = ", ".join(name.value for name in self.by if name not in _OF_TIME)
        query = f"""
        SELECT min(hour) AS hour FROM (
            SELECT DISTINCT {", ".join(filter(None, ["hour", keys]))} FROM {source}
            WHERE {self._conditions(source, None)} ORDER BY hour DESC LIMIT %(limit)s
        ) AS newest HAVING count(*) >= %(limit)s"""
        row = db.execute(query.encode(), self._values(source, None), prepare=False).fetchone()
        return row["hour"] if row else self.since

    def _statement(self, source: _Source, users: Sequence[str | None] | None, totals: bool) -> str:
        """One scan for the groups and, if wanted, their totals, which come first."""
        keys = {
            Dimension.HOUR: _HOUR.get(source, ""),
            Dimension.DAY: _DAY[source],
            Dimension.WEEK: _WEEK[source],
            Dimension.USER: "user_id",
        }
        keyed = [f"{keys.get(name, name.value)} AS by_{name}" for name in self.by]
        names = [f"by_{name}" for name in self.by]
        terms = _SUMS[source]
        sums = [_typed(name, term, shown=not totals) for name, term in terms.items()]
        times = [f"by_{name} DESC" for name in self.by if name in _OF_TIME]
        order = ", ".join([*times, "calls DESC", *names])
        observed = OBSERVED if source is _Source.CALLS else "*"
        once = "OFFSET 0" if source is _Source.CALLS else ""  # or each of the buckets would work it out anew
        grouped = f"""
            SELECT {", ".join([*names, *sums])}, false AS is_total FROM (
                SELECT {", ".join(["observed.*", *keyed])} FROM (
                    SELECT {observed} FROM {source} WHERE {self._conditions(source, users)} {once}
                ) AS observed
            ) AS keyed {f"GROUP BY {', '.join(names)}" if names else ""}"""
        if not totals:
            return f"{grouped} ORDER BY {order} LIMIT %(limit)s"
        nothing = [f"NULL AS {name}" for name in names]
        again = [_typed(name, _again(name), shown=True) for name in terms]
        shown = [_typed(name, name, shown=True) for name in terms]
        return f"""
        WITH grouped AS MATERIALIZED ({grouped}
        ), first AS (
            SELECT * FROM grouped ORDER BY {order} LIMIT %(limit)s
        )
        SELECT {", ".join([*nothing, *again])}, true AS is_total FROM grouped
        UNION ALL
        SELECT {", ".join([*names, *shown])}, false FROM first {"" if names else "WHERE false"}
        ORDER BY {", ".join(["is_total DESC", *times, "calls DESC", *names])}"""

    def _conditions(self, source: _Source, users: Sequence[str | None] | None) -> str:
        time = _TIMES[source]
        wanted = [f"{time} >= %(since)s", f"{time} < %(until)s"]
        wanted += [
            f"{name} = %({name})s"
            for name in ("provider", "model", "feature")
            if getattr(self.filters, name) is not None
        ]
        user = f"left(user_id, {LONGEST_USER})" if source is _Source.CALLS else "user_id"
        if self.filters.user_id is not None:
            wanted.append(f"{user} = %(user_id)s")
        if users is not None:
            nobody = "user_id IS NULL" if None in users else "false"
            wanted.append(f"({user} = ANY (%(users)s) OR {nobody})")
        if source is _Source.CALLS and self.filters.user_id is not None:
            wanted.append("user_id IS NOT NULL")  # what the index says of itself
        return " AND ".join(wanted)

    def _values(self, source: _Source, users: Sequence[str | None] | None) -> dict[str, Any]:
        is_daily = source in (_Source.USERS, _Source.DAYS)
        user = self.filters.user_id
        return {
            "provider": self.filters.provider,
            "model": self.filters.model,
            "feature": self.filters.feature,
            "user_id": None if user is None else user[:LONGEST_USER],
            "users": [user for user in users or () if user is not None],
            "since": self.since.date() if is_daily else self.since,
            "until": self.until.date() if is_daily else self.until,
            "limit": self.limit + 1,  # one tells of more
        }

    def _errors(self, db: Database, source: _Source) -> dict[tuple[Any, ...], dict[str, int]]:
        """Failed calls by class, of each group and, under no key at all, of all."""
        keys = {Dimension.DAY: _DAY[source], Dimension.WEEK: _WEEK[source]}
        keyed = [f"{keys.get(name, name.value)} AS by_{name}" for name in self.by]
        names = [f"by_{name}" for name in self.by]
        query = f"""
        SELECT {", ".join([*names, "json_object_agg(error_class, calls)::text"])} FROM (
            SELECT {", ".join([*keyed, "coalesce(error_class, 'unknown') AS error_class"])},
                sum(calls)::bigint AS calls
            FROM {source} WHERE {self._conditions(source, None)} AND outcome = 'failed' AND calls > 0
            GROUP BY {", ".join([*names, "coalesce(error_class, 'unknown')"])}
        ) AS classed {f"GROUP BY {', '.join(names)}" if names else "HAVING count(*) > 0"}"""
        found: dict[tuple[Any, ...], dict[str, int]] = {}
        everything: dict[str, int] = {}
        with db.cursor(row_factory=tuple_row) as cursor:
            for *key, classes in cursor.execute(query.encode(), self._values(source, None), prepare=False):
                found[tuple(key)] = counted = orjson.loads(classes)
                for error_class, calls in counted.items():
                    everything[error_class] = everything.get(error_class, 0) + calls
        return {**found, (): everything}


# By one process: on a small machine a second one takes from the jobs what it gives, and is often late.
_BEGIN = """
SELECT nullif(counted_at, '-infinity') AS at,
    set_config('max_parallel_workers_per_gather', '0', true), set_config('jit', 'off', true)
FROM usage_rollup"""

# Between `first` and `last`, two Mondays, lie whole weeks; where there is none both are after the first days.
_BUSIEST = """
SELECT user_id FROM (
    SELECT user_id, calls FROM usage_user_weekly WHERE week >= %(first)s AND week < %(last)s
    UNION ALL
    SELECT user_id, calls FROM usage_user_daily WHERE day >= %(since)s AND day < least(%(first)s, %(until)s)
    UNION ALL
    SELECT user_id, calls FROM usage_user_daily WHERE day >= %(last)s AND day < %(until)s
) AS spans
GROUP BY user_id ORDER BY sum(calls) DESC, user_id LIMIT %(most)s"""


def _group(
    row: Sequence[Any],
    by: Sequence[str],
    names: Sequence[str],
    errors: Mapping[tuple[Any, ...], dict[str, int]] | None,
) -> Group:
    """A row of a statement: its key, its sums, its histogram, if it has one, and whether it is the total."""
    first, last = len(by), len(by) + len(names)
    key = {} if row[-1] else dict(zip(by, row, strict=False))
    sums = dict(zip(names, row[first:last], strict=True))
    in_all, longest, *histogram = row[last:-1]
    timed = sums["calls"] - sums["lost"]
    latency = _latency(histogram, longest, round(in_all / timed)) if timed else _UNKNOWN
    return Group(key, sums, latency, None if errors is None else errors.get(tuple(key.values()), {}))


def _latency(histogram: Sequence[int], longest: int, average: int) -> Latency:
    found = percentiles(histogram, 50, 95, 99)
    p50, p95, p99 = [None if one is None else min(one, longest) for one in found]
    return Latency(avg=average, p50=p50, p95=p95, p99=p99, max=longest)


_UNKNOWN = Latency(avg=None, p50=None, p95=None, p99=None, max=None)
