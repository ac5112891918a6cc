"""What the page of usage is asked: a period, a grouping, and what it is narrowed to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, TypeAlias
from urllib.parse import urlencode
from uuid import UUID

from fastapi import Request
from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from admin_api.errors import field_errors
from admin_api.fields import Tag
from admin_api.usage import StatsQuery

Days: TypeAlias = Literal[1, 7, 30, 90]
By: TypeAlias = Literal["provider", "model", "feature", "user", "hour", "day"]
Step: TypeAlias = Literal["hour", "day", "week"]

PERIODS: Mapping[Days, str] = {1: "24 hours", 7: "7 days", 30: "30 days", 90: "90 days"}
GROUPINGS: tuple[By, ...] = ("provider", "model", "feature", "user", "hour", "day")
NARROWING = ("provider", "model", "feature")
"""Filters of all figures; the others are of the list of calls alone."""

_STEPS: Mapping[Days, Step] = {1: "hour", 7: "day", 30: "day", 90: "week"}
_NEXT: Mapping[By, By] = {"provider": "model", "model": "feature", "feature": "provider"}
_Number = BeforeValidator(lambda sent: int(sent) if isinstance(sent, str) and sent.isdecimal() else sent)


@dataclass(frozen=True, slots=True)
class Span:
    """From when (inclusive) to when (exclusive)."""

    since: datetime
    until: datetime


class Asked(BaseModel):
    """The address's query; an empty field asks for nothing."""

    days: Annotated[Days, _Number] = 7
    by: By = "provider"
    provider: Tag | None = None
    model: Tag | None = None
    feature: Tag | None = None
    user_id: Tag | None = None
    outcome: Literal["succeeded", "failed", "superseded", "lost"] | None = None
    error_class: Tag | None = None
    job_id: UUID | None = None
    cursor: Annotated[str | None, Field(max_length=1000)] = None

    @property
    def step(self) -> Step:
        """How much time a point of the charts covers."""
        return _STEPS[self.days]

    @property
    def stacked(self) -> By:
        """What the cost over time is told apart by: the grouping, unless that is users or a time."""
        return self.by if self.by in NARROWING else "provider"

    @property
    def narrowed(self) -> dict[str, str]:
        """What all figures are narrowed to."""
        return {name: value for name in NARROWING if (value := getattr(self, name)) is not None}

    @property
    def kept(self) -> list[tuple[str, str]]:
        """What the form that filters the calls leaves as it is."""
        asked = self.model_dump(mode="json", exclude_defaults=True, include={"days", "by", *NARROWING})
        return [(name, str(value)) for name, value in asked.items()]

    @property
    def is_filtered(self) -> bool:
        """Whether the list of calls is narrowed further than the figures are."""
        return any((self.user_id, self.outcome, self.error_class, self.job_id))

    def address(self, path: str = "/usage", **changed: Any) -> str:
        """This page, or another, asked the same but for these; an empty value is taken away."""
        asked = self.model_dump(mode="json", exclude_defaults=True, exclude={"cursor"}) | changed
        query = urlencode({name: value for name, value in asked.items() if value})
        return f"{path}?{query}" if query else path

    def into(self, value: object) -> str:
        """The page, narrowed to a group, which is told apart by something else; "" where it cannot be."""
        if value is None or self.by not in (*NARROWING, "user"):
            return ""
        if self.by == "user":
            return self.address(user_id=value) + "#calls"
        narrowed: dict[str, Any] = {"by": _NEXT[self.by], self.by: value}
        return self.address(**narrowed)

    def spans(self, now: datetime) -> tuple[Span, Span]:
        """The period up to now, and the one before, which is as long, to the hour."""
        hour = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        begin = hour - timedelta(hours=23) if self.days == 1 else _midnight(now, self.days - 1)
        length = timedelta(days=self.days)
        end = hour + timedelta(hours=1)
        return Span(begin, end), Span(begin - length, end - length)

    def query(self, span: Span, *group_by: str) -> StatsQuery:
        """The question for the API's function."""
        return StatsQuery(
            since=span.since, until=span.until, group_by=",".join(group_by) or None, **self.narrowed
        )


def read(request: Request) -> tuple[Asked, dict[str, str]]:
    """What the address asks, without the fields that make no sense, and what is wrong with those."""
    sent = {name: value.strip() for name, value in request.query_params.items() if value.strip()}
    try:
        return Asked.model_validate(sent), {}
    except ValidationError as error:
        wrong = {each.field: each.message for each in field_errors(error)}
    return Asked.model_validate({name: value for name, value in sent.items() if name not in wrong}), wrong


def _midnight(now: datetime, days: int) -> datetime:
    """When the day (UTC) that many days ago began."""
    today = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return today - timedelta(days=days)
