"""The keeper: how long things are kept. Runs in every scheduler process; one of them at a time does a turn.

    partitions ahead → alarm about missing ones → contents that features do not keep → days that are too old

Each step stands alone: what one of them cannot do now holds up no other, and the next turn tries again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from psycopg import Connection
from psycopg.rows import DictRow

from store.database import UNAVAILABLE, Pool
from workers import alerts, batches, erasure
from workers.alerts import Alert
from workers.artifacts import ArtifactError, Artifacts
from workers.erasure import Ended
from workers.rounds import Rounds

logger = logging.getLogger(__name__)

PAUSE_SECONDS = 300.0
"""Between two turns of a process."""

WAIT = timedelta(hours=1)
"""How long outputs stay that are not to be stored: for whoever waits for them."""

_BREATH_SECONDS = 0.2  # between two drops: whoever waited for the lock goes first
_LATE = timedelta(hours=1)  # how long after its end, by its clock, a job's record may be committed
_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
_FIRST_ID = UUID(int=0)


@dataclass(frozen=True, slots=True)
class _Term:
    """What is erased of a feature's jobs that ended before `until`."""

    feature: str
    until: datetime
    inputs: bool
    outputs: bool


class Keeper:
    """One process's keeper. Thread-safe to stop."""

    def __init__(self, pool: Pool, artifacts: Artifacts, *, pause_seconds: float = PAUSE_SECONDS) -> None:
        self._pool = pool
        self._artifacts = artifacts
        self._pause_seconds = pause_seconds
        # By feature and what is erased: until when all of that has been. A new process reads all of it once.
        self._done: dict[tuple[str, bool, bool], datetime] = {}
        self._rounds = Rounds("keeper", self.turn, pause_seconds=pause_seconds)

    def start(self) -> None:
        """Begin."""
        self._rounds.start()

    def stop(self) -> None:
        """End after the page or partition it is at."""
        self._rounds.stop()

    def turn(self) -> bool:
        """Do what is due; False where another process is at it."""
        with self._pool.connection() as db, _alone(db) as is_alone:
            if is_alone:
                for step in (self._look_ahead, self._expire, self._sweep, self._drop, batches.prune):
                    self._try(step, db)
            return is_alone

    def _try(self, step: Callable[[Connection[DictRow]], None], db: Connection[DictRow]) -> None:
        try:
            step(db)
        except UNAVAILABLE:
            raise
        except ArtifactError as error:
            logger.warning("What has expired waits: %s", error)
        except Exception:
            logger.exception("A step of the keeper failed; the next turn is in %g s.", self._pause_seconds)

    def _look_ahead(self, db: Connection[DictRow]) -> None:
        """Make the partitions of two weeks; raise an alert where one of the next days has none."""
        db.execute(_ENSURE)
        alerts.raise_all(db, [_missing(row["table_name"], row["days"]) for row in db.execute(_MISSING)])

    def _expire(self, db: Connection[DictRow]) -> None:
        """Erase what features do not keep: what they store for an hour only, or for days."""
        for term in [_Term(**row) for row in db.execute(_TERMS, {"wait": WAIT})]:
            key = (term.feature, term.inputs, term.outputs)
            since = self._done.get(key, _EPOCH)
            for page in self._pages(db, term, since):
                erasure.erase(self._pool, self._artifacts, page, inputs=term.inputs, outputs=term.outputs)
            if not self._rounds.is_over:
                self._done[key] = max(since, term.until - _LATE)

    def _pages(self, db: Connection[DictRow], term: _Term, since: datetime) -> Iterator[list[Ended]]:
        after = _FIRST_ID
        while not self._rounds.is_over:
            values = {
                **{name: getattr(term, name) for name in _Term.__slots__},
                "since": since,
                "after": after,
                "most": erasure.AT_ONCE,
            }
            page = [Ended(**row) for row in db.execute(_EXPIRED, values)]
            if not page:
                return
            yield page
            after = page[-1].id

    def _sweep(self, db: Connection[DictRow]) -> None:
        """Delete what a call still brought that was under way as its job was cancelled and erased."""
        self._artifacts.delete([row["id"] for row in db.execute(_CANCELLED)])

    def _drop(self, db: Connection[DictRow]) -> None:
        """Drop the days that are too old, oldest first, each with its artifacts; one that must wait holds up
        the later ones of its table."""
        waiting: set[str] = set()
        for row in db.execute(_EXPIRED_PARTITIONS).fetchall():
            if row["table_name"] in waiting:
                continue
            if row["table_name"] == "job_history" and not self._delete_artifacts(db, row):
                return
            if self._dropped(db, row["partition"]):
                logger.info("%s was dropped: it is older than its table's policy.", row["partition"])
            else:
                waiting.add(row["table_name"])
                logger.info("%s is due and could not be dropped yet.", row["partition"])
            if self._rounds.pause(_BREATH_SECONDS):
                return

    def _delete_artifacts(self, db: Connection[DictRow], day: DictRow) -> bool:
        """Delete the artifacts of a day's jobs; False where the process ends before all are."""
        after = _FIRST_ID
        while not self._rounds.is_over:
            values = {"since": day["since"], "until": day["until"], "after": after, "most": erasure.AT_ONCE}
            ids = [row["id"] for row in db.execute(_WITH_ARTIFACTS, values)]
            if not ids:
                return True
            self._artifacts.delete(ids)
            after = ids[-1]
        return False

    def _dropped(self, db: Connection[DictRow], partition: str) -> bool:
        row = db.execute("SELECT drop_partition(%s::regclass) AS dropped", [partition]).fetchone()
        return row is not None and bool(row["dropped"])


