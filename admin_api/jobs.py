"""Jobs: enqueue them, watch them, fetch what they made."""

from __future__ import annotations

import asyncio
import re
import time
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response, status
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from admin_api import fields
from admin_api.pagination import Page, PageQuery, cut, decoded
from admin_api.refusals import NotFound
from admin_api.security import Actor, Current, GuardedRoute, Scope, allow
from admin_api.services import Services, Using
from workers import records

router = APIRouter(prefix="/jobs", tags=["jobs"], route_class=GuardedRoute)

LARGEST_JOB = 40 * 1024 * 1024  # bytes: pictures and audio travel inside of the input, as base64

_allow_enqueueing = allow(Actor.SUPER_ADMIN, Actor.ADMIN, Actor.APPLICATION, scope=Scope.ENQUEUE)
_allow_watching = allow(Actor.SUPER_ADMIN, Actor.ADMIN, Actor.APPLICATION, scope=Scope.READ)

# The type is the provider's word: nothing a browser would run may come from this origin.
_PLAYABLE = re.compile(r"(audio|video)/[\w.+-]+|image/(png|jpeg|webp|gif)")
_POLL_SECONDS = (0.05, 0.5)  # first and longest pause
# Years that every part of the way can hold, whatever the time zone.
_RunAt = Annotated[
    AwareDatetime, Field(ge=datetime(2000, 1, 1, tzinfo=UTC), lt=datetime(3000, 1, 1, tzinfo=UTC))
]
_Tag = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class JobBody(BaseModel):
    """A job as clients send it."""

    model_config = ConfigDict(extra="forbid")

    feature: Annotated[str, StringConstraints(max_length=200)]
    input: Annotated[fields.JsonObject, Field(description="As the feature's input_schema wants it.")]
    user_id: Annotated[_Tag | None, Field(description="The end user; never decides about keys.")] = None
    plan: _Tag | None = None
    priority: Annotated[int, Field(ge=-100, le=100, description="Lower runs first inside its lane.")] = 0
    run_at: Annotated[_RunAt | None, Field(description="Not before this time; null: now.")] = None
    deadline_seconds: Annotated[
        Annotated[float, Field(gt=0, le=31_536_000, allow_inf_nan=False)] | None,
        Field(description="The job fails if it has not ended by then."),
    ] = None
    metadata: Annotated[fields.JsonObject, Field(description="Yours; shown with the job.")] = {}


class Tokens(BaseModel):
    """What the job's winning call consumed; null: not known."""

    input: int | None
    output: int | None
    cached: int | None
    reasoning: int | None
    estimated: bool


class JobError(BaseModel):
    """Why a job failed."""

    class_: Annotated[str, Field(alias="class")]
    message: str | None


class Attempt(BaseModel):
    """One try of one route; without a `status` no HTTP answer came."""

    provider: str | None
    model: str | None
    outcome: str
    error_class: str | None
    error_message: str | None
    status: int | None
    latency_ms: int | None
    cost_usd: str | None
    breaker: str | None
    started_at: datetime


class Result(BaseModel):
    """What a job made; what its capability does not make is null."""

    text: str | None = None
    data: dict[str, Any] | None = None
    artifact_url: str | None = None
    media_type: str | None = None
    flagged: bool | None = None
    embedding: list[float] | None = None
    embeddings: list[list[float]] | None = None
    finish_reason: str | None = None


class ListedJob(BaseModel):
    """A job in a list."""

    id: UUID
    feature: str
    state: str
    run_at: datetime
    created_at: datetime
    finished_at: datetime | None
    user_id: str | None
    plan: str | None
    priority: int
    metadata: dict[str, Any]
    retry_of: UUID | None
    parent_id: UUID | None
    group_id: UUID | None
    provider: str | None
    model: str | None
    config_version: int | None
    attempt_count: int
    tokens: Tokens
    cost_usd: str | None
    latency_ms: int | None
    error: JobError | None


class Job(ListedJob):
    """A job with everything known about it."""

    input: dict[str, Any]
    result: Result | None
    attempts: list[Attempt]


class JobQuery(PageQuery):
    feature: str | None = None
    state: Literal["queued", "running", "succeeded", "failed", "cancelled"] | None = None
    user_id: str | None = None
    q: Annotated[str | None, Field(max_length=200, description="In id, user, input or error message.")] = None


class WaitQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    wait: Annotated[float, Field(ge=0, le=60, description="Seconds to wait for the job to end.")] = 0


@router.post("", status_code=status.HTTP_202_ACCEPTED)
@_allow_enqueueing
def enqueue_job(body: JobBody, response: Response, caller: Current, using: Using) -> Job:
    """Put a job into the queue. Once this answered 202 the job is stored, whatever happens to Redis."""
    job_id = using.client.enqueue(
        body.feature,
        body.input,
        caller=caller.acts_for,
        token_id=caller.token_id,
        user_id=body.user_id,
        plan=body.plan,
        priority=body.priority,
        run_at=body.run_at,
        deadline_seconds=body.deadline_seconds,
        metadata=body.metadata,
    )
    response.headers["Location"] = f"/api/v1/jobs/{job_id}"
    return _accepted(job_id, body)


