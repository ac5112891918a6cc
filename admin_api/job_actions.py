"""What can be done with jobs that exist: cancel them, and run finished ones again."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

from fastapi import APIRouter, Response, status
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from admin_api.answers import IdempotencyKey, keeps_itself
from admin_api.job_bodies import FilterBody, Job, JobFilter, shown
from admin_api.jobs import allow_enqueueing, entered, found
from admin_api.refusals import Conflict, Forbidden
from admin_api.security import Actor, Current, GuardedRoute, Principal
from admin_api.services import Services, Using
from store.audit import Event, record
from workers import bulk, matching, records
from workers.bulk import Ids
from workers.client import repeated

router = APIRouter(prefix="/jobs", tags=["jobs"], route_class=GuardedRoute)

_IDS_AT_ONCE = 1000


class Cancelled(BaseModel):
    """How many jobs were cancelled."""

    cancelled: int


class RefusedRetry(BaseModel):
    """A finished job that the configuration would not take now, and why."""

    id: UUID
    message: str


class Retried(BaseModel):
    """The new jobs, and the first 100 of those that were left out."""

    retried: int
    ids: list[UUID]
    refused: list[RefusedRetry]


@router.post("/cancel")
@allow_enqueueing
def cancel_jobs(body: FilterBody, caller: Current, using: Using) -> Cancelled:
    """Cancel all queued and running jobs that the filter lets through: of an application or an admin its own,
    of a super admin all.

    Works in batches of 1,000: after an error, some may be cancelled already, and the call can be repeated.
    """
    _audit(using, "cancel", body.filter)
    return Cancelled(cancelled=matching.cancel_all(using.client, using.pool, filters_of(body.filter, caller)))


@router.post("/retry", status_code=status.HTTP_202_ACCEPTED, response_model=Retried)
@allow_enqueueing
def retry_jobs(body: FilterBody, caller: Current, using: Using) -> Response:
    """Run finished jobs again, as new jobs with `retry_of`; without `state`, those that did not succeed.

    An application or an admin repeats its own, a super admin all. Each is checked like a new job of the
    caller's. Those that do not pass are left out and listed; the others
    are stored together.
    """
    done = repeated_all(body.filter, caller, using)
    refused = [RefusedRetry(id=id_, message=message).model_dump_json() for id_, message in done.refused]
    before = f'{{"retried": {len(done.ids)}, "refused": [{", ".join(refused)}], "ids": ['
    return ids_response(before, done.ids, "]}")


@router.post("/{job_id}/cancel")
@allow_enqueueing
def cancel_job(job_id: UUID, caller: Current, using: Using) -> Job:
    """Cancel a queued or running job. A call that is under way is not interrupted; its result is dropped.

    An admin cancels jobs that were enqueued in the own name, a super admin any.
    """
    job = _own(using, job_id, caller)
    cancelled = not job.is_finished and using.client.cancel(job_id)
    job = found(using, job_id, caller.token_id)
    if not cancelled:
        raise Conflict(
            f"Job {job_id} has {job.state} already: what has ended cannot be cancelled.", field="state"
        )
    return shown(job)


@router.post("/{job_id}/retry", status_code=status.HTTP_202_ACCEPTED)
@allow_enqueueing
@keeps_itself
def retry_job(
    job_id: UUID, response: Response, caller: Current, using: Using, key: IdempotencyKey = None
) -> Job:
    """Run a finished job again: answers a new job with `retry_of`; the old record stays.

    It is checked like any new job of the caller's and starts now; a deadline counts anew. An admin repeats
    jobs that were enqueued in the own name, a super admin any. A job whose input was erased answers 422.
    """
    job = _own(using, job_id, caller)
    if not job.is_finished:
        raise Conflict(f"Job {job_id} is {job.state}: only a finished job can be retried.", field="state")
    accepted = using.client.retry(job, caller.sender, idempotency_key=key)
    return entered(accepted, repeated(job), response)


def repeated_all(chosen: JobFilter, caller: Principal, using: Services) -> bulk.Retried:
    """Run the finished jobs again that the filter lets through, and that the caller may repeat."""
    filters = filters_of(chosen, caller)
    _audit(using, "retry", chosen)
    return matching.retry_all(using.client, using.pool, filters, caller.sender, once=using.once)


def ids_response(before: str, ids: Ids, after: str) -> Response:
    """A 202 with a JSON document around ids, made while it is sent: a million of them need no memory."""

    def document() -> Iterator[str]:
        yield before
        waiting: list[str] = []
        separator = ""
        for id_ in ids:
            waiting.append(f'"{id_}"')
            if len(waiting) == _IDS_AT_ONCE:
                yield separator + ", ".join(waiting)
                waiting.clear()
                separator = ", "
        if waiting:
            yield separator + ", ".join(waiting)
        yield after

    return StreamingResponse(document(), status.HTTP_202_ACCEPTED, media_type="application/json")


def _audit(using: Services, action: str, chosen: JobFilter) -> None:
    """Note what is about to be done, in a transaction of its own, for the act may have thousands of them."""
    asked = chosen.model_dump(mode="json", exclude_none=True)
    with using.pool.connection() as db:
        record(db, Event(action, "jobs", after={"filter": asked}))


def may_act_on(job: records.Job, caller: Principal) -> bool:
    """Whether the caller may end or repeat a job that they see: an admin those enqueued in the own name."""
    return caller.actor is not Actor.ADMIN or job.caller_admin_id == caller.admin_id


def _own(using: Services, job_id: UUID, caller: Principal) -> records.Job:
    """The job. Raises NotFound; Forbidden where neither the admin who calls enqueued it nor an application of
    theirs."""
    job = found(using, job_id, caller.token_id)
    if not may_act_on(job, caller):
        raise Forbidden(
            f"Job {job_id} was not enqueued in your name. An admin cancels and repeats the own jobs; "
            "ask a super admin."
        )
    return job


def filters_of(chosen: JobFilter, caller: Principal) -> records.JobFilter:
    """The jobs that the filter lets through and the caller may act on."""
    admin_id = caller.admin_id if caller.actor is Actor.ADMIN else None
    return records.JobFilter(**chosen.__dict__, token_id=caller.token_id, caller_admin_id=admin_id)