@contextmanager
def _alone(db: Connection[DictRow]) -> Iterator[bool]:
    """Whether no other session is at it; none will be until the end. A session that dies lets go."""
    row: dict[str, Any] | None = db.execute(_TAKE).fetchone()
    taken = row is not None and bool(row["taken"])
    try:
        yield taken
    finally:
        if taken and not db.closed:
            db.execute(_LET_GO)


def _missing(table: str, days: str) -> Alert:
    message = (
        f"{table} has no partition for {days}: no job can end then. The server's log says what is in the "
        "way; mend it and run orrery migrate."
    )
    return Alert("partition_missing", "retention", table, message)


_TAKE = "SELECT pg_try_advisory_lock(hashtext('orrery keeper')) AS taken"
_LET_GO = "SELECT pg_advisory_unlock(hashtext('orrery keeper'))"

_ENSURE = "SELECT ensure_partitions((now() AT TIME ZONE 'UTC')::date - 1, 15)"

_MISSING = """
SELECT parent AS table_name, string_agg(day::text, ', ' ORDER BY day) AS days
FROM unnest(ARRAY['job_history', 'ai_usage_analytics']) AS parent, LATERAL (
    SELECT (now() AT TIME ZONE 'UTC')::date + ahead AS day FROM generate_series(0, 2) AS ahead
) AS coming
WHERE NOT EXISTS (
    SELECT FROM pg_inherits WHERE inhparent = to_regclass(parent)
      AND inhrelid = to_regclass(parent || '_' || to_char(day, 'YYYYMMDD')))
GROUP BY parent ORDER BY parent"""

_TERMS = """
SELECT name AS feature, now() - %(wait)s::interval AS until, NOT store_input AS inputs, NOT store_output AS
    outputs
FROM features WHERE NOT store_input OR NOT store_output
UNION ALL
SELECT name, now() - keep_days * interval '24 hours', true, true FROM features WHERE keep_days IS NOT NULL
ORDER BY feature, until"""

# Inputs go as the record is made; but callbacks repeat metadata, and jobs of before the choice have theirs.
_EXPIRED = """
SELECT id, finished_at FROM job_history
WHERE feature = %(feature)s AND id > %(after)s AND finished_at >= %(since)s AND finished_at < %(until)s
  AND (%(outputs)s AND output_erased_at IS NULL
    OR %(inputs)s AND (input_erased_at IS NULL OR callback_url IS NOT NULL))
ORDER BY id LIMIT %(most)s"""

_CANCELLED = """
SELECT id FROM job_history
WHERE state <> 'succeeded' AND state = 'cancelled' AND output_erased_at IS NOT NULL
  AND started_at IS NOT NULL AND finished_at >= now() - interval '2 hours'"""

_EXPIRED_PARTITIONS = "SELECT table_name, partition::text, since, until FROM expired_partitions()"

# A run that lost its job may have left an artifact behind that no record names.
_WITH_ARTIFACTS = """
SELECT id FROM job_history
WHERE id > %(after)s AND finished_at >= %(since)s AND finished_at < %(until)s
  AND (artifact_key IS NOT NULL OR run > 1)
ORDER BY id LIMIT %(most)s"""
