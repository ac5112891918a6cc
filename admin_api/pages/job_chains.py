"""What else a job belongs to: the steps that are still to come after its chain, and its group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from admin_api.job_bodies import Step
from store.tables import JobGroup
from workers import chains
from workers.records import Job, Link


@dataclass(frozen=True, slots=True)
class Bonds:
    """`links`: the jobs of the chain so far. `coming`: the steps after them, which never come where
    `is_broken`."""

    links: Sequence[Link]
    coming: Sequence[Step]
    is_broken: bool
    group_name: str | None


def bonds(job: Job, session: Session) -> Bonds:
    """What the job belongs to."""
    steps = [Step.model_validate(step) for step in chains.as_sent(job.follow_ups or ())]
    after = sum(link.id > job.id for link in job.chain)
    coming = steps[after:]
    last = job.chain[-1].state if job.chain else job.state
    group = None if job.group_id is None else session.get(JobGroup, job.group_id)
    return Bonds(
        links=job.chain,
        coming=coming,
        is_broken=bool(coming) and _is_broken(last, coming[0]),
        group_name=None if group is None else group.name,
    )


def _is_broken(state: str, following: Step) -> bool:
    return state == "cancelled" or (state == "failed" and following.on_failure == "stop")
