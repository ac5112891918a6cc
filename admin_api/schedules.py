"""Schedules: when jobs are made by themselves, and what has fired."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Literal
from uuid import UUID

from fastapi import APIRouter, Query, status
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import delete, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from admin_api import fields
from admin_api.addresses import CallbackUrl
from admin_api.etags import tagged
from admin_api.fields import Stamps
from admin_api.job_bodies import Step
from admin_api.pagination import Page, PageQuery, cut, decoded, page_of
from admin_api.providers import Changes
from admin_api.refusals import Conflict, Invalid, NotFound
from admin_api.security import Current, GuardedRoute, allow_reading, allow_writing
from admin_api.services import Services, Using
from admin_api.sessions import Reading, Writing
from routing.errors import InputRejected
from routing.snapshot import Snapshot
from store.ids import new_id
from store.tables import Fire as FireRow
from store.tables import Schedule as ScheduleRow
from workers import chains, cron
from workers.firing import Planned, checked

router = APIRouter(prefix="/schedules", tags=["schedules"], route_class=GuardedRoute)

_PREVIEWED = 10
_Cron = Annotated[
    str,
    Field(
        min_length=1,
        max_length=200,
        description="Minute, hour, day of month, month, day of week, as cron has them; or @hourly, @daily, "
        "@weekly, @monthly, @yearly.",
    ),
]
_Zone = Annotated[str, Field(max_length=100, description="An IANA time zone, such as Europe/Berlin.")]


class ScheduleBody(fields.Body):
    """A schedule as clients send it: one job for each combination of the matrix's values, each time it fires.

    Texts in the matrix may use `{{ date }}`, `{{ time }}`, `{{ weekday }}`, `{{ year }}`, `{{ month }}`,
    `{{ day }}`, `{{ week }}`, `{{ timezone }}`, `{{ instant }}` and `{{ schedule }}`, in the schedule's zone.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "Morning horoscopes",
                    "cron": "0 6 * * *",
                    "timezone": "Europe/Berlin",
                    "feature_name": "daily_zodiac_text",
                    "inputs_matrix": {
                        "sign": ["aries", "taurus"],
                        "language": ["en", "de"],
                        "date": "{{ date }}",
                    },
                    "then": [{"feature_name": "daily_zodiac_tts", "input_map": {"text": "result.text"}}],
                }
            ]
        },
    )

    name: fields.Label
    cron: _Cron
    timezone: _Zone = "UTC"
    feature_name: Annotated[str, Field(max_length=200)]
    inputs_matrix: Annotated[
        fields.JsonObject,
        Field(description="Of each member of the input its values; one alone is one value."),
    ] = Field(default_factory=dict)
    then: Annotated[list[Step], Field(max_length=chains.MOST_STEPS)] = Field(default_factory=list)
    priority: Annotated[int, Field(ge=-100, le=100, description="Lower runs first inside its lane.")] = 0
    plan: fields.Tag | None = None
    catch_up: Annotated[
        Literal["latest", "all", "none"],
        Field(
            description="What fires of the instants that no scheduler was there for: the latest, all, or "
            "none that is more than a minute late."
        ),
    ] = "latest"
    use_batch_api: Annotated[
        bool, Field(description="Whether the provider's batch API may be used, for half the price.")
    ] = False
    deadline_minutes: Annotated[
        Annotated[int, Field(ge=1, le=525_600)] | None,
        Field(description="Jobs, those of later steps too, fail that have not ended by then."),
    ] = None
    callback_url: CallbackUrl | None = None
    is_active: bool = True


class Fire(BaseModel):
    """An instant that was fired. `kind` is scheduled or manual; `error`: why there are no jobs."""

    instant: datetime
    kind: str
    fired_at: datetime
    group_id: UUID | None
    jobs: int
    error: str | None


