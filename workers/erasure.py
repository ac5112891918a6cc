"""Erasing what finished jobs were given and what they made; that they ran, and what they cost, stays.

Artifacts go first: who dies in between finds the record again, and with it what is left to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from store.database import Connections
from workers import lists
from workers.artifacts import Artifacts
from workers.records import Job, JobFilter

AT_ONCE = 200
"""Jobs of one transaction, which holds their rows for some 20 ms."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A job, and when it ended, which tells where its record is."""

    id: UUID
    finished_at: datetime


@dataclass(frozen=True, slots=True)
class Erased:
    """How many jobs lost something, and how many artifacts there were of them."""

    jobs: int = 0
    artifacts: int = 0

    def __add__(self, other: Erased) -> Erased:
        return Erased(self.jobs + other.jobs, self.artifacts + other.artifacts)


def erase(
    pool: Connections, artifacts: Artifacts, ended: Sequence[Ended], *, inputs: bool, outputs: bool
) -> Erased:
    """Erase what these jobs were given (`inputs`), or made (`outputs`), or both, in one transaction.

    Raises ArtifactError; nothing but artifacts is erased then.
    """
    ids = [job.id for job in ended]
    deleted = artifacts.delete(ids) if outputs else 0
    times = [job.finished_at for job in ended]
    values = {"ids": ids, "since": min(times), "until": max(times), "inputs": inputs, "outputs": outputs}
    with pool.connection() as db:
        row = db.execute(_ERASE, values).fetchone()
    assert row is not None, "a function always has its row"  # noqa: S101
    return Erased(row["jobs"], deleted)


def erase_user(pool: Connections, artifacts: Artifacts, user_id: str) -> Erased:
    """Erase everything of the finished jobs of an end user, page by page. Raises ArtifactError.

    What has been erased by then is; the call can be repeated.
    """
    erased, before = Erased(), None
    while True:
        with pool.connection() as db:
            found = lists.page(db, JobFilter(user_id=user_id), limit=AT_ONCE, before=before)
        if not found:
            return erased
        ended = [Ended(job.id, job.finished_at) for job in found if job.finished_at and not _is_empty(job)]
        if ended:
            erased += erase(pool, artifacts, ended, inputs=True, outputs=True)
        before = found[-1].id


def _is_empty(job: Job) -> bool:
    return job.input_erased_at is not None and job.output_erased_at is not None


_ERASE = """
SELECT erase_jobs(%(ids)s, %(since)s, %(until)s, %(inputs)s, %(outputs)s) AS jobs"""
