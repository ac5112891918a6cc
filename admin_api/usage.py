"""Usage: what calls add up to, by any grouping."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Query, Response
from psycopg.errors import QueryCanceled
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from admin_api.fields import Tag, Time
from admin_api.refusals import Invalid
from admin_api.security import GuardedRoute, allow_reading
from admin_api.services import Services, Using
from workers import statistics
from workers.statistics import Dimension, Group, UsageFilter

router = APIRouter(prefix="/usage", tags=["usage"], route_class=GuardedRoute)

_ONE = "|".join(Dimension)
_SECONDS = 5.0
Days = Annotated[
    int, Field(ge=1, le=366, description="Days (UTC) up to now, today among them; `since` overrules it.")
]


class Latency(BaseModel):
    """Milliseconds. Percentiles are interpolated in buckets; null without calls, and of users by the day."""

    avg: int | None
    p50: int | None
    p95: int | None
    p99: int | None
    max: int | None


class Sums(BaseModel):
    """What attempts add up to.

    `calls` reached a provider; the other attempts found its breaker open, or could not be encoded. `cost_usd`
    is the sum of the known costs: `unpriced_calls` cost something that nobody knows, and are not in it.
    `errors` counts failed calls by class; null where users are told apart.
    """

    attempts: int
    calls: int
    succeeded: int
    failed: int
    superseded: Annotated[int, Field(description="Paid for, but another run had the result first.")]
    lost: Annotated[int, Field(description="The worker died; the call may have been billed.")]
    success_rate: Annotated[float | None, Field(description="Of the calls; null without any.")]
    error_rate: float | None
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    cache_write_tokens: int
    reasoning_tokens: int
    characters: int
    seconds: float
    images: int
    cost_usd: str
    wasted_usd: Annotated[str, Field(description="What calls cost that did not succeed.")]
    unpriced_calls: int
    failovers: Annotated[int, Field(description="First calls of a route after another of the run failed.")]
    estimated_calls: Annotated[int, Field(description="Calls whose tokens are estimated.")]
    latency_ms: Latency
    errors: dict[str, int] | None


class Row(Sums):
    """The sums of one group. Of its names it has those that were grouped by; null where one is unknown."""

    provider: str | None = None
    model: str | None = None
    feature: str | None = None
    user: str | None = None
    hour: datetime | None = None
    day: date | None = None
    week: Annotated[date | None, Field(description="Its Monday.")] = None


class Stats(BaseModel):
    """Groups, those of the newest time first and then those with most calls, and the totals of all calls.

    `since` (inclusive) and `until` (exclusive) are what was counted, in whole hours, or in whole days where
    users are told apart by no more than days. `truncated`: there are more groups. `counted_at`: calls up to
    then are counted, about a second ago while a worker runs.
    """

    items: list[Row]
    totals: Sums
    since: datetime
    until: datetime
    group_by: list[Literal["provider", "model", "feature", "user", "hour", "day", "week"]]
    truncated: bool
    counted_at: datetime | None


class StatsQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    days: Days = 30
    group_by: Annotated[
        Annotated[str, StringConstraints(pattern=rf"^({_ONE})(,({_ONE}))*$", max_length=100)] | None,
        Field(description="Any of provider, model, feature, user, hour, day and week, with commas between."),
    ] = None
    since: Annotated[Time | None, Field(description="From this hour on.")] = None
    until: Annotated[Time | None, Field(description="Up to this hour.")] = None
    provider: Annotated[Tag | None, Field(description="Its slug.")] = None
    model: Annotated[Tag | None, Field(description="Its model_id.")] = None
    feature: Tag | None = None
    user_id: Tag | None = None
    limit: Annotated[int, Field(ge=1, le=1000, description="Groups at most.")] = 1000


@router.get("/stats", response_model=Stats)
@allow_reading
def get_stats(query: Annotated[StatsQuery, Query()], using: Using) -> Response:
    """Calls, tokens, cost and latency by any grouping.

    Users come by the number of their calls: the 200 with most, the 30 with most by the day, and the 15 with
    most where they are told apart by more than that.
    """
    # As it is: to make models of a thousand rows, as FastAPI would, takes longer than to count them.
    return Response(
        orjson.dumps(_document(query, using), option=orjson.OPT_UTC_Z), media_type="application/json"
    )


def counted(query: StatsQuery, using: Services, *, most: int | None = None) -> Stats:
    """What the query asks for, up to its limit or `most` groups. Raises Invalid."""
    return Stats.model_validate(_document(query, using, most=most))


def _document(query: StatsQuery, using: Services, *, most: int | None = None) -> dict[str, Any]:
    """The members of `Stats`. Raises Invalid."""
    by = [Dimension(name) for name in (query.group_by or "").split(",") if name]
    filters = UsageFilter(query.provider, query.model, query.feature, query.user_id)
    since, until = statistics.span(by, filters, *spanned(query.days, query.since, query.until))
    try:
        with using.pool.connection() as db, db.transaction():
            db.execute("SELECT set_config('statement_timeout', %s, true)", [f"{_SECONDS:g}s"])
            found = statistics.statistics(
                db, by, filters, since=since, until=until, limit=most or query.limit
            )
    except QueryCanceled:
        raise Invalid(
            f"This takes longer than {_SECONDS:g} s: users together with anything but days are read from the "
            "calls themselves. Narrow it with since and until, or by user_id.",
            field="since",
        ) from None
    return {
        "items": [_row(group) for group in found.groups],
        "totals": _row(found.totals),
        "since": since,
        "until": until,
        "group_by": list(dict.fromkeys(name.value for name in by)),
        "truncated": found.is_cut,
        "counted_at": found.counted_at,
    }


def spanned(days: int, since: datetime | None, until: datetime | None) -> tuple[datetime, datetime]:
    """From when to when. Raises Invalid where that is no span."""
    end = until or datetime.now(UTC)
    midnight = end.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    begin = since or midnight - timedelta(days=days - 1)
    if begin >= end:
        raise Invalid("`since` must be before `until`, which is now where it is left out.", field="since")
    return begin, end


def _row(group: Group) -> dict[str, Any]:
    """The members of `Row`; of `Sums`, where the group has no key."""
    sums = group.sums
    calls = sums["calls"]
    return {
        **group.key,
        **sums,
        "success_rate": _rate(sums["succeeded"], calls),
        "error_rate": _rate(sums["failed"], calls),
        "latency_ms": group.latency,
        "errors": group.errors,
    }


def _rate(part: int, whole: int) -> float | None:
    return round(part / whole, 6) if whole else None
