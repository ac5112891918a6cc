"""Playground: one job of a feature, by hand, and what becomes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, ValidationError
from sqlalchemy.orm import Session

from admin_api.errors import field_errors
from admin_api.explain import Explanation, explained
from admin_api.features import Feature, FeatureQuery, get_feature, list_features
from admin_api.job_bodies import JobBody
from admin_api.jobs import allow_enqueueing, enqueue_job, found
from admin_api.pages.again import again_of
from admin_api.pages.controls import Control, Filled, Tweak
from admin_api.pages.forms import Form, Group, View
from admin_api.pages.job import sight
from admin_api.pages.job_results import pretty
from admin_api.pages.render import page
from admin_api.pages.route import LIVE, PageRoute, Sent, SentForm, done
from admin_api.pages.schema_forms import SchemaForm
from admin_api.refusals import FieldsRefused
from admin_api.security import Current, Principal
from admin_api.services import Using, services
from admin_api.sessions import Reading
from routing import values
from workers.records import Job

router = APIRouter(route_class=PageRoute)

_MOST_FEATURES = 100
_MOST_PREFILLED = 6000  # bytes of another job's input

SENDER = Form(
    JobBody,
    Group("User, plan and priority", "user_id", "plan", "priority", is_advanced=True),
    user_id=Tweak(label="User id", placeholder="u-1"),
    plan=Tweak(placeholder="free", help="Routes may ask for it."),
)
"""What of a job is no input."""

STREAM = Control.of("stream", JobBody.model_fields["stream"], Tweak(label="Show as it is written", help=""))
"""For features that answer with text."""


class Wanted(BaseModel):
    """What the page is asked to show: a feature, the input of a job that is `like` it, and the `job` that was
    run. An empty field asks for nothing."""

    model_config = ConfigDict(extra="forbid")

    feature: str = ""
    like: UUID | None = None
    job: UUID | None = None


@dataclass(frozen=True, slots=True)
class Draft:
    """The form of a job to be: the fields of its input, and the others; `stream` where there is text to show.
    `problem`: why it was refused, where that stands at no field."""

    feature: Feature
    input: list[Filled]
    sender: View
    stream: Filled | None
    problem: str


@router.get("/playground")
@allow_enqueueing
def playground(
    wanted: Annotated[Wanted, Query()], request: Request, session: Reading, caller: Current, using: Using
) -> Response:
    """A form for a job of the feature; which model would win; and the job that was run, live."""
    features = list_features(FeatureQuery(limit=_MOST_FEATURES), session).items
    if not wanted.feature:
        return page(request, "playground_features.html", features=features)
    feature = get_feature(wanted.feature, session)
    ran = None if wanted.job is None else found(using, wanted.job, caller.token_id)
    model = found(using, wanted.like, caller.token_id) if wanted.like is not None else ran
    given = _given(feature, model)
    explanation = None
    if LIVE not in request.headers and again_of(request) is None:  # the live part does not hold it
        explanation = _explained(given, feature, session, caller, request)
    return page(
        request,
        "playground.html",
        features=features,
        draft=_draft(request, feature, given, None),
        ran=None if ran is None else sight(ran, using),
        explanation=explanation,
    )


@router.post("/playground")
@allow_enqueueing
def run(
    wanted: Annotated[Wanted, Query()],
    sent: Sent,
    request: Request,
    session: Reading,
    caller: Current,
    using: Using,
) -> Response:
    """Enqueue the job; or, where only that is asked for, tell which model would win."""
    feature = get_feature(wanted.feature, session)
    body = _body(feature, sent)
    if sent.get("do") != "check":
        made = enqueue_job(body, Response(), caller, using)
        return done(f"/playground?feature={feature.name}&job={made.id}")
    return page(
        request,
        "playground.html",
        features=list_features(FeatureQuery(limit=_MOST_FEATURES), session).items,
        draft=_draft(request, feature, body, sent),
        ran=None,
        explanation=_explained(body, feature, session, caller, request),
    )


def _given(feature: Feature, model: Job | None) -> JobBody:
    """What the form begins with: another job of the feature, else the example of its schema."""
    example = feature.input_schema.get("example")
    given = JobBody(feature=feature.name, input=example if isinstance(example, dict) else {})
    if model is None or model.feature != feature.name:
        return given
    given = given.model_copy(
        update={"user_id": model.user_id, "plan": model.plan, "priority": model.priority}
    )
    if pretty(model.input, most_bytes=_MOST_PREFILLED).is_cut:
        return given
    return given.model_copy(update={"input": dict(model.input)})


def _draft(request: Request, feature: Feature, given: JobBody, typed: SentForm | None) -> Draft:
    again = again_of(request)
    refused = () if again is None else again.problem.errors
    if again is not None:
        typed = again.sent
    fields = SchemaForm.of(feature.input_schema).filled(given.input, typed, refused)
    sender = SENDER.view(request, given, typed=typed)
    marked = [*fields, *(each for group in sender.groups for each in group.fields)]
    is_marked = any(each.error for each in marked)
    stream = (
        Filled(STREAM, True if typed is None else STREAM.typed(typed))
        if feature.capability == "text"
        else None
    )
    return Draft(feature, fields, sender, stream, "" if again is None or is_marked else again.problem.detail)


def _body(feature: Feature, sent: SentForm) -> JobBody:
    """The job that was typed. Raises FieldsRefused, naming each field that is not right."""
    document, unread = SchemaForm.of(feature.input_schema).read(sent)
    more: Mapping[str, Any] = {}
    try:
        more = SENDER.changes(sent)
    except FieldsRefused as refused:
        unread += refused.errors
    told = {name: value for name, value in more.items() if value is not None}
    try:
        made = JobBody.model_validate(
            {**told, **STREAM.read(sent), "feature": feature.name, "input": document}
        )
    except ValidationError as error:
        named = {each.field for each in unread}
        unread += [each for each in field_errors(error) if each.field not in named]
    if unread:
        raise FieldsRefused(unread)
    return made


def _explained(
    body: JobBody, feature: Feature, session: Session, caller: Principal, request: Request
) -> Explanation:
    asked = values.Request(
        feature.name,
        body.input,
        caller=caller.acts_for,
        user_id=body.user_id,
        plan=body.plan,
        sticky=body.user_id or "",
    )
    return explained(asked, session, services(request))
