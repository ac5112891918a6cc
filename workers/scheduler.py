"""The scheduler: fires schedules, each instant exactly once, however many schedulers run.

    lock the schedule that is due longest → its instant → jobs + note that it fired + how far it is → commit

All of an instant is one transaction, under the schedule's lock: an edit waits for it, or it sees the edit.
Who dies in between has fired nothing; another scheduler does. The clock is the database's.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
from psycopg import Connection
from psycopg.rows import DictRow

from routing.errors import RoutingError
from routing.snapshot import Snapshot, Snapshots
from store.database import UNAVAILABLE, Pool
from workers.cron import Cron, CronInvalid, parse
from workers.firing import Jobs, Moved, Planned, fire, prepare
from workers.rounds import Rounds

logger = logging.getLogger(__name__)

PUNCTUAL = timedelta(seconds=60)
"""How late an instant may fire whose schedule catches up nothing."""

_PAUSE_SECONDS = 0.5
_RETRY = timedelta(seconds=30)  # after a schedule that could not even be tried


@dataclass(frozen=True, slots=True)
class _Step:
    """What a schedule owes: `instant`, if there is one; all up to `cursor` is dealt with then."""

    instant: datetime | None
    cursor: datetime
    next_at: datetime | None


def next_step(cron: Cron, catch_up: str, *, cursor: datetime, now: datetime) -> _Step:
    """What a schedule owes at `now` of which all up to `cursor` is dealt with.

    `all` owes every instant, the oldest first; `latest` the newest alone; `none` the newest if it is not
    older than `PUNCTUAL`.
    """
    if catch_up == "all":
        first = cron.next(cursor)
        if first is None or first > now:
            return _Step(None, cursor, first)
        return _Step(first, first, cron.next(first))
    newest = cron.last(cursor, now)
    if newest is not None and catch_up == "none" and newest <= now - PUNCTUAL:
        newest = None
    return _Step(newest, now, cron.next(now))


class Scheduler:
    """One scheduler. Thread-safe to stop."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._snapshots = Snapshots(self._pool, with_keys=False)
        self._rounds = Rounds("scheduler", self.turn, goes_on=bool, pause_seconds=_PAUSE_SECONDS)

    def start(self) -> None:
        """Begin."""
        self._rounds.start()

    def stop(self) -> None:
        """End after the instant it is at."""
        self._rounds.stop()

    def turn(self) -> bool:
        """Deal with the schedule that is due longest; False where none is."""
        with self._pool.connection() as db, db.transaction():
            row = db.execute("SELECT * FROM due_schedule()").fetchone()
            if row is None:
                return False
            self._deal_with(db, row)
        return True

    def _deal_with(self, db: Connection[DictRow], row: dict[str, Any]) -> None:
        try:
            cron = parse(row["cron"], row["timezone"])
        except CronInvalid as error:  # it was one when it was saved: another version of the time zones
            logger.warning("Schedule %s cannot be read: %s", row["name"], error)
            _advance(db, row, _Step(None, row["cursor_at"], row["next_at"]), retry_at=row["at"] + _RETRY)
            return
        step = next_step(cron, row["catch_up"], cursor=row["cursor_at"], now=row["at"])
        if step.instant is not None:
            planned = Planned(**{name: row[name] for name in Planned.__slots__})
            try:
                with db.transaction():
                    group, refusal = self._fired(db, planned, step.instant)
            except UNAVAILABLE:
                raise
            except psycopg.Error:
                logger.exception("Schedule %s could not fire at %s.", planned.name, step.instant)
                _advance(db, row, _Step(None, row["cursor_at"], row["next_at"]), retry_at=row["at"] + _RETRY)
                return
            if refusal is not None:
                logger.warning("Schedule %s did not fire at %s: %s", planned.name, step.instant, refusal)
            elif group is not None:
                logger.info("Schedule %s fired at %s: group %s.", planned.name, step.instant, group)
        _advance(db, row, step)

    def _fired(
        self, db: Connection[DictRow], planned: Planned, instant: datetime
    ) -> tuple[UUID | None, str | None]:
        """The group that an instant became, or why it became none."""
        while True:
            version = db.execute("SELECT version FROM config_state").fetchone()
            assert version is not None, "config_state always has its one row"  # noqa: S101
            snapshot = self._snapshots.at_least(version["version"])
            made, refusal = _prepared(snapshot, planned, instant)
            try:
                return fire(
                    db, planned, instant, made, kind="scheduled", version=snapshot.version, error=refusal
                ), refusal
            except Moved:
                logger.info("The configuration changed while schedule %s fired.", planned.name)


def _prepared(snapshot: Snapshot, planned: Planned, instant: datetime) -> tuple[Jobs | None, str | None]:
    try:
        return prepare(snapshot, planned, instant), None
    except RoutingError as error:
        return None, error.message


def _advance(
    db: Connection[DictRow], row: dict[str, Any], step: _Step, *, retry_at: datetime | None = None
) -> None:
    values = {"id": row["id"], "cursor": step.cursor, "next": step.next_at, "retry": retry_at}
    db.execute("SELECT advance_schedule(%(id)s, %(cursor)s, %(next)s, %(retry)s)", values)
