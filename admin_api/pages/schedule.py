"""A schedule: its settings, when it fires next, and what it has fired."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response

from admin_api.groups import Group
from admin_api.pages import schedule_inputs
from admin_api.pages.cron_words import in_words
from admin_api.pages.groups import groups_of
from admin_api.pages.job_results import Excerpt, pretty
from admin_api.pages.render import page
from admin_api.pages.route import PageRoute
from admin_api.pages.schedule_form import PATH
from admin_api.schedules import (
    Fire,
    FireQuery,
    PreviewBody,
    Schedule,
    get_schedule,
    list_fires,
    preview_schedule,
)
from admin_api.security import allow_reading
from admin_api.sessions import Reading

router = APIRouter(route_class=PageRoute)

_FIRES = 15  # a page
_MOST_BYTES = 3000  # of the matrix


@dataclass(frozen=True, slots=True)
class Sight:
    """A schedule, and what the page tells beside its row. `coming`: its next instants, also while paused."""

    schedule: Schedule
    words: str
    jobs: int
    inputs: Excerpt
    coming: list[datetime]


@dataclass(frozen=True, slots=True)
class Fired:
    """An instant that was fired, and the group of its jobs."""

    fire: Fire
    group: Group | None


@router.get(PATH + "/{schedule_id}")
@allow_reading
def show_schedule(
    schedule_id: UUID, query: Annotated[FireQuery, Query()], request: Request, session: Reading
) -> Response:
    """All that is known of a schedule."""
    schedule = get_schedule(schedule_id, session)
    fires = list_fires(schedule_id, query.model_copy(update={"limit": _FIRES}), session)
    groups = groups_of(fires.items, session)
    path = f"{PATH}/{schedule_id}"
    return page(
        request,
        "schedule.html",
        sight=Sight(
            schedule,
            in_words(schedule.cron),
            schedule_inputs.jobs(schedule.inputs_matrix),
            pretty(schedule.inputs_matrix, most_bytes=_MOST_BYTES),
            preview_schedule(PreviewBody(cron=schedule.cron, timezone=schedule.timezone)).items,
        ),
        fired=[Fired(fire, groups.get(fire.group_id)) for fire in fires.items],
        first=path if query.cursor else "",
        further=f"{path}?cursor={fires.next_cursor}" if fires.next_cursor else "",
    )
