"""Batches: what providers answer together, how far they are, and when what is left goes live."""

from __future__ import annotations

from typing import Annotated, get_args
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from admin_api.batches import BatchQuery, State, list_batches
from admin_api.pages.render import page
from admin_api.pages.route import PageRoute
from admin_api.security import allow_reading
from admin_api.services import Using

router = APIRouter(route_class=PageRoute)

PATH = "/batches"

_AT_ONCE = 20


class Asked(BatchQuery):
    """What is looked at: the batches of one state, or of one feature."""

    limit: Annotated[int, Field(ge=1, le=_AT_ONCE)] = _AT_ONCE

    def address(self, **changed: str | None) -> str:
        """The list with other filters, from its beginning."""
        asked = {"state": self.state, "feature": self.feature, **changed}
        query = urlencode({name: value for name, value in asked.items() if value})
        return f"{PATH}?{query}" if query else PATH


@router.get(PATH)
@allow_reading
def show_batches(query: Annotated[Asked, Query()], request: Request, using: Using) -> Response:
    """Batches of the last month, newest first."""
    found = list_batches(query, using)
    return page(
        request,
        "batches.html",
        batches=found.items,
        asked=query,
        states=get_args(State),
        first=query.address() if query.cursor else "",
        further=query.address(cursor=found.next_cursor) if found.next_cursor else "",
    )
