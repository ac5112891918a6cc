"""What schedules are going to cost: their firings x what jobs of their features took of late x prices of now.

Unknown is not free: a feature without a call in the last week, or without a price, has no forecast.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from itertools import takewhile
from typing import Any
from uuid import UUID

from psycopg import Connection
from psycopg.rows import DictRow

from routing import pricing
from routing.snapshot import Snapshot
from routing.values import Feature, Model, Usage
from workers import cron

MOST_FIRINGS = 10_000
"""Of one schedule that are looked at."""


@dataclass(frozen=True, slots=True)
class Planned:
    """What of a schedule decides how much it does."""

    id: UUID
    name: str
    cron: str
    timezone: str
    feature_name: str
    inputs_matrix: Mapping[str, Any]
    then: Sequence[Mapping[str, Any]]
    use_batch_api: bool


@dataclass(frozen=True, slots=True)
class Expected:
    """What the jobs of one feature of a schedule are expected to take in all.

    Tokens, and dollars at the price of `model`; None = nobody knows.
    """

    schedule: Planned
    feature: str
    model: Model | None
    instants: Sequence[datetime]
    jobs_each: int
    input_tokens: int | None
    output_tokens: int | None
    cost_each_usd: Decimal | None

    @property
    def jobs(self) -> int:
        """Of all firings."""
        return self.jobs_each * len(self.instants)

    def cost_until(self, end: datetime) -> Decimal | None:
        """Dollars of the firings up to `end`."""
        if self.cost_each_usd is None:
            return None
        return self.cost_each_usd * sum(1 for instant in self.instants if instant <= end)


def expected(
    db: Connection[DictRow],
    snapshot: Snapshot,
    schedules: Sequence[Planned],
    *,
    since: datetime,
    until: datetime,
) -> list[Expected]:
    """What each schedule's features are expected to take from `since` to `until`."""
    usual = {row["feature"]: row for row in db.execute(_USUAL)}
    return [
        one
        for schedule in schedules
        for one in _of_schedule(snapshot, schedule, usual, since=since, until=until)
    ]


def _of_schedule(
    snapshot: Snapshot,
    schedule: Planned,
    usual: Mapping[str, DictRow],
    *,
    since: datetime,
    until: datetime,
) -> Iterator[Expected]:
    parsed = cron.parse(schedule.cron, schedule.timezone)
    instants = list(takewhile(lambda at: at <= until, parsed.after(since)))[:MOST_FIRINGS]
    jobs_each = _combinations(schedule.inputs_matrix)
    for name in (schedule.feature_name, *(step["feature_name"] for step in schedule.then)):
        feature = snapshot.features.get(name)
        model = None if feature is None else _model(snapshot, feature)
        took = usual.get(name)
        if feature is None or took is None:
            yield Expected(schedule, name, model, instants, jobs_each, None, None, None)
            continue
        jobs = jobs_each * len(instants)
        price = None if model is None else snapshot.price(model.id, since)
        in_batch = schedule.use_batch_api and feature.lane == "batch"
        each = pricing.cost(_usage(took, in_batch=in_batch), price)
        yield Expected(
            schedule,
            name,
            model,
            instants,
            jobs_each,
            round(took["input_tokens"] * jobs),
            round(took["output_tokens"] * jobs),
            None if each is None else each * jobs_each,
        )


def _combinations(matrix: Mapping[str, Any]) -> int:
    count = 1
    for values in matrix.values():
        count *= len(values) if isinstance(values, list) else 1
    return count


def _model(snapshot: Snapshot, feature: Feature) -> Model | None:
    """The model that the feature's jobs go to first, as the assignment lists them."""
    assignment = snapshot.assignments.get(feature.id)
    targets = () if assignment is None else assignment.targets
    models = (snapshot.models.get(target.model_id) for target in targets)
    return next((model for model in models if model is not None and model.is_active), None)


def _usage(took: DictRow, *, in_batch: bool) -> Usage:
    return Usage(
        input_tokens=round(took["input_tokens"]),
        output_tokens=round(took["output_tokens"]),
        characters=round(took["characters"]),
        seconds=float(took["seconds"]),
        images=round(took["images"]),
        batch_rate=in_batch,
    )


_USUAL = """
SELECT feature, sum(input_tokens)::float8 / sum(calls) AS input_tokens,
    sum(output_tokens)::float8 / sum(calls) AS output_tokens, sum(characters)::float8 / sum(calls) AS
    characters, sum(seconds)::float8 / sum(calls) AS seconds, sum(images)::float8 / sum(calls) AS images
FROM usage_daily
WHERE day > (now() AT TIME ZONE 'UTC')::date - 7 AND outcome = 'succeeded'
GROUP BY feature HAVING sum(calls) > 0"""