class Schedule(Stamps):
    """A schedule as the API shows it. `next_fire_at` is null while it is not active."""

    MOVES: ClassVar[frozenset[str]] = frozenset({"next_fire_at", "last_fire"})

    name: str
    cron: str
    timezone: str
    feature_name: str
    inputs_matrix: dict[str, Any]
    then: list[Step]
    priority: int
    plan: str | None
    catch_up: str
    use_batch_api: bool
    deadline_minutes: int | None
    callback_url: str | None
    is_active: bool
    next_fire_at: datetime | None
    last_fire: Fire | None


class PreviewBody(BaseModel):
    """An expression to try."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"cron": "30 6 * * 1-5", "timezone": "Europe/Berlin"}]},
    )

    cron: _Cron
    timezone: _Zone = "UTC"
    after: Annotated[fields.Time | None, Field(description="Instants after this one; null: after now.")] = (
        None
    )


class Preview(BaseModel):
    """The next instants, in UTC and as clocks in the zone show them."""

    items: list[datetime]
    local: list[str]


class ScheduleQuery(PageQuery):
    feature_name: str | None = None
    is_active: bool | None = None


@router.post("/preview")
@allow_reading
def preview_schedule(body: PreviewBody) -> Preview:
    """When an expression would fire next, the changes of the clocks included."""
    parsed = _parsed(body.cron, body.timezone)
    instants = cron.upcoming(parsed, body.after or datetime.now(UTC), _PREVIEWED)
    return Preview(
        items=instants, local=[instant.astimezone(parsed.zone).isoformat() for instant in instants]
    )


@router.get("")
@allow_reading
def list_schedules(query: Annotated[ScheduleQuery, Query()], session: Reading) -> Page[Schedule]:
    """Schedules, oldest first."""
    wanted = select(ScheduleRow)
    if query.feature_name is not None:
        wanted = wanted.where(ScheduleRow.feature_name == query.feature_name)
    if query.is_active is not None:
        wanted = wanted.where(ScheduleRow.is_active == query.is_active)
    rows, cursor = page_of(session, wanted, query, by=[ScheduleRow.id])
    return Page(items=[_shown(session, row) for row in rows], next_cursor=cursor)


@router.post("", status_code=status.HTTP_201_CREATED)
@allow_writing
def create_schedule(body: ScheduleBody, session: Writing, caller: Current, using: Using) -> Schedule:
    """Add a schedule. Instants from now on fire."""
    row = ScheduleRow(id=new_id(), created_by=caller.admin_id)
    written(row, body, caller.admin_id, using.client.configuration())
    session.add(row)
    return _saved(session, row)


@router.get("/{schedule_id}")
@allow_reading
@tagged
def get_schedule(schedule_id: UUID, session: Reading) -> Schedule:
    """One schedule."""
    return _shown(session, found(session, schedule_id))


@router.put("/{schedule_id}")
@allow_writing
def replace_schedule(
    schedule_id: UUID, body: ScheduleBody, session: Writing, caller: Current, using: Using
) -> Schedule:
    """Replace a schedule; what is absent gets its default. Instants of before never fire any more."""
    row = found(session, schedule_id)
    written(row, body, caller.admin_id, using.client.configuration())
    return _saved(session, row)


@router.patch("/{schedule_id}", openapi_extra=fields.patch_of(ScheduleBody))
@allow_writing
def change_schedule(
    schedule_id: UUID, changes: Changes, session: Writing, caller: Current, using: Using
) -> Schedule:
    """Change some members of a schedule; `{"is_active": false}` pauses it."""
    row = found(session, schedule_id)
    body = fields.merged(fields.stored(ScheduleBody, row), changes)
    written(row, body, caller.admin_id, using.client.configuration())
    return _saved(session, row)


@router.delete("/{schedule_id}", status_code=status.HTTP_204_NO_CONTENT)
@allow_writing
def delete_schedule(schedule_id: UUID, session: Writing) -> None:
    """Remove a schedule and the list of what it fired. Jobs and their groups stay."""
    row = found(session, schedule_id)
    session.execute(delete(ScheduleRow).where(ScheduleRow.id == row.id))


@router.post("/{schedule_id}/run-now", status_code=status.HTTP_202_ACCEPTED)
@allow_writing
def run_schedule(schedule_id: UUID, session: Reading, using: Using) -> Fire:
    """Fire a schedule once now, whether it is active or not. Its own instants are not touched."""
    return fired(session, using, schedule_id)


class FireQuery(PageQuery):
    pass


@router.get("/{schedule_id}/fires")
@allow_reading
def list_fires(schedule_id: UUID, query: Annotated[FireQuery, Query()], session: Reading) -> Page[Fire]:
    """What a schedule has fired, newest first."""
    row = found(session, schedule_id)
    wanted = select(FireRow).where(FireRow.schedule_id == row.id)
    if query.cursor is not None:
        wanted = wanted.where(FireRow.instant < decoded(query.cursor, [datetime])[0])
    rows = session.scalars(wanted.order_by(FireRow.instant.desc()).limit(query.limit + 1)).all()
    kept, cursor = cut(rows, query.limit, key=lambda fire: [fire.instant.isoformat()])
    return Page(items=[fields.shown(Fire, fire) for fire in kept], next_cursor=cursor)


def found(session: Session, schedule_id: UUID) -> ScheduleRow:
    """The schedule's row. Raises NotFound."""
    row = session.get(ScheduleRow, schedule_id)
    if row is None:
        raise NotFound(f"There is no schedule {schedule_id}.", hint="GET /schedules lists them.")
    return row


