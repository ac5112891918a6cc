"""What is done to all jobs that a filter lets through, however many: cancel them, or run them again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from uuid import UUID

from routing.errors import RoutingError
from store.database import Connections
from workers import lists
from workers.bulk import Retried
from workers.client import Client, repeated
from workers.jobs import IdempotencyKey
from workers.records import Job, JobFilter
from workers.requests import Sender

_BATCH = 1000  # jobs cancelled in one transaction
_PAGE = 100  # finished jobs read at once; an input may have megabytes
_MOST_REFUSED = 100


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

    What the configuration would not take now is left out and told. The others are stored together, and with
    them the idempotency key, if there is one. Raises: what `Bulk.commit` raises.
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


def _ended(pool: Connections, filters: JobFilter) -> Iterator[Job]:
    for state in ("failed", "cancelled") if filters.state is None else (filters.state,):
        before = None
        while found := _page(pool, replace(filters, state=state), before):
            yield from (job for job in found if job.is_finished)
            before = found[-1].id


def _page(pool: Connections, filters: JobFilter, before: UUID | None) -> list[Job]:
    with pool.connection() as db:
        return lists.page(db, filters, limit=_PAGE, before=before, with_input=True)