@router.get("")
@_allow_watching
def list_jobs(query: Annotated[JobQuery, Query()], caller: Current, using: Using) -> Page[ListedJob]:
    """Jobs, newest first. An application sees those it enqueued."""
    filters = records.JobFilter(
        feature=query.feature, state=query.state, user_id=query.user_id, q=query.q, token_id=caller.token_id
    )
    before = None if query.cursor is None else decoded(query.cursor, [UUID])[0]
    found = using.client.jobs(filters, limit=query.limit + 1, before=before)
    jobs, cursor = cut(found, query.limit, key=lambda job: [job.id])
    return Page(items=[_listed(job) for job in jobs], next_cursor=cursor)


@router.get("/{job_id}")
@_allow_watching
async def get_job(
    job_id: UUID, query: Annotated[WaitQuery, Query()], request: Request, caller: Current, using: Using
) -> Job:
    """One job with its result and attempts; with `wait`, once it has ended or the seconds are over.

    While it waits it holds neither a thread nor a connection.
    """
    job = await run_in_threadpool(_found, using, job_id, caller.token_id)
    if query.wait and not job.is_finished:
        await _until_ended(using, job_id, request, seconds=query.wait)
        job = await run_in_threadpool(_found, using, job_id, caller.token_id)
    return _shown(job)


@router.get("/{job_id}/artifact", response_class=StreamingResponse)
@_allow_watching
def get_artifact(job_id: UUID, request: Request, caller: Current, using: Using) -> Response:
    """The audio a job made. Answers byte ranges, so that players can seek."""
    job = _found(using, job_id, caller.token_id)
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


def _found(using: Services, job_id: UUID, token_id: UUID | None) -> records.Job:
    job = using.client.job(job_id, token_id=token_id)
    if job is None:
        raise NotFound(f"There is no job {job_id}.")
    return job


async def _until_ended(using: Services, job_id: UUID, request: Request, *, seconds: float) -> None:
    """Ask now and then, until the job has ended, the seconds are over or the caller is gone."""
    deadline = time.monotonic() + seconds
    pause, longest = _POLL_SECONDS
    while (left := deadline - time.monotonic()) > 0:
        await asyncio.sleep(min(pause, left))
        pause = min(pause * 1.5, longest)
        if await request.is_disconnected() or await run_in_threadpool(using.client.is_finished, job_id):
            return


# --- how jobs are shown -------------------------------------------------------------------------------


def _accepted(job_id: UUID, body: JobBody) -> Job:
    """The job as it entered the queue. Not read back: it is stored, and must not turn into an error now."""
    made_at = datetime.fromtimestamp((job_id.int >> 80) / 1000, UTC)  # a UUIDv7 tells when it was made
    return Job(
        **body.model_dump(include={"feature", "input", "user_id", "plan", "priority", "metadata"}),
        id=job_id,
        state="queued",
        run_at=body.run_at or made_at,
        created_at=made_at,
        finished_at=None,
        retry_of=None,
        parent_id=None,
        group_id=None,
        provider=None,
        model=None,
        config_version=None,
        attempt_count=0,
        tokens=Tokens(input=None, output=None, cached=None, reasoning=None, estimated=False),
        cost_usd="0",
        latency_ms=None,
        error=None,
        result=None,
        attempts=[],
    )


def _listed(job: records.Job) -> ListedJob:
    return fields.shown(ListedJob, job, **_derived(job))


def _shown(job: records.Job) -> Job:
    return fields.shown(
        Job,
        job,
        **_derived(job),
        result=_result(job),
        attempts=[_attempt(attempt) for attempt in job.attempts],
    )


def _derived(job: records.Job) -> dict[str, Any]:
    """The members that differ from the record's, and those that later releases fill."""
    return {
        "retry_of": None,
        "parent_id": None,
        "group_id": None,
        "tokens": Tokens(
            input=job.input_tokens,
            output=job.output_tokens,
            cached=job.cached_tokens,
            reasoning=job.reasoning_tokens,
            estimated=job.tokens_estimated,
        ),
        "cost_usd": _money(job.cost_usd),
        "error": None
        if job.error_class is None
        else JobError(**{"class": job.error_class}, message=job.error_message),
    }


def _result(job: records.Job) -> Result | None:
    if job.result is None:
        return None
    url = None if job.artifact_key is None else f"/api/v1/jobs/{job.id}/artifact"
    known = {name: value for name, value in job.result.items() if name in Result.model_fields}
    return Result.model_construct(**known, artifact_url=url)


def _attempt(attempt: records.AttemptRecord) -> Attempt:
    return fields.shown(Attempt, attempt, cost_usd=_money(attempt.cost_usd))


def _money(amount: Decimal | None) -> str | None:
    return None if amount is None else f"{amount:f}"