def fired(session: Session, using: Services, schedule_id: UUID) -> Fire:
    """Fire a schedule now. Raises what its jobs are refused for."""
    row = found(session, schedule_id)
    group_id = using.client.fire(_planned(row))
    made = session.scalars(
        select(FireRow).where(FireRow.schedule_id == row.id, FireRow.group_id == group_id)
    ).one()
    return fields.shown(Fire, made)


def _planned(row: ScheduleRow) -> Planned:
    return Planned(row.id, row.name, row.timezone, row.feature_name, row.inputs_matrix, row.then)


def written(row: ScheduleRow, body: ScheduleBody, admin_id: UUID | None, snapshot: Snapshot) -> None:
    """Take the body over, once it is known that its jobs are such as its feature takes. Raises Invalid."""
    parsed = _parsed(body.cron, body.timezone)
    for name in ScheduleBody.model_fields.keys() - {"then"}:
        setattr(row, name, getattr(body, name))
    row.cron = parsed.expression
    row.then = [step.model_dump() for step in body.then]
    row.updated_by, row.updated_at = admin_id, func.now()
    try:
        checked(snapshot, _planned(row), parsed.next(datetime.now(UTC)) or datetime.now(UTC))
    except InputRejected as error:
        raise Invalid(error.message, field=error.field) from None
    lane = snapshot.features[row.feature_name].lane
    if row.use_batch_api and lane != "batch":
        raise Invalid(
            f"Batches take hours, and {row.feature_name} is in the lane {lane}. Move the feature to the lane "
            "batch, or do without.",
            field="use_batch_api",
        )


def _parsed(expression: str, timezone: str) -> cron.Cron:
    try:
        return cron.parse(expression, timezone)
    except cron.CronInvalid as error:
        raise Invalid(error.message, field=error.field) from None


def _saved(session: Session, row: ScheduleRow) -> Schedule:
    try:
        session.flush()
    except IntegrityError as error:
        if "uq_schedules_name" not in str(error):
            raise
        raise Conflict(f"There is a schedule {row.name!r} already.", field="name") from None
    return _shown(session, row)


def _shown(session: Session, row: ScheduleRow) -> Schedule:
    last = session.scalars(
        select(FireRow).where(FireRow.schedule_id == row.id).order_by(FireRow.instant.desc()).limit(1)
    ).one_or_none()
    return fields.shown(
        Schedule,
        row,
        next_fire_at=_next(row) if row.is_active else None,
        last_fire=None if last is None else fields.shown(Fire, last),
        then=[Step.model_validate(step) for step in row.then],
    )


def _next(row: ScheduleRow) -> datetime | None:
    try:
        return cron.parse(row.cron, row.timezone).next(datetime.now(UTC))
    except cron.CronInvalid:  # its zone is none any more: the scheduler says so
        return None
