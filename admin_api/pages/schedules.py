"""Schedules: what fires when, how it went last, and what a button does to one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response

from admin_api.groups import Group
from admin_api.pages.cron_words import in_words
from admin_api.pages.groups import groups_of
from admin_api.pages.render import page
from admin_api.pages.route import PageRoute, Sent, done, safe_path
from admin_api.pages.schedule_form import PATH
from admin_api.schedules import (
    Schedule,
    ScheduleQuery,
    change_schedule,
    delete_schedule,
    get_schedule,
    list_schedules,
    run_schedule,
)
from admin_api.security import Current, allow_reading, allow_writing
from admin_api.services import Using
from admin_api.sessions import Reading, Writing

router = APIRouter(route_class=PageRoute)

_AT_ONCE = 12


@dataclass(frozen=True, slots=True)
class Row:
    """A schedule, when it fires in words, and the group of its last firing."""

    schedule: Schedule
    words: str
    group: Group | None


@router.get(PATH)
@allow_reading
def show_schedules(query: Annotated[ScheduleQuery, Query()], request: Request, session: Reading) -> Response:
    """Schedules, oldest first."""
    found = list_schedules(query.model_copy(update={"limit": _AT_ONCE}), session)
    groups = groups_of([each.last_fire for each in found.items if each.last_fire is not None], session)
    return page(
        request,
        "schedules.html",
        rows=[
            Row(
                each,
                in_words(each.cron),
                None if each.last_fire is None else groups.get(each.last_fire.group_id),
            )
            for each in found.items
        ],
        first=PATH if query.cursor else "",
        further=f"{PATH}?cursor={found.next_cursor}" if found.next_cursor else "",
    )


@router.post(PATH + "/{schedule_id}/run-now")
@allow_writing
def run_now(schedule_id: UUID, session: Reading, using: Using) -> Response:
    """Fire the schedule, and go to the group of its jobs."""
    fire = run_schedule(schedule_id, session, using)
    return done(f"/groups/{fire.group_id}", f"{fire.jobs:,} {'job' if fire.jobs == 1 else 'jobs'} enqueued.")


@router.post(PATH + "/{schedule_id}/pause")
@allow_writing
def pause(schedule_id: UUID, sent: Sent, session: Writing, caller: Current, using: Using) -> Response:
    """Let the schedule fire no more by itself."""
    saved = change_schedule(schedule_id, {"is_active": False}, session, caller, using)
    return done(_back(sent), f"{saved.name} is paused: it fires only by hand.", kind="warn")


@router.post(PATH + "/{schedule_id}/resume")
@allow_writing
def resume(schedule_id: UUID, sent: Sent, session: Writing, caller: Current, using: Using) -> Response:
    """Let the schedule fire again, from now on."""
    saved = change_schedule(schedule_id, {"is_active": True}, session, caller, using)
    return done(_back(sent), f"{saved.name} runs again. What it missed meanwhile does not fire.")


@router.post(PATH + "/{schedule_id}/delete")
@allow_writing
def remove(schedule_id: UUID, session: Writing) -> Response:
    """Delete the schedule."""
    name = get_schedule(schedule_id, session).name
    delete_schedule(schedule_id, session)
    return done(PATH, f"{name} is deleted. Its jobs stay.")


def _back(sent: Sent) -> str:
    return safe_path(sent.get("back"), otherwise=PATH)
