"""A group: how far the jobs of a firing are, and what they made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from admin_api import groups
from admin_api.groups import Group, get_group
from admin_api.job_bodies import Callback
from admin_api.pages.render import page
from admin_api.pages.route import PageRoute
from admin_api.pages.strands import strands
from admin_api.schedules import Fire
from admin_api.security import allow_reading
from admin_api.sessions import Reading
from store.tables import JobGroup, Schedule

router = APIRouter(route_class=PageRoute)


@dataclass(frozen=True, slots=True)
class Progress:
    """A group, and what the page tells beside its row."""

    group: Group

    @property
    def is_running(self) -> bool:
        return self.group.finished_at is None

    @property
    def left(self) -> int:
        """Jobs that are made and have not ended."""
        return self.group.total - self.group.done

    @property
    def parts(self) -> Sequence[tuple[str, int, int]]:
        """The bar: of each kind how many jobs come before it, and how many it has."""
        counted = self.group
        before, found = 0, []
        for kind, count in (
            ("succeeded", counted.succeeded),
            ("failed", counted.failed),
            ("cancelled", counted.cancelled),
            ("skipped", counted.skipped),
        ):
            if count:
                found.append((kind, before, count))
            before += count
        return found

    @property
    def seconds(self) -> float:
        """How long it took, or runs already."""
        return ((self.group.finished_at or datetime.now(UTC)) - self.group.created_at).total_seconds()

    def matching(self, action: str, **narrowed: str) -> str:
        """The page that tells how many of the jobs an action would be taken on."""
        return "/jobs/matching?" + urlencode({"action": action, "group_id": self.group.id, **narrowed})


@router.get("/groups/{group_id}")
@allow_reading
def show_group(
    group_id: UUID, request: Request, session: Reading, after: Annotated[UUID | None, Query()] = None
) -> Response:
    """A group; live until it has finished."""
    group = get_group(group_id, session)
    found = strands(session, group_id, group.created_at, after)
    path = f"/groups/{group_id}"
    return page(
        request,
        "group.html",
        progress=Progress(group),
        schedule=None if group.schedule_id is None else session.get(Schedule, group.schedule_id),
        callbacks=_callbacks(group, session),
        strands=found.items,
        first=path if after else "",
        further=f"{path}?after={found.further}" if found.further else "",
    )


def _callbacks(group: Group, session: Session) -> list[Callback]:
    """How it went to tell that the group has finished."""
    if group.callback_url is None or group.finished_at is None:
        return []
    rows = session.execute(_CALLBACKS, {"group_id": group.id}).mappings()
    return [Callback(**row) for row in rows]


_CALLBACKS = text("""
SELECT event, url, tries, sent_at, error,
    CASE WHEN sent_at IS NOT NULL THEN 'sent' WHEN failed_at IS NOT NULL THEN 'failed' ELSE 'pending' END AS
    state
FROM notices WHERE group_id = :group_id AND url IS NOT NULL ORDER BY made_at""")


def groups_of(fires: Sequence[Fire], session: Session) -> Mapping[UUID | None, Group]:
    """The groups of these firings, by their ids."""
    ids = [fire.group_id for fire in fires if fire.group_id is not None]
    rows = session.scalars(select(JobGroup).where(JobGroup.id.in_(ids)))
    return {row.id: groups.shown(row) for row in rows}
