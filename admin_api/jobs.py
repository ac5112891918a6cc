"""Jobs: enqueue them, watch them, fetch what they made."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response, status
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from psycopg.errors import QueryCanceled
from pydantic import BaseModel, ConfigDict, Field

from admin_api import job_bodies
from admin_api.answers import REPLAYED, IdempotencyKey, keeps_itself
from admin_api.job_bodies import Job, JobBody, JobQuery, ListedJob, listed, shown
from admin_api.pagination import Page, decoded, encoded
from admin_api.refusals import Invalid, NotFound
from admin_api.security import Actor, Current, GuardedRoute, Principal, Scope, allow
from admin_api.services import Services, Using
from workers import records
from workers.lists import Found
from workers.requests import Accepted, JobRequest

router = APIRouter(prefix="/jobs", tags=["jobs"], route_class=GuardedRoute)

LARGEST_JOB = 40 * 1024 * 1024  # bytes: pictures and audio travel inside of the input, as base64

allow_enqueueing = allow(Actor.SUPER_ADMIN, Actor.ADMIN, Actor.APPLICATION, mfa=True, scope=Scope.ENQUEUE)
allow_watching = allow(Actor.SUPER_ADMIN, Actor.ADMIN, Actor.APPLICATION, scope=Scope.READ)

# The type is the provider's word: nothing a browser would run may come from this origin.
_PLAYABLE = re.compile(r"(audio|video)/[\w.+-]+|image/(png|jpeg|webp|gif)")
_READ_SECONDS = 0.05  # of texts, for one page
_SEARCH_SECONDS = 5.0
_POLL_SECONDS = (0.05, 0.5)  # first and longest pause


class WaitQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    wait: Annotated[float, Field(ge=0, le=60, description="Seconds to wait for the job to end.")] = 0


@router.post("", status_code=status.HTTP_202_ACCEPTED)
@allow_enqueueing
@keeps_itself
def enqueue_job(
    body: JobBody, response: Response, caller: Current, using: Using, key: IdempotencyKey = None
) -> Job:
    """Put a job into the queue. Once this answered 202 the job is stored, whatever happens to Redis.

    The same Idempotency-Key with the same body answers the same job, with `Idempotent-Replayed: true`.
    """
    request = body.request()
    accepted = using.client.put(request, caller.sender, idempotency_key=key)
    return entered(accepted, request, response)


@router.get("")
@allow_watching
def list_jobs(query: Annotated[JobQuery, Query()], caller: Current, using: Using) -> Page[ListedJob]:
    """Jobs, newest first. An application sees those it enqueued.

    A search in texts (`q`) reads some ten thousand of the jobs that the other filters let through: a page can
    have few items, or none, and a `next_cursor` with which the search goes on. The whole id of
    a job finds that job alone.
    """
    page = searched(query, caller, using)
    cursor = None if page.before is None else encoded([page.before])
    return Page(items=[listed(job) for job in page.jobs], next_cursor=cursor)


@router.get("/{job_id}")
@allow_watching
async def get_job(
    job_id: UUID, query: Annotated[WaitQuery, Query()], request: Request, caller: Current, using: Using
) -> Job:
    """One job with its result and attempts; with `wait`, once it has ended or the seconds are over.

    While it waits it holds neither a thread nor a connection.
    """
    job = await run_in_threadpool(found, using, job_id, caller.token_id)
    if query.wait and not job.is_finished:
        await _until_ended(using, job_id, request, seconds=query.wait)
        job = await run_in_threadpool(found, using, job_id, caller.token_id)
    return shown(job)


@router.get("/{job_id}/artifact", response_class=StreamingResponse)
@allow_watching
def get_artifact(job_id: UUID, request: Request, caller: Current, using: Using) -> Response:
    """The audio a job made. Answers byte ranges, so that players can seek."""
    job = found(using, job_id, caller.token_id)
    size = None if job.artifact_key is None else using.artifacts.size(job.artifact_key)
    if job.artifact_key is None or size is None:
        state = "has none" if job.is_finished else f"is {job.state}: wait for its end"
        raise NotFound(f"There is no artifact of job {job_id}: it {state}.")
    name = job.artifact_key.rpartition("/")[2]
    media_type = str((job.result or {}).get("media_type"))
    if not _PLAYABLE.fullmatch(media_type):
        media_type = "application/octet-stream"
    headers = {
        "ETag": f'"{name}"',  # an artifact never changes: each run has a key of its own
        "Accept-Ranges": "bytes",
        "Content-Disposition": f'inline; filename="{name}"',
        "Cache-Control": "private, immutable, max-age=86400",
        "X-Content-Type-Options": "nosniff",
    }
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=status.HTTP_304_NOT_MODIFIED, headers=headers)
    span = _range(request.headers.get("range"), size)
    if span is None:
        return Response(
            status_code=status.HTTP_416_RANGE_NOT_SATISFIABLE, headers={"Content-Range": f"bytes */{size}"}
        )
    start, end = span
    headers["Content-Length"] = str(end - start)
    partial = (start, end) != (0, size)
    if partial:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    return StreamingResponse(
        using.artifacts.stream(job.artifact_key, start=start, end=end),
        status.HTTP_206_PARTIAL_CONTENT if partial else status.HTTP_200_OK,
        headers,
        media_type=media_type,
    )


def searched(query: JobQuery, caller: Principal, using: Services) -> Found:
    """A page of the jobs that the caller may see. Raises Invalid where the search takes too long."""
    filters = records.JobFilter(
        feature=query.feature,
        state=query.state,
        user_id=query.user_id,
        provider=query.provider,
        error_class=query.error_class,
        group_id=query.group_id,
        q=query.q,
        token_id=caller.token_id,
        since=query.since,
        until=query.until,
    )
    before = None if query.cursor is None else decoded(query.cursor, [UUID])[0]
    try:
        return using.client.search(
            filters, limit=query.limit, before=before, seconds=_READ_SECONDS, timeout=_SEARCH_SECONDS
        )
    except QueryCanceled:
        raise Invalid(
            f"This search takes longer than {_SEARCH_SECONDS:g} s. Narrow it by feature, state or user, "
            "or by time.",
            field="since" if query.q is None else "q",
        ) from None


def _range(header: str | None, size: int) -> tuple[int, int] | None:
    """The bytes [start, end) that one range asks for; all of them where there is none or several (RFC 9110
    lets a server ignore those); None where the range lies outside."""
    asked = re.fullmatch(r"bytes=(\d{0,15})-(\d{0,15})", header or "")
    if asked is None or asked.group() == "bytes=-":
        return 0, size
    first, last = asked.groups()
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1 if last else size)
    return (start, end) if start < end else None


def found(using: Services, job_id: UUID, token_id: UUID | None) -> records.Job:
    """The job's record; with `token_id`, only if that token enqueued it. Raises NotFound."""
    job = using.client.job(job_id, token_id=token_id)
    if job is None:
        raise NotFound(f"There is no job {job_id}.")
    return job


def entered(accepted: Accepted, request: JobRequest, response: Response) -> Job:
    """The answer to a job that entered the queue; a replayed one is answered as it was the first time."""
    response.headers["Location"] = f"/api/v1/jobs/{accepted.job_id}"
    if accepted.replayed:
        response.headers[REPLAYED] = "true"
    return job_bodies.accepted(accepted.job_id, request)


async def _until_ended(using: Services, job_id: UUID, request: Request, *, seconds: float) -> None:
    """Ask now and then, until the job has ended, the seconds are over or the caller is gone."""
    deadline = time.monotonic() + seconds
    pause, longest = _POLL_SECONDS
    while (left := deadline - time.monotonic()) > 0:
        await asyncio.sleep(min(pause, left))
        pause = min(pause * 1.5, longest)
        if await request.is_disconnected() or await run_in_threadpool(using.client.is_finished, job_id):
            return
