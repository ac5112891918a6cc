"""One feature's assignment: its models, its prompt, who would win now, and the versions it went through."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field
from sqlalchemy.orm import Session

from admin_api import fields
from admin_api.assignments import (
    Assignment,
    AssignmentBody,
    AssignmentQuery,
    change_assignment,
    create_assignment,
    delete_assignment,
    list_assignments,
)
from admin_api.explain import Question, explain_assignment
from admin_api.features import Name, get_feature
from admin_api.pages.again import again_of
from admin_api.pages.assignment_draft import drafted, targets_of
from admin_api.pages.assignment_history import compared, saved_by, told
from admin_api.pages.assignments import PATH, assignment_of, undo_address
from admin_api.pages.controls import Tweak
from admin_api.pages.forms import Form, Group
from admin_api.pages.model_names import Models, known_models
from admin_api.pages.prompt_preview import default_user, members_of, previewed
from admin_api.pages.render import page
from admin_api.pages.route import PageRoute, Sent, SentForm, changes, done
from admin_api.pages.variants import DAYS, variants
from admin_api.pagination import PageQuery
from admin_api.security import Current, Principal, allow_reading, allow_writing
from admin_api.services import Using, services
from admin_api.sessions import Reading, Writing, configuration_version, writing
from admin_api.versions import Rollback, list_versions, newest, roll_back

router = APIRouter(route_class=PageRoute)

_VERSIONS = 5  # a page

SETTINGS = Form(
    AssignmentBody,
    Group("When it fails", "max_retries", "retry_delay_seconds", "timeout_seconds", "deadline_seconds"),
    Group("How it chooses", "strategy", "use_any_active_model", "is_active"),
    Group("Parameters", "parameters"),
    max_retries=Tweak(help="Of the job, after all of its models failed."),
    strategy=Tweak(
        help="priority: as listed. weighted: as often as the weights say, one user always alike. cheapest, "
        "fastest, least used: by price, and by the calls of late.",
    ),
    retry_delay_seconds=Tweak(label="Retry delay, seconds", help="Before the first one; it doubles."),
    timeout_seconds=Tweak(label="Timeout of a call, seconds", help="Empty: the provider's."),
    deadline_seconds=Tweak(label="Deadline of a job, seconds", help="Empty: none."),
    use_any_active_model=Tweak(label="Last resort: any active model that can", help=""),
    is_active=Tweak(help="An inactive one refuses new jobs."),
    parameters=Tweak(label="Sent with every call"),
)


class Asked(PageQuery):
    """What the page is asked for beside the assignment: whom to imagine, and which versions to list."""

    limit: Annotated[int, Field(ge=1, le=_VERSIONS)] = _VERSIONS
    plan: Annotated[str, Field(max_length=100)] = ""
    user_id: Annotated[str, Field(max_length=200)] = ""


@router.get(PATH + "/{feature}")
@allow_reading
def show_assignment(
    feature: Name, asked: Annotated[Asked, Query()], request: Request, session: Reading, caller: Current
) -> Response:
    return _shown(feature, asked, request, session, caller)


@router.post(PATH + "/{feature}")
@allow_writing
@changes(assignment_of)
def save_assignment(
    feature: Name, sent: Sent, request: Request, session: Reading, caller: Current, using: Using
) -> Response:
    """Save what was typed; with `do`, a button of the form that moves a model or previews, only show it."""
    if "do" in sent:
        return _shown(feature, Asked(), request, session, caller, typed=sent)
    with writing(using, request) as written:
        return _saved(feature, sent, written, caller)


@router.get(PATH + "/{feature}/compare")
@allow_reading
def compare_versions(
    feature: Name,
    request: Request,
    session: Reading,
    caller: Current,
    version: Annotated[int | None, Query(ge=1, lt=2**31)] = None,
) -> Response:
    """What returning to a version would change; by default to the one in force, which changes nothing."""
    row = assignment_of(feature, session)
    found = compared(row.id, version or newest(session, row.id) or 0, session)
    saved = saved_by([found.version], session, caller)
    return page(
        request,
        "assignment_compare.html",
        feature=feature,
        compared=found,
        saved_by=next(iter(saved.values()), ""),
    )


@router.post(PATH + "/{feature}/rollback")
@allow_writing
def roll_back_assignment(
    feature: Name,
    version: Annotated[int, Query(ge=1, lt=2**31)],
    session: Writing,
    caller: Current,
) -> Response:
    row = assignment_of(feature, session)
    before = newest(session, row.id) or 0
    roll_back(row.id, Rollback(version=version), session, caller)
    said = f"Back to version {version} at configuration version {configuration_version(session)}."
    return done(f"{PATH}/{feature}", said, undo=undo_address(feature, before))


@router.post(PATH + "/{feature}/remove")
@allow_writing
def remove_assignment(feature: Name, session: Writing) -> Response:
    delete_assignment(assignment_of(feature, session).id, session)
    return done(PATH, f"{feature} is unassigned. Its jobs are refused until a model is assigned.")


def _saved(feature: str, sent: SentForm, session: Session, caller: Principal) -> Response:
    stored = _stored(feature, session)
    document = _document(sent, known_models(session))
    path = f"{PATH}/{feature}"
    if stored is None:
        named = AssignmentBody.model_construct(feature_name=feature)
        create_assignment(fields.merged(named, document), session, caller)
        version = configuration_version(session)
        return done(path, f"Assigned at configuration version {version}.", undo=undo_address(feature, 0))
    before = newest(session, stored.id) or 0
    changed = change_assignment(stored.id, document, session, caller)
    if _said(changed) == _said(stored):
        return done(path, "Nothing was changed: all is as it was.")
    version = configuration_version(session)
    return done(path, f"Saved at configuration version {version}.", undo=undo_address(feature, before))


def _document(sent: SentForm, models: Models) -> dict[str, Any]:
    """What was typed, as members of the body. Raises Invalid."""
    prompt = {name: sent.get(name) or None for name in ("system", "user")}
    targets = [(models.named(name, field="targets"), terms) for name, terms in targets_of(sent)]
    return {
        **SETTINGS.changes(sent),
        "targets": [{"model_id": str(model.id), **terms.members()} for model, terms in targets],
        "prompt_template": prompt if any(prompt.values()) else None,
    }


def _said(assignment: Assignment) -> dict[str, Any]:
    return assignment.model_dump(exclude={"updated_at", "updated_by"})


def _stored(feature: str, session: Session) -> Assignment | None:
    return next(iter(list_assignments(AssignmentQuery(feature=feature), session).items), None)


def _shown(
    name: str,
    asked: Asked,
    request: Request,
    session: Session,
    caller: Principal,
    *,
    typed: SentForm | None = None,
) -> Response:
    feature = get_feature(name, session)
    stored = _stored(name, session)
    models = known_models(session)
    again = again_of(request)
    draft = drafted(feature, stored, models, again.sent if again else typed)
    return page(
        request,
        "assignment.html",
        feature=feature,
        stored=stored,
        form=SETTINGS.view(request, stored, action=f"{PATH}/{name}", typed=typed),
        draft=draft,
        fit=[model.name for model in models.fit(feature.capability) if model not in draft.chain],
        errors={error.field: error.message for error in again.problem.errors} if again else {},
        members=members_of(feature),
        default_user=default_user(feature),
        preview=previewed(feature, draft.system, draft.user, draft.sample),
        asked=asked,
        variants=variants(stored, models, services(request)) if stored else [],
        days=DAYS,
        **_history(stored, asked, request, session, caller),
    )


def _history(
    stored: Assignment | None, asked: Asked, request: Request, session: Session, caller: Principal
) -> dict[str, Any]:
    """What is known of an assignment that exists."""
    if stored is None:
        return {"explanation": None, "versions": [], "people": {}, "older": ""}
    question = Question(plan=asked.plan or None, user_id=asked.user_id or None)
    found = list_versions(stored.id, asked, session)
    older = found.next_cursor and f"?cursor={found.next_cursor}#versions"
    return {
        "explanation": explain_assignment(stored.id, question, session, caller, request),
        "versions": [(each, [told(change) for change in each.changes]) for each in found.items],
        "people": saved_by(found.items, session, caller),
        "older": older or "",
    }
