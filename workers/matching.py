"""What is done to all jobs that a filter lets through, however many: cancel them, or run them again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias
from uuid import UUID

from routing.errors import RoutingError
from store.database import Connections
from workers import lists
from workers.bulk import Retried
from workers.client import Client, repeated
from workers.jobs import IdempotencyKey
from workers.records import Job, JobFilter
from workers.requests import Sender

Action: TypeAlias = Literal["cancel", "retry"]

_UNFINISHED = ("queued", "running")
_FAILED = ("failed", "cancelled")
_STATES: Mapping[Action, tuple[Sequence[str], Sequence[str]]] = {
    "cancel": (_UNFINISHED, _UNFINISHED),
    "retry": (("succeeded", *_FAILED), _FAILED),
}
"""Which states a job may be in for it, and which are meant where the filter names none."""

_COUNT_SECONDS = 0.1  # of texts, a state
_BATCH = 1000  # jobs cancelled in one transaction
_PAGE = 100  # finished jobs read at once; an input may have megabytes
_MOST_REFUSED = 100


@dataclass(frozen=True, slots=True)
class Count:
    """How many jobs match; where it is not exact, at least so many."""

    jobs: int
    is_exact: bool


def cancel_all(client: Client, pool: Connections, filters: JobFilter) -> int:
    """End all jobs that match as cancelled, 1,000 at a time; returns how many there were."""
    cancelled, before = 0, None
    while True:
        with pool.connection() as db:
            ids = lists.unfinished(db, filters, limit=_BATCH, before=before)
        if not ids:
            return cancelled
        cancelled += client.cancel_many(ids)
        before = ids[-1]


def retry_all(
    client: Client,
    pool: Connections,
    filters: JobFilter,
    sender: Sender,
    *,
    once: IdempotencyKey | None = None,
) -> Retried:
    """Retry all finished jobs that match; without a state in the filter, those that did not succeed.

    What the configuration would not take now, or was erased, is left out and told. The others are stored
    together, and with them the idempotency key, if there is one. Raises: what `Bulk.commit` raises.
    """
    refused: list[tuple[UUID, str]] = []
    with client.bulk(sender) as bulk:
        for job in _ended(pool, filters):
            try:
                bulk.add(repeated(job))
            except RoutingError as error:
                if len(refused) < _MOST_REFUSED:
                    refused.append((job.id, error.message))
        return Retried(client.committed(bulk, once), tuple(refused))


def count(pool: Connections, filters: JobFilter, action: Action, *, most: int) -> Count:
    """Count the jobs that the action would be taken on, up to `most`. Texts are read for a moment only."""
    counted, is_exact = 0, True
    for state in _states(filters, action):
        with pool.connection() as db:
            found = lists.search(
                db, replace(filters, state=state), limit=most - counted, before=None, seconds=_COUNT_SECONDS
            )
        counted += len(found.jobs)
        is_exact = is_exact and found.before is None
        if counted >= most:
            return Count(counted, is_exact=False)
    return Count(counted, is_exact)


def _states(filters: JobFilter, action: Action) -> Sequence[str]:
    """The states that the jobs may be in, of those that the filter lets through."""
    possible, usual = _STATES[action]
    if filters.state is None:
        return usual
    return (filters.state,) if filters.state in possible else ()


def _ended(pool: Connections, filters: JobFilter) -> Iterator[Job]:
    for state in _states(filters, "retry"):
        before = None
        while found := _page(pool, replace(filters, state=state), before):
            yield from found
            before = found[-1].id


def _page(pool: Connections, filters: JobFilter, before: UUID | None) -> list[Job]:
    with pool.connection() as db:
        return lists.page(db, filters, limit=_PAGE, before=before, with_input=True)
