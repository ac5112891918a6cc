"""What schedules do next, and which of their groups are under way, for the overview."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from admin_api import groups
from admin_api.groups import Group
from store.tables import JobGroup, Schedule, ScheduleState

_FEW = 3
_RECENT = timedelta(days=2)  # no index tells which groups are under way: only these are looked at


@dataclass(frozen=True, slots=True)
class Firing:
    """When a schedule fires next."""

    schedule: Schedule
    at: datetime


@dataclass(frozen=True, slots=True)
class Upcoming:
    """The next firings, the earliest first, and the newest groups that have not finished."""

    firings: Sequence[Firing]
    running: Sequence[Group]


def upcoming(session: Session) -> Upcoming:
    """The first few of both."""
    coming = session.execute(
        select(Schedule, ScheduleState.next_at)
        .join(ScheduleState, ScheduleState.schedule_id == Schedule.id)
        .where(Schedule.is_active, ScheduleState.next_at.is_not(None))
        .order_by(ScheduleState.next_at)
        .limit(_FEW)
    )
    running = session.scalars(
        select(JobGroup)
        .where(JobGroup.finished_at.is_(None), JobGroup.id > _first_id(datetime.now(UTC) - _RECENT))
        .order_by(JobGroup.id.desc())
        .limit(_FEW)
    )
    return Upcoming(
        [Firing(schedule, at) for schedule, at in coming if at is not None],
        [groups.shown(row) for row in running],
    )


def _first_id(at: datetime) -> UUID:
    """No UUIDv7 made at this time or later is less than this one."""
    return UUID(int=int(at.timestamp() * 1000) << 80)
