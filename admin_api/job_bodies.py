"""Jobs as clients send them and as they are shown."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from admin_api import fields
from admin_api.addresses import CallbackUrl
from admin_api.pagination import PageQuery
from workers import chains, records
from workers.requests import JobRequest

# Years that every part of the way can hold, whatever the time zone.
_Time = Annotated[
    AwareDatetime, Field(ge=datetime(2000, 1, 1, tzinfo=UTC), lt=datetime(3000, 1, 1, tzinfo=UTC))
]
_Tag = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class Step(BaseModel):
    """A job that follows another.

    Each member of `input_map` is a path into what the job before left (`result.text`, `input.language`,
    `metadata.x`), text with such paths in it (`Good morning! {{ result.text }}`), or any JSON value. Without
    a map it gets `text`, and the members of the input before that have the same names.
    """

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"feature_name": "daily_zodiac_tts", "input_map": {"text": "result.text"}}]
        },
    )

    feature_name: Annotated[str, StringConstraints(max_length=200)]
    input_map: fields.JsonObject = Field(default_factory=dict)
    on_failure: Annotated[
        Literal["stop", "continue"], Field(description="Whether it runs when the job before it failed.")
    ] = "stop"


class JobBody(BaseModel):
    """A job as clients send it."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"feature": "daily_zodiac_text", "input": {"sign": "aries"}, "user_id": "u-1"}]
        },
    )

    feature: Annotated[str, StringConstraints(max_length=200)]
    input: Annotated[fields.JsonObject, Field(description="As the feature's input_schema wants it.")]
    user_id: Annotated[_Tag | None, Field(description="The end user; never decides about keys.")] = None
    plan: _Tag | None = None
    priority: Annotated[int, Field(ge=-100, le=100, description="Lower runs first inside its lane.")] = 0
    run_at: Annotated[_Time | None, Field(description="Not before this time; null: now.")] = None
    deadline_seconds: Annotated[
        Annotated[float, Field(gt=0, le=31_536_000, allow_inf_nan=False)] | None,
        Field(description="The job fails if it has not ended by then."),
    ] = None
    metadata: fields.JsonObject = Field(default_factory=dict, description="Yours; shown with the job.")
    stream: Annotated[
        bool, Field(description="Its text can be followed as it is written, at /jobs/{id}/events.")
    ] = False
    then: list[Step] = Field(
        default_factory=list,
        max_length=chains.MOST_STEPS,
        description="What follows it, one after the other: each step takes its input from what the one "
        "before left.",
    )
    callback_url: CallbackUrl | None = None

    def request(self) -> JobRequest:
        """What the queue is asked for."""
        members = self.__dict__
        if self.then:
            members = {**members, "then": [step.model_dump() for step in self.then]}
        return JobRequest(**members)


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


class ConsideredRoute(BaseModel):
    provider: str | None
    model: str | None


class PassedOverRoute(ConsideredRoute):
    """A route that the last run did not try, and why."""

    error_class: str
    reason: str


class Routing(BaseModel):
    """Which routes the last run considered: `routes` in the order in which they were to be tried."""

    strategy: str
    routes: list[ConsideredRoute]
    passed_over: list[PassedOverRoute]


class Result(BaseModel):
    """What a job made; what its capability does not make is null."""

    text: str | None = None
    data: Annotated[Any, Field(description="A JSON value: the answer's, or what there is beside it.")] = None
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
    chain_id: Annotated[UUID | None, Field(description="The first job of its chain.")]
    provider: str | None
    model: str | None
    config_version: int | None
    attempt_count: int
    tokens: Tokens
    cost_usd: str | None
    latency_ms: int | None
    error: JobError | None


class Link(BaseModel):
    """A job of a chain."""

    id: UUID
    parent_id: UUID | None
    feature: str
    state: str


class Callback(BaseModel):
    """How a callback went. `state` is pending, sent or failed."""

    event: str
    url: str
    state: str
    tries: int
    sent_at: datetime | None
    error: str | None


class Job(ListedJob):
    """A job with everything known about it."""

    input: dict[str, Any]
    erased_at: Annotated[
        datetime | None,
        Field(description="When its input, or what it made, was erased, the last time; that is empty then."),
    ]
    input_erased_at: Annotated[
        datetime | None, Field(description="When its input was erased. It cannot be retried since.")
    ]
    output_erased_at: datetime | None
    then: Annotated[list[Step], Field(description="The steps that come after it.")]
    chain: Annotated[
        list[Link], Field(description="All jobs of its chain so far, itself among them; the first one first.")
    ]
    callback_url: str | None
    callbacks: list[Callback]
    result: Result | None
    routing: Annotated[
        Routing | None, Field(description="Null until the job has ended, and where there was but one route.")
    ]
    attempts: list[Attempt]


