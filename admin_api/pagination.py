"""Lists: `?limit=&cursor=` in, `{"items": [...], "next_cursor": ...}` out.

A cursor is the sort key of the last item, so pages stay true while rows come and go, and no page is slower
than the first.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Annotated, Any, Generic, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Select, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session

from admin_api.refusals import Invalid

T = TypeVar("T")
Row = TypeVar("Row")


class Page(BaseModel, Generic[T]):
    """One page of a list; `next_cursor` is null on the last."""

    items: list[T]
    next_cursor: str | None


class PageQuery(BaseModel):
    """What every list takes. Filters are added by subclasses; other parameters are refused."""

    model_config = ConfigDict(extra="forbid")

    limit: Annotated[int, Field(ge=1, le=200)] = 50
    cursor: Annotated[str | None, Field(max_length=1000, description="`next_cursor` of a page.")] = None


def page_of(
    session: Session,
    statement: Select[Row],
    query: PageQuery,
    *,
    by: Sequence[InstrumentedAttribute[Any]],
) -> tuple[list[Row], str | None]:
    """The rows of a page, sorted by the columns `by` (unique together), and the next page's cursor."""
    if query.cursor is not None:
        statement = statement.where(tuple_(*by) > tuple_(*_after(query.cursor, by)))
    rows = session.scalars(statement.order_by(*by).limit(query.limit + 1)).all()
    return cut(rows, query.limit, key=lambda row: [getattr(row, column.key) for column in by])


def cut(
    rows: Sequence[Row], limit: int, *, key: Callable[[Row], Sequence[object]]
) -> tuple[list[Row], str | None]:
    """At most `limit` of the rows, and a cursor where there were more."""
    if len(rows) <= limit:
        return list(rows), None
    return list(rows[:limit]), encoded(key(rows[limit - 1]))


def every(read: Callable[[str | None], Page[T]]) -> Iterator[T]:
    """All items of a list, page by page: of configuration, never of history. `read` takes a cursor."""
    cursor = None
    while True:
        page = read(cursor)
        yield from page.items
        cursor = page.next_cursor
        if cursor is None:
            return


def encoded(values: Sequence[object]) -> str:
    """An opaque cursor."""
    return base64.urlsafe_b64encode(json.dumps(values, default=str).encode()).decode().rstrip("=")


def decoded(cursor: str, kinds: Sequence[type]) -> list[Any]:
    """The values of a cursor, which must be of these kinds. Raises Invalid."""
    try:
        values = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        return [_value(value, kind) for value, kind in zip(values, kinds, strict=True)]
    except (binascii.Error, ValueError, TypeError):
        raise Invalid(
            "This is no cursor of this list.",
            field="cursor",
            hint="Use the next_cursor of its page before, or none.",
        ) from None


def _value(value: Any, kind: type) -> Any:
    if kind is UUID and isinstance(value, str):
        return UUID(value)
    if kind is datetime and isinstance(value, str):
        return _time(value)
    if type(value) is not kind or (isinstance(value, int) and not -(2**31) <= value < 2**31):
        raise TypeError
    if isinstance(value, str) and ("\x00" in value or not value.isprintable()):
        raise ValueError
    return value


def _time(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    if time.tzinfo is None or not 2000 <= time.year < 3000:
        raise ValueError
    return time


def _after(cursor: str, by: Sequence[InstrumentedAttribute[Any]]) -> list[Any]:
    return decoded(cursor, [column.type.python_type for column in by])
