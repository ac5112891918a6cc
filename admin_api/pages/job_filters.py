"""What the list of jobs is narrowed by: in its form, in links, and where all that match are acted on."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar
from urllib.parse import urlencode

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, ValidationError, model_validator

from admin_api.job_bodies import JobFilter, JobQuery

M = TypeVar("M", bound=BaseModel)

ROWS = 20

_TRAIL = "."  # between cursors, in none of which it occurs
_LONGEST_TRAIL = 20  # pages that "Newer" leads back over


class Filter(JobQuery):
    """As the form sends it: an empty field asks for nothing, times are UTC.

    `trail`: the cursors of the pages between the first one and this one.
    """

    limit: Annotated[int, Field(ge=1, le=ROWS)] = ROWS
    trail: Annotated[str, Field(max_length=4000)] = ""

    @model_validator(mode="before")
    @classmethod
    def _read(cls, sent: Mapping[str, Any]) -> dict[str, Any]:
        told = {name: value.strip() for name, value in sent.items()}
        told = {name: value for name, value in told.items() if value}
        return told | {name: _utc(told[name]) for name in ("since", "until") if name in told}

    @property
    def asked(self) -> dict[str, str]:
        """The filters that are set, as the form shows them."""
        set_ = self.model_dump(include=set(JobFilter.model_fields), exclude_none=True)
        return {name: _local(value) for name, value in set_.items()}

    @property
    def chosen(self) -> JobFilter:
        """What an action on all that match takes. Raises RequestValidationError where no filter is set."""
        return _checked(JobFilter, self.model_dump(include=set(JobFilter.model_fields)))

    def address(self, path: str = "/jobs", **changed: str) -> str:
        """The list, or another page, with these filters and others; an empty one is taken away."""
        query = urlencode({name: value for name, value in {**self.asked, **changed}.items() if value})
        return f"{path}?{query}" if query else path

    def older(self, cursor: str | None) -> str:
        """The next page; "" where there is none."""
        if cursor is None:
            return ""
        trail = [*self._trail, self.cursor or ""][-_LONGEST_TRAIL:]
        return self.address(cursor=cursor, trail=_TRAIL.join(trail))

    @property
    def newer(self) -> str:
        """The page before; "" on the first one."""
        if self.cursor is None:
            return ""
        *trail, cursor = self._trail or [""]
        return self.address(cursor=cursor, trail=_TRAIL.join(trail))

    @property
    def _trail(self) -> list[str]:
        return self.trail.split(_TRAIL) if self.cursor is not None else []


def read(request: Request, kind: type[M]) -> M:
    """The filter, of this kind, that the request's address has. Raises RequestValidationError."""
    return _checked(kind, dict(request.query_params))


def _checked(kind: type[M], values: Mapping[str, Any]) -> M:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        located = [{**found, "loc": ("query", *found["loc"])} for found in error.errors()]
        raise RequestValidationError(located) from None


def _utc(text: str) -> str:
    """A time as the form's field sends it, which names no zone, as one in UTC."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return text
    return time.replace(tzinfo=UTC).isoformat() if time.tzinfo is None else text


def _local(value: Any) -> str:
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M") if isinstance(value, datetime) else str(value)
