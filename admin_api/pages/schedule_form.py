"""The form of a schedule: when, what, and what follows. Buttons inside of it draw it anew, unsaved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from admin_api import fields
from admin_api.errors import FieldProblem, field_errors
from admin_api.etags import tagged
from admin_api.features import Feature, FeatureQuery, list_features
from admin_api.job_bodies import Step
from admin_api.pages import schedule_inputs, schedule_steps
from admin_api.pages.again import again_of
from admin_api.pages.controls import Choice, Kind, Tweak
from admin_api.pages.forms import Form, Group, View
from admin_api.pages.render import page
from admin_api.pages.route import PageRoute, Sent, SentForm, changes, done
from admin_api.pages.schedule_inputs import Inputs
from admin_api.pages.schedule_steps import StepFields
from admin_api.refusals import FieldError, FieldsRefused, Invalid
from admin_api.schedules import (
    Preview,
    PreviewBody,
    ScheduleBody,
    change_schedule,
    create_schedule,
    found,
    preview_schedule,
)
from admin_api.security import Current, allow_writing
from admin_api.services import Using
from admin_api.sessions import Reading, writing
from store.tables import Feature as FeatureRow

router = APIRouter(route_class=PageRoute)

PATH = "/schedules"

_MOST_FEATURES = 200
_SHOWN = 5  # instants of the preview

ZONES: Sequence[str] = (
    *("UTC", "Africa/Cairo", "Africa/Johannesburg", "Africa/Lagos", "Africa/Nairobi"),
    *("America/Bogota", "America/Chicago", "America/Denver", "America/Los_Angeles", "America/Mexico_City"),
    *("America/New_York", "America/Sao_Paulo", "America/Toronto", "Asia/Bangkok", "Asia/Dubai"),
    *("Asia/Hong_Kong", "Asia/Jakarta", "Asia/Jerusalem", "Asia/Karachi", "Asia/Kolkata", "Asia/Manila"),
    *("Asia/Riyadh", "Asia/Seoul", "Asia/Shanghai", "Asia/Singapore", "Asia/Tehran", "Asia/Tokyo"),
    *("Australia/Sydney", "Europe/Amsterdam", "Europe/Athens", "Europe/Berlin", "Europe/Istanbul"),
    *("Europe/Kyiv", "Europe/Lisbon", "Europe/London", "Europe/Madrid", "Europe/Paris", "Europe/Rome"),
    *("Europe/Vienna", "Europe/Warsaw", "Europe/Zurich", "Pacific/Auckland"),
)
"""What the form proposes; every other one may be typed."""

SCHEDULE = Form(
    ScheduleBody,
    Group("What", "name", "feature_name"),
    Group("When", "cron", "timezone"),
    Group("How", "catch_up", "deadline_minutes", "use_batch_api", "is_active"),
    Group("Callback, plan and priority", "callback_url", "plan", "priority", is_advanced=True),
    name=Tweak(placeholder="Morning horoscopes"),
    feature_name=Tweak(label="Feature", kind=Kind.CHOICE, attributes={"data-soon": "draw"}),
    cron=Tweak(
        label="Cron",
        placeholder="0 6 * * *",
        help="Minute, hour, day, month, day of the week; or @hourly, @daily, @weekly, @monthly, @yearly.",
        attributes={"data-soon": "preview"},
    ),
    timezone=Tweak(
        label="Time zone",
        help="Its clocks count, changes between summer and winter included.",
        attributes={"list": "zones", "data-soon": "preview"},
    ),
    catch_up=Tweak(
        label="After an outage",
        help="latest: the last instant that was missed fires. all: each of them. none: only what is not "
        "more than a minute late.",
    ),
    deadline_minutes=Tweak(
        label="Deadline, minutes",
        help="Jobs that have not ended by then fail, those of steps too. Empty: none.",
    ),
    use_batch_api=Tweak(label="Use the provider's batch API", help="For half the price, where it has one."),
    is_active=Tweak(help="An inactive one fires only by hand."),
    callback_url=Tweak(label="Callback URL", placeholder="https://", help="Told once all jobs have ended."),
    plan=Tweak(help="Routes may ask for it."),
)


@dataclass(frozen=True, slots=True)
class Draft:
    """The form. `feature` None: none is chosen yet. `instants` None: there is nothing to preview."""

    view: View
    feature: Feature | None
    inputs: Inputs | None
    steps: Sequence[StepFields]
    steps_error: str
    instants: Preview | None
    cron_error: str
    timezone: str
    jobs: int


@tagged
def settings_of(schedule_id: UUID, session: Reading) -> ScheduleBody:
    """What of a schedule people set: its ETag does not change when it fires. Raises NotFound."""
    row = found(session, schedule_id)
    return fields.shown(ScheduleBody, row, then=[Step.model_validate(step) for step in row.then])


@router.get(f"{PATH}/new")
@allow_writing
def new_schedule(
    request: Request, session: Reading, feature: Annotated[str, Query(max_length=200)] = ""
) -> Response:
    return _shown(request, session, None, feature=feature)


@router.post(f"{PATH}/new")
@allow_writing
def add_schedule(sent: Sent, request: Request, session: Reading, caller: Current, using: Using) -> Response:
    """Save what was typed; with `do`, a button inside of the form, only draw it anew."""
    if "do" in sent:
        return _shown(request, session, None, typed=sent)
    body = _body(_read(sent, session))
    with writing(using, request) as written:
        made = create_schedule(body, written, caller, using)
    return done(f"{PATH}/{made.id}", f"{made.name} is there." + _told(made.is_active))


@router.get(PATH + "/{schedule_id}/edit")
@allow_writing
def edit_schedule(schedule_id: UUID, request: Request, session: Reading) -> Response:
    return _shown(request, session, schedule_id)


@router.post(PATH + "/{schedule_id}/edit")
@allow_writing
@changes(settings_of)
def save_schedule(
    schedule_id: UUID, sent: Sent, request: Request, session: Reading, caller: Current, using: Using
) -> Response:
    """Save what was typed; with `do`, a button inside of the form, only draw it anew."""
    if "do" in sent:
        return _shown(request, session, schedule_id, typed=sent)
    document = _read(sent, session)
    with writing(using, request) as written:
        saved = change_schedule(schedule_id, document, written, caller, using)
    return done(f"{PATH}/{saved.id}", "Schedule saved." + _told(saved.is_active))


def _told(is_active: bool) -> str:
    return "" if is_active else " It is paused: it fires only by hand."


def _shown(
    request: Request,
    session: Session,
    schedule_id: UUID | None,
    *,
    feature: str = "",
    typed: SentForm | None = None,
) -> Response:
    stored = None if schedule_id is None else settings_of(schedule_id, session)
    return page(
        request,
        "schedule_form.html",
        draft=_draft(request, session, stored, feature, typed),
        title="New schedule" if stored is None else stored.name,
        crumbs=[("Schedules", PATH)],
        back=PATH if schedule_id is None else f"{PATH}/{schedule_id}",
        zones=ZONES,
    )


def _draft(
    request: Request, session: Session, stored: ScheduleBody | None, wanted: str, typed: SentForm | None
) -> Draft:
    again = again_of(request)
    errors = () if again is None else again.problem.errors
    sent = typed if again is None else again.sent
    known = list_features(FeatureQuery(limit=_MOST_FEATURES), session).items
    name = wanted if stored is None else stored.feature_name
    chosen = sent.get("feature_name") if sent is not None else name
    feature = next((each for each in known if each.name == chosen), None)
    choices: list[Choice] = [(each.name, each.name) for each in known]
    view = SCHEDULE.view(
        request,
        stored,
        typed=typed,
        given={"feature_name": wanted, "timezone": "UTC"},
        choices={"feature_name": choices},
        beside=(schedule_inputs.FIELD, schedule_steps.FIELD),
    )
    cron, timezone = ("", "UTC") if stored is None else (stored.cron, stored.timezone)
    if sent is not None:
        cron, timezone = sent.get("cron"), sent.get("timezone")
    instants, cron_error = _previewed(cron, timezone)
    if again is not None:
        cron_error = ""  # it stands at its field
    if sent is not None:
        steps = schedule_steps.typed_steps(sent)
    else:
        steps = schedule_steps.stored_steps([] if stored is None else stored.then)
    inputs = None if feature is None else _inputs(feature, stored, sent, errors)
    return Draft(
        view=view,
        feature=feature,
        inputs=inputs,
        steps=schedule_steps.filled(steps, choices, errors),
        steps_error=schedule_steps.general_error(errors),
        instants=instants,
        cron_error=cron_error,
        timezone=timezone.strip() or "UTC",
        jobs=0 if feature is None else _jobs(feature, stored, sent),
    )


def _inputs(
    feature: Feature, stored: ScheduleBody | None, sent: SentForm | None, errors: Sequence[FieldProblem]
) -> Inputs:
    return schedule_inputs.filled(feature.input_schema, _matrix(feature, stored), sent, errors)


def _matrix(feature: Feature, stored: ScheduleBody | None) -> Mapping[str, Any]:
    """What the fields begin with: what is stored, as far as that is of this feature."""
    if stored is not None and stored.feature_name == feature.name:
        return stored.inputs_matrix
    return schedule_inputs.usual(feature.input_schema)


def _jobs(feature: Feature, stored: ScheduleBody | None, sent: SentForm | None) -> int:
    if sent is None:
        return schedule_inputs.jobs(_matrix(feature, stored))
    return schedule_inputs.jobs(schedule_inputs.read(feature.input_schema, sent)[0])


def _previewed(cron: str, timezone: str) -> tuple[Preview | None, str]:
    """The next instants; or what is wrong with the expression."""
    if not cron.strip():
        return None, ""
    try:
        body = PreviewBody(cron=cron.strip(), timezone=timezone.strip() or "UTC")
        preview = preview_schedule(body)
    except ValidationError as error:
        return None, " ".join(each.message for each in field_errors(error))
    except Invalid as refused:
        return None, refused.message
    return Preview(items=preview.items[:_SHOWN], local=preview.local[:_SHOWN]), ""


def _read(sent: SentForm, session: Session) -> dict[str, Any]:
    """What was typed, as a PATCH takes it. Raises FieldsRefused, naming each unreadable field."""
    unread: list[FieldError] = []
    document: dict[str, Any] = {}
    try:
        document = SCHEDULE.changes(sent)
    except FieldsRefused as refused:
        unread += refused.errors
    matrix, wrong = schedule_inputs.read(_schema(sent.get("feature_name"), session), sent)
    steps, wrong_steps = schedule_steps.read(sent)
    unread += [*wrong, *wrong_steps]
    if unread:
        raise FieldsRefused(unread)
    return {**document, schedule_inputs.FIELD: matrix, schedule_steps.FIELD: steps}


def _schema(feature: str, session: Session) -> Mapping[str, Any]:
    return session.scalar(select(FeatureRow.input_schema).where(FeatureRow.name == feature)) or {}


def _body(document: Mapping[str, Any]) -> ScheduleBody:
    """Raises FieldsRefused, naming each field that is not right."""
    try:
        return ScheduleBody.model_validate(
            {name: value for name, value in document.items() if value is not None}
        )
    except ValidationError as error:
        raise FieldsRefused(field_errors(error)) from None
