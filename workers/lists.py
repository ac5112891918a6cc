"""Lists of jobs, newest first: the live table and the history as one.

The history has a partition a day, and an index for what a filter names: a page costs what its jobs cost,
however few of a million are wanted. A search in texts has none, so it is done piece by piece.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from psycopg import Connection
from psycopg.rows import DictRow

from workers.front import PRIORITIES, first
from workers.records import ENDED, EPOCH, LIVE, Job, JobFilter

Database = Connection[DictRow]


@dataclass(frozen=True, slots=True)
class Found:
    """Jobs, newest first. There may be more, made before the job `before`; None: there are not."""

    jobs: Sequence[Job]
    before: UUID | None


def page(
    db: Database, filters: JobFilter, *, limit: int, before: UUID | None, with_input: bool = False
) -> list[Job]:
    """Up to `limit` jobs, newest first, made before the job `before`; without inputs, unless asked for.

    A search in texts reads until it has found that many, however long that takes.
    """
    with db.transaction():
        _plan(db, filters)
        return _jobs(db, filters, _Stretch.of(filters, before), limit, with_input=with_input)


def search(db: Database, filters: JobFilter, *, limit: int, before: UUID | None, seconds: float) -> Found:
    """Up to `limit` jobs, newest first, made before the job `before`; without inputs.

    A search in texts reads for `seconds` or a little longer. It may find fewer jobs than there are, or none,
    and the next page goes on from there. A job's whole id finds that job alone, and at once.
    """
    stretch = _Stretch.of(filters, before)
    with db.transaction():
        _plan(db, filters)
        if filters.q is None:
            return _cut(_jobs(db, filters, stretch, limit + 1), limit)
        named = _named(db, filters, stretch)
        return Found(named, None) if named else _read_texts(db, filters, stretch, limit, seconds)


@dataclass(frozen=True, slots=True)
class Failures:
    """Jobs that failed with one class, and when the last of them did."""

    error_class: str
    jobs: int
    last_at: datetime


def failures(db: Database, *, since: datetime, most: int) -> list[Failures]:
    """Why jobs failed that were made at this time or later, the newest `most` of them; what failed most often
    comes first."""
    values = {"first": _first_id(since), "since": since - timedelta(days=1), "most": most}
    return [Failures(**row) for row in db.execute(_FAILURES_BY_CLASS, values)]


def unfinished(db: Database, filters: JobFilter, *, limit: int, before: UUID | None) -> list[UUID]:
    """Ids of up to `limit` jobs that have not ended, newest first, made before the job `before`."""
    query = f"SELECT id {_live(filters, limit)}"
    rows = db.execute(query.encode(), _values(filters, _Stretch.of(filters, before)))
    return [row["id"] for row in rows]


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Ids from `first` (inclusive) to `before`. `ended_since` spares partitions: what was made since then has
    ended since then. Ids are made by clients, whose clocks may be ahead: a day is taken off."""

    first: UUID
    before: UUID
    ended_since: datetime

    @classmethod
    def of(cls, filters: JobFilter, before: UUID | None) -> _Stretch:
        since = EPOCH if filters.since is None else filters.since
        until = _LAST_ID if filters.until is None else _first_id(filters.until)
        ended_since = max(since - timedelta(days=1), EPOCH)
        return cls(_first_id(since), min(before or _LAST_ID, until), ended_since)


