"""What a schedule's instant becomes: jobs, checked against the configuration as any others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import product
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from psycopg import Connection
from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from routing import templates
from routing.admission import admit, check_input
from routing.errors import ConfigurationError, InputRejected
from routing.snapshot import Snapshot
from routing.values import Feature, Request
from store.ids import first_of_many
from workers import chains

MOST_JOBS = 10_000
"""Of one firing, the steps of chains not counted."""

_FIRE = """
SELECT fired_group, moved FROM fire_schedule(%(id)s, %(instant)s, %(kind)s, %(feature)s, %(capability)s,
    %(lane)s, %(jobs)s, %(steps)s, %(version)s, %(error)s)"""


class Moved(Exception):
    """The configuration changed while an instant was prepared. Nothing was written: prepare it again."""


@dataclass(frozen=True, slots=True)
class Planned:
    """What of a schedule decides about its jobs."""

    id: UUID
    name: str
    timezone: str
    feature_name: str
    inputs_matrix: Mapping[str, Any]
    then: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Jobs:
    """The jobs of one instant."""

    feature: Feature
    inputs: Sequence[Mapping[str, Any]]
    steps: Sequence[Mapping[str, Any]] | None


def prepare(snapshot: Snapshot, planned: Planned, instant: datetime) -> Jobs:
    """The jobs of an instant. Raises RoutingError: nothing would serve them, or as `checked`."""
    asked = Request(planned.feature_name, next(inputs_of(planned, instant)))
    admit(snapshot, asked, now=datetime.now(UTC))
    return checked(snapshot, planned, instant)


def checked(snapshot: Snapshot, planned: Planned, instant: datetime) -> Jobs:
    """The jobs of an instant, whether anything would serve them or not.

    Raises InputRejected, which names the field of the schedule.
    """
    feature = snapshot.features.get(planned.feature_name)
    if feature is None:
        raise InputRejected(f"There is no feature {planned.feature_name!r}.", field="feature_name")
    inputs = list(inputs_of(planned, instant))
    for input_ in inputs:
        try:
            check_input(feature.input_schema, input_)
        except InputRejected as error:
            path = error.field.removeprefix("input").lstrip("/").partition("/")[0]
            where = f"inputs_matrix/{path}" if path else "inputs_matrix"
            raise InputRejected(error.message, field=where) from None
    return Jobs(feature, inputs, chains.compiled(snapshot, feature, planned.then))


def inputs_of(planned: Planned, instant: datetime) -> Iterator[dict[str, Any]]:
    """Each combination of the matrix's values, texts filled in; the last member changes first.

    Raises InputRejected.
    """
    names = list(planned.inputs_matrix)
    columns = [_values(planned.inputs_matrix[name], name) for name in names]
    count = 1
    for column in columns:
        count *= len(column)
    if count > MOST_JOBS:
        raise InputRejected(
            f"The matrix makes {count:,} jobs; one firing may have {MOST_JOBS:,}.", field="inputs_matrix"
        )
    known = variables(planned, instant)
    filled = [
        [_filled(value, known, f"inputs_matrix/{name}") for value in column]
        for name, column in zip(names, columns, strict=True)
    ]
    for combination in product(*filled):
        yield dict(zip(names, combination, strict=True))


def variables(planned: Planned, instant: datetime) -> dict[str, Any]:
    """What texts of a matrix may use: the instant in the schedule's zone."""
    local = instant.astimezone(ZoneInfo(planned.timezone))
    return {
        "date": local.date().isoformat(),
        "time": f"{local:%H:%M}",
        "weekday": f"{local:%A}",
        "year": local.year,
        "month": local.month,
        "day": local.day,
        "week": local.isocalendar().week,
        "timezone": planned.timezone,
        "instant": instant.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "schedule": planned.name,
    }


def fire(
    db: Connection[DictRow],
    planned: Planned,
    instant: datetime,
    made: Jobs | None,
    *,
    kind: str,
    version: int,
    error: str | None = None,
) -> UUID | None:
    """Fire an instant: its jobs and the note that it was, in the caller's transaction.

    Args:
        made: its jobs, checked against the configuration at `version`; None: they were refused, for `error`.

    Returns the group of its jobs; None where there are none, or where the instant has fired before.
    Raises Moved.
    """
    values = {
        "id": planned.id,
        "instant": instant,
        "kind": kind,
        "feature": planned.feature_name,
        "capability": made.feature.capability.value if made else None,
        "lane": made.feature.lane if made else None,
        "jobs": Jsonb(_numbered(made.inputs)) if made else None,
        "steps": Jsonb(made.steps) if made and made.steps else None,
        "version": version,
        "error": error,
    }
    row = db.execute(_FIRE, values).fetchone()
    assert row is not None, "the function has one row"  # noqa: S101
    if row["moved"]:
        raise Moved
    group: UUID | None = row["fired_group"]
    return group


def _numbered(inputs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Jobs in their order: the queue goes by their ids."""
    first = first_of_many().int
    return [{"id": str(UUID(int=first + place)), "input": input_} for place, input_ in enumerate(inputs)]


def _values(column: Any, name: str) -> list[Any]:
    """A member's values; one alone is one."""
    values = column if isinstance(column, list) else [column]
    if not values:
        raise InputRejected(
            "It has no values, so there would be no jobs. Give it some, or remove it.",
            field=f"inputs_matrix/{name}",
        )
    return values


def _filled(value: Any, known: Mapping[str, Any], where: str) -> Any:
    if not isinstance(value, str) or "{" not in value:
        return value
    try:
        return templates.render(value, known)
    except ConfigurationError as error:
        raise InputRejected(
            f"{error.message} Known are {', '.join(known)}.".replace("The prompt template", "The text"),
            field=where,
        ) from None