_State = Literal["queued", "running", "succeeded", "failed", "cancelled"]
_Since = Annotated[_Time | None, Field(description="Made at this time or later.")]
_Until = Annotated[_Time | None, Field(description="Made before this time.")]
_Provider = Annotated[
    str | None,
    Field(max_length=200, description="The slug of the provider that served it, or was tried last."),
]
_ErrorClass = Annotated[str | None, Field(max_length=200, description="Why a job failed.")]
_Group = Annotated[UUID | None, Field(description="The jobs of a firing.")]
_Q = Annotated[str | None, Field(max_length=200, description="In id, user, input or error message.")]


class JobQuery(PageQuery):
    feature: str | None = None
    state: _State | None = None
    provider: _Provider = None
    user_id: str | None = None
    error_class: _ErrorClass = None
    group_id: _Group = None
    q: _Q = None
    since: _Since = None
    until: _Until = None


class JobFilter(BaseModel):
    """Which jobs; all members that are given must fit."""

    model_config = ConfigDict(extra="forbid")

    feature: str | None = None
    state: _State | None = None
    provider: _Provider = None
    user_id: str | None = None
    error_class: _ErrorClass = None
    group_id: _Group = None
    q: _Q = None
    since: _Since = None
    until: _Until = None

    @model_validator(mode="after")
    def _narrows(self) -> JobFilter:
        if all(member is None for member in self.__dict__.values()):
            raise ValueError(f"Name at least one of {', '.join(JobFilter.model_fields)}.")
        return self


class FilterBody(BaseModel):
    """Jobs to act on. The filter's members may also stand alone, without `filter` around them."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"filter": {"feature": "daily_zodiac_text", "state": "failed"}}]},
    )

    filter: JobFilter

    @model_validator(mode="before")
    @classmethod
    def _wrapped(cls, sent: Any) -> Any:
        return {"filter": sent} if isinstance(sent, dict) and "filter" not in sent else sent


# --- how jobs are shown -------------------------------------------------------------------------------


def accepted(job_id: UUID, request: JobRequest) -> Job:
    """The job as it entered the queue. Not read back: it is stored, and must not turn into an error now."""
    made_at = datetime.fromtimestamp((job_id.int >> 80) / 1000, UTC)  # a UUIDv7 tells when it was made
    return Job(
        id=job_id,
        feature=request.feature,
        input=dict(request.input),
        user_id=request.user_id,
        plan=request.plan,
        priority=request.priority,
        metadata=dict(request.metadata),
        state="queued",
        run_at=request.run_at or made_at,
        created_at=made_at,
        finished_at=None,
        retry_of=request.retry_of,
        parent_id=None,
        group_id=None,
        chain_id=job_id if request.then else None,
        erased_at=None,
        input_erased_at=None,
        output_erased_at=None,
        then=[Step.model_validate(step) for step in request.then],
        chain=[],
        callback_url=request.callback_url,
        callbacks=[],
        provider=None,
        model=None,
        config_version=None,
        attempt_count=0,
        tokens=Tokens(input=None, output=None, cached=None, reasoning=None, estimated=False),
        cost_usd="0",
        latency_ms=None,
        error=None,
        result=None,
        routing=None,
        attempts=[],
    )


def listed(job: records.Job) -> ListedJob:
    """A job in a list."""
    return fields.shown(ListedJob, job, **_derived(job))


def shown(job: records.Job) -> Job:
    """A job with everything known about it."""
    return fields.shown(
        Job,
        job,
        **_derived(job),
        result=_result(job),
        then=[Step.model_validate(step) for step in chains.as_sent(job.follow_ups or ())],
        chain=[Link.model_validate(link, from_attributes=True) for link in job.chain],
        callbacks=[Callback.model_validate(one, from_attributes=True) for one in job.callbacks],
        routing=None if job.routing is None else Routing(**job.routing),
        attempts=[_attempt(attempt) for attempt in job.attempts],
    )


def tokens(job: records.Job) -> Tokens:
    """What the job's winning call consumed."""
    return Tokens(
        input=job.input_tokens,
        output=job.output_tokens,
        cached=job.cached_tokens,
        reasoning=job.reasoning_tokens,
        estimated=job.tokens_estimated,
    )


def _derived(job: records.Job) -> dict[str, Any]:
    """The members that differ from the record's."""
    return {
        "tokens": tokens(job),
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