def _first_id(at: datetime) -> UUID:
    """No UUIDv7 made at this time or later is less than this one, and none made earlier is not."""
    return UUID(int=max(0, (at - EPOCH) // timedelta(milliseconds=1)) << 80)


def _jobs(
    db: Database, filters: JobFilter, stretch: _Stretch, limit: int, *, with_input: bool = False
) -> list[Job]:
    live, ended = (LIVE, ENDED) if with_input else (_without_input(LIVE), _without_input(ENDED))
    query = _select(filters, limit, live, ended)
    return [Job(**row) for row in db.execute(query.encode(), _values(filters, stretch))]


def _named(db: Database, filters: JobFilter, stretch: _Stretch) -> list[Job]:
    """The job whose whole id is looked for, if the other filters let it through."""
    try:
        named = UUID(filters.q)
    except ValueError:
        return []
    after = UUID(int=min(named.int + 1, _LAST_ID.int))
    alone = replace(stretch, first=max(named, stretch.first), before=min(after, stretch.before))
    return _jobs(db, replace(filters, q=None), alone, 1)


def _read_texts(db: Database, filters: JobFilter, stretch: _Stretch, limit: int, seconds: float) -> Found:
    deadline = time.monotonic() + seconds
    found: list[Job] = []
    for piece in _pieces(db, filters, stretch):
        found += _jobs(db, filters, piece, limit + 1)
        if len(found) > limit:
            break
        if piece.first > stretch.first and time.monotonic() >= deadline:
            return Found(found, piece.first)
    return _cut(found, limit)


def _pieces(db: Database, filters: JobFilter, stretch: _Stretch) -> Iterator[_Stretch]:
    """The stretch, newest first, in pieces of `_AT_ONCE` jobs that all but the search in texts lets pass."""
    filters = replace(filters, q=None)
    last = f"SELECT id FROM ({_select(filters, _AT_ONCE, 'id', 'id')}) AS piece OFFSET {_AT_ONCE - 1}"
    while (row := db.execute(last.encode(), _values(filters, stretch)).fetchone()) is not None:
        yield replace(stretch, first=row["id"])
        stretch = replace(stretch, before=row["id"])
    yield stretch


def _cut(jobs: Sequence[Job], limit: int) -> Found:
    return Found(jobs[:limit], jobs[limit - 1].id if len(jobs) > limit else None)


# --- the statements -----------------------------------------------------------------------------------

_LAST_ID = UUID(int=2**128 - 1)
_AT_ONCE = 2000  # jobs whose texts are read between two looks at the clock: 5 ms
_EXACT = ("feature", "state", "user_id", "token_id", "caller_admin_id", "group_id", "chain_id")
_OF_ENDED = (*_EXACT, "error_class", "provider")
_COLUMNS = """
id, feature, state, lane, priority, input, metadata, user_id, plan, token_id, caller_admin_id, run_at,
created_at, deadline_at, retries, calls, retry_of, config_version, cost_usd, group_id, parent_id, chain_id,
follow_ups, callback_url"""
_LONGEST_USER = 800  # bytes; what the index on users holds
_QUEUE_STATES = ("queued", "running")
_FAILURES = ("failed", "cancelled")

# It sorts nothing, for an index has the order already.
_PLANNING = """
SELECT set_config('plan_cache_mode', %(plans)s, true), set_config('enable_sort', 'off', true),
    set_config('random_page_cost', '1', true), set_config('jit', 'off', true)"""


_FAILURES_BY_CLASS = """
SELECT coalesce(error_class, 'unknown') AS error_class, count(*) AS jobs, max(finished_at) AS last_at FROM (
    SELECT error_class, finished_at FROM job_history
    WHERE state <> 'succeeded' AND (state, id) >= ('failed', %(first)s)
      AND (state, id) < ('failed', 'ffffffff-ffff-ffff-ffff-ffffffffffff') AND finished_at >= %(since)s
    ORDER BY state DESC, id DESC LIMIT %(most)s
) AS failed GROUP BY 1 ORDER BY jobs DESC, error_class"""


def _plan(db: Database, filters: JobFilter) -> None:
    """Say how this transaction's lists are planned.

    One plan is kept for all values: with a year's partitions planning takes ten times as long as reading a
    page. Where a time is given there are fewer, and the others are left alone.
    """
    plans = "force_generic_plan" if filters.since is None else "force_custom_plan"
    db.execute(_PLANNING, {"plans": plans})


def _values(filters: JobFilter, stretch: _Stretch) -> dict[str, Any]:
    return {
        **{name: getattr(filters, name) for name in _OF_ENDED},
        "like": None if filters.q is None else f"%{_escaped(filters.q)}%",
        "first": stretch.first,
        "before": stretch.before,
        "ended_since": stretch.ended_since,
    }


def _select(filters: JobFilter, limit: int, live: str, ended: str) -> str:
    """The newest jobs that the filter lets through, with these columns. The state tells where to look."""
    sources = []
    if filters.state is None or filters.state in _QUEUE_STATES:
        sources.append(f"(SELECT {live} {_live(filters, limit, _source(filters))})")
    if filters.state not in _QUEUE_STATES:
        sources.append(f"(SELECT {ended} {_ended(filters, limit)})")
    return f"SELECT * FROM ({' UNION ALL '.join(sources)}) AS jobs ORDER BY id DESC LIMIT {limit:d}"


def _source(filters: JobFilter) -> str:
    """Where jobs are that have not ended; an application's own may be few of many, and not at the front."""
    if filters.state == "running" and filters.token_id is None:
        return f"(WITH RECURSIVE {PRIORITIES} {first(_COLUMNS)} WHERE state = 'running') AS jobs"
    return "jobs"


def _live(filters: JobFilter, limit: int, source: str = "jobs") -> str:
    wanted = [*_BETWEEN, *_exactly(filters, _EXACT), *_texts(filters, "NULL::text")]
    if filters.error_class is not None or filters.provider is not None:
        wanted.append("false")
    return f"FROM {source} WHERE {' AND '.join(wanted)} ORDER BY id DESC LIMIT {limit:d}"


def _ended(filters: JobFilter, limit: int) -> str:
    """By the index that tells most. Compared as rows and in this order, no other way leads to them without
    sorting: a value is as quick as another, whatever PostgreSQL thinks how often it occurs."""
    index = _index(filters)
    others = [name for name in _OF_ENDED if index is None or name != index.column]
    wanted = [
        "finished_at >= %(ended_since)s",
        *(_BETWEEN if index is None else index.between),
        *_exactly(filters, others),
        *_texts(filters, "error_message"),
    ]
    order = "id DESC" if index is None else f"{index.column} DESC, id DESC"
    return f"FROM job_history WHERE {' AND '.join(wanted)} ORDER BY {order} LIMIT {limit:d}"


_BETWEEN = ("id >= %(first)s", "id < %(before)s")


@dataclass(frozen=True, slots=True)
class _Index:
    """An index on the history by a column and id, and which rows it `holds`."""

    column: str
    holds: str

    @property
    def between(self) -> Sequence[str]:
        """The stretch of it that has the column's value."""
        place = f"({self.column}, id)"
        value = f"%({self.column})s"
        return (self.holds, f"{place} >= ({value}, %(first)s)", f"{place} < ({value}, %(before)s)")


_USERS = _Index("user_id", f"octet_length(user_id) <= {_LONGEST_USER}")
# These have behind the id what else such lists ask for, and that of providers the feature.
_FAILED = _Index("state", "state <> 'succeeded'")
_CLASSES = _Index("error_class", "error_class IS NOT NULL")
_TOKENS = _Index("token_id", "token_id IS NOT NULL")
_FEATURES = _Index("feature", "true")
_GROUPS = _Index("group_id", "group_id IS NOT NULL")
_CHAINS = _Index("chain_id", "chain_id IS NOT NULL")
_PROVIDERS = _Index("provider", "provider IS NOT NULL")


def _index(filters: JobFilter) -> _Index | None:
    """None: PostgreSQL chooses, by what is rarer on average where an application narrows its own jobs."""
    if filters.chain_id is not None:
        return _CHAINS
    if filters.group_id is not None:
        return _GROUPS
    if filters.user_id is not None and len(filters.user_id.encode()) <= _LONGEST_USER:
        return _USERS
    if filters.error_class is not None:
        return _CLASSES
    if filters.state in _FAILURES:
        return _FAILED
    if filters.token_id is not None:
        return _TOKENS if filters.feature is None and filters.provider is None else None
    if filters.provider is not None:
        return _PROVIDERS
    return None if filters.feature is None else _FEATURES


def _exactly(filters: JobFilter, names: Sequence[str]) -> list[str]:
    return [f"{name} = %({name})s" for name in names if getattr(filters, name) is not None]


def _texts(filters: JobFilter, error: str) -> list[str]:
    if filters.q is None:
        return []
    texts = ("id::text", "user_id", "input::text", error)
    return [f"({' OR '.join(f'{text} ILIKE %(like)s' for text in texts)})"]


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _without_input(columns: str) -> str:
    """Inputs may be megabytes each: a page of 50 took half a gigabyte to show none of them."""
    return columns.replace(" priority, input, metadata,", " priority, '{}'::jsonb AS input, metadata,")
