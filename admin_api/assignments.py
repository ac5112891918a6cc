"""Feature assignments: which models serve a feature, in which order, with which prompt and parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal
from uuid import UUID

from fastapi import APIRouter, Query, status
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session, joinedload, selectinload

from admin_api import features, fields
from admin_api.etags import tagged
from admin_api.fields import Seconds, Stamps
from admin_api.pagination import Page, PageQuery, page_of
from admin_api.providers import Changes
from admin_api.refusals import Invalid, NotFound, pointer
from admin_api.security import Current, GuardedRoute, allow_reading, allow_writing
from admin_api.serving import check_targets
from admin_api.sessions import Reading, Writing
from routing import prompts
from routing.errors import ConfigurationError
from store.ids import new_id
from store.tables import AssignmentTarget, FeatureAIAssignment, PromptTemplate
from store.tables import Feature as FeatureRow

router = APIRouter(prefix="/feature-assignments", tags=["feature-assignments"], route_class=GuardedRoute)

_Template = Annotated[
    Annotated[str, StringConstraints(max_length=100_000)] | None,
    Field(description="Jinja over the members of the job's input; `input` is the whole."),
]


class Conditions(BaseModel):
    """When a target is tried at all; null: always."""

    model_config = ConfigDict(extra="forbid")

    plan: Annotated[
        Annotated[str, StringConstraints(min_length=1, max_length=100)] | None,
        Field(description="For jobs of this plan only."),
    ] = None
    budget_burn_percent: Annotated[
        Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] | None,
        Field(description="Once a budget that covers the job has burned this much of its limit."),
    ] = None


class Target(BaseModel):
    """One model of an assignment; its strategy decides which is tried first."""

    model_config = ConfigDict(extra="forbid")

    model_id: Annotated[UUID, Field(description="Id of the row in /models.")]
    position: Annotated[int | None, Field(ge=0, le=99, description="By default its place in the list.")] = (
        None
    )
    weight: Annotated[
        float, Field(ge=0, le=1_000_000, allow_inf_nan=False, description="Its share under `weighted`.")
    ] = 1.0
    conditions: Conditions = Conditions()


class PromptBody(fields.Body):
    """A prompt as clients send it. Null: the capability's default."""

    READ_ONLY: ClassVar[frozenset[str]] = frozenset({"version"})

    system: _Template = None
    user: _Template = None


class AssignmentBody(fields.Body):
    """An assignment as clients send it.

    `model_id` and `backup_model_id` are short for targets 0 and 1; send them or `targets`, or both where they
    agree. Each change of the prompt is kept as its next version.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "feature_name": "daily_zodiac_text",
                    "model_id": "01936f2e-7c00-7000-8000-000000000001",
                    "backup_model_id": "01936f2e-7c00-7000-8000-000000000002",
                    "prompt_template": {
                        "system": "You write horoscopes.",
                        "user": "Today's for {{ sign }}, in {{ language }}.",
                    },
                    "parameters": {"temperature": 0.9},
                    "max_retries": 3,
                }
            ]
        }
    )

    feature_name: features.FeatureName
    model_id: UUID | None = None
    backup_model_id: UUID | None = None
    targets: Annotated[list[Target] | None, Field(max_length=20)] = None
    strategy: Annotated[
        Literal["priority", "weighted", "cheapest", "fastest", "least_used"],
        Field(
            description="How targets are put in order: as listed; by chance, as often as their weights say, "
            "and always the same for one user_id; by price; by latency of late; by calls of late."
        ),
    ] = "priority"
    prompt_template: PromptBody | None = None
    parameters: fields.JsonObject = Field(
        default_factory=dict, description="Over the model's default_parameters; null unsets one of them."
    )
    max_retries: Annotated[int, Field(ge=0, le=20)] = 3
    retry_delay_seconds: Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)] = 2.0
    timeout_seconds: Annotated[Seconds | None, Field(description="Of one call.")] = None
    deadline_seconds: Annotated[
        Annotated[float, Field(gt=0, le=31_536_000, allow_inf_nan=False)] | None,
        Field(description="Of a job that names none itself."),
    ] = None
    use_any_active_model: Annotated[
        bool, Field(description="Last resort: any active model that has the capability.")
    ] = False
    is_active: bool = True


class ShownTarget(BaseModel):
    model_id: UUID
    position: int
    weight: float
    conditions: Conditions


class Prompt(BaseModel):
    """A prompt as the API shows it. `version` counts the feature's prompts."""

    system: str | None
    user: str | None
    version: int


class Assignment(Stamps):
    """An assignment as the API shows it, its models in both forms."""

    feature_name: str
    model_id: UUID | None
    backup_model_id: UUID | None
    targets: list[ShownTarget]
    strategy: str
    prompt_template: Prompt | None
    parameters: fields.JsonObject
    max_retries: int
    retry_delay_seconds: float
    timeout_seconds: float | None
    deadline_seconds: float | None
    use_any_active_model: bool
    is_active: bool


class AssignmentQuery(PageQuery):
    feature: features.FeatureName | None = None
    is_active: bool | None = None


_COLUMNS = (
    *("strategy", "parameters", "max_retries", "retry_delay_seconds", "timeout_seconds", "deadline_seconds"),
    *("use_any_active_model", "is_active"),
)
_WHOLE = (
    joinedload(FeatureAIAssignment.feature),
    joinedload(FeatureAIAssignment.prompt_template),
    selectinload(FeatureAIAssignment.targets),
)


@router.get("")
@allow_reading
def list_assignments(query: Annotated[AssignmentQuery, Query()], session: Reading) -> Page[Assignment]:
    """Assignments, oldest first."""
    wanted = select(FeatureAIAssignment).options(*_WHOLE)
    if query.feature is not None:
        wanted = wanted.join(FeatureRow).where(FeatureRow.name == query.feature)
    if query.is_active is not None:
        wanted = wanted.where(FeatureAIAssignment.is_active == query.is_active)
    rows, cursor = page_of(session, wanted, query, by=[FeatureAIAssignment.id])
    return Page(items=[_shown(row) for row in rows], next_cursor=cursor)


@router.post("", status_code=status.HTTP_201_CREATED)
@allow_writing
def create_assignment(body: AssignmentBody, session: Writing, caller: Current) -> Assignment:
    """Assign models to a feature that has none assigned."""
    feature = session.scalar(select(FeatureRow).where(FeatureRow.name == body.feature_name))
    if feature is None:
        raise Invalid(
            f"There is no feature {body.feature_name!r}.",
            field="feature_name",
            hint="GET /features lists them.",
        )
    row = FeatureAIAssignment(
        id=new_id(), feature=feature, prompt_template=None, targets=[], created_by=caller.admin_id
    )
    session.add(row)
    return written(session, row, body, caller.admin_id)


@router.get("/{assignment_id}")
@allow_reading
@tagged
def get_assignment(assignment_id: UUID, session: Reading) -> Assignment:
    """One assignment."""
    return _shown(found(session, assignment_id))


@router.put("/{assignment_id}")
@allow_writing
def replace_assignment(
    assignment_id: UUID, body: AssignmentBody, session: Writing, caller: Current
) -> Assignment:
    """Replace an assignment; what is absent gets its default. Jobs that start from now on see it."""
    return written(session, found(session, assignment_id), body, caller.admin_id)


@router.patch("/{assignment_id}", openapi_extra=fields.patch_of(AssignmentBody))
@allow_writing
def change_assignment(assignment_id: UUID, changes: Changes, session: Writing, caller: Current) -> Assignment:
    """Change some members. A `model_id` or `backup_model_id` alone replaces that target and keeps the others;
    a `prompt_template` keeps whichever of system and user it does not name."""
    row = found(session, assignment_id)
    body = fields.merged(_current(row), _expanded(row, changes))
    return written(session, row, body, caller.admin_id)


@router.delete("/{assignment_id}", status_code=status.HTTP_204_NO_CONTENT)
@allow_writing
def delete_assignment(assignment_id: UUID, session: Writing) -> None:
    """Remove an assignment. Its feature serves no jobs until it gets another."""
    row = found(session, assignment_id)
    session.execute(delete(FeatureAIAssignment).where(FeatureAIAssignment.id == row.id))


def found(session: Session, assignment_id: UUID) -> FeatureAIAssignment:
    """The assignment's row with all that belongs to it. Raises NotFound."""
    row = session.get(FeatureAIAssignment, assignment_id, options=_WHOLE)
    if row is None:
        raise NotFound(f"There is no feature assignment {assignment_id}.")
    return row


def written(
    session: Session, row: FeatureAIAssignment, body: AssignmentBody, admin_id: UUID | None
) -> Assignment:
    """Make the row what the body says. Raises Invalid."""
    if body.feature_name != row.feature.name:
        raise Invalid(
            "An assignment stays with its feature. Add one to the other feature.", field="feature_name"
        )
    targets = _targets(body)
    check_targets(session, row, [(target.model_id, field) for target, field in targets], body.parameters)
    _check_weights(body.strategy, [target for target, _ in targets])
    for name in _COLUMNS:
        setattr(row, name, getattr(body, name))
    row.updated_by, row.updated_at = admin_id, func.now()
    _set_prompt(session, row, body.prompt_template, admin_id)
    session.flush()
    _set_targets(session, row, [target for target, _ in targets])
    return _shown(row)


# --- targets ------------------------------------------------------------------------------------------


def _targets(body: AssignmentBody) -> list[tuple[Target, str]]:
    """The targets in order, each with the field it came from. Raises Invalid where the two forms clash."""
    listed = _listed(body.targets) if body.targets else []
    short = [(body.model_id, "model_id"), (body.backup_model_id, "backup_model_id")]
    given = [(model_id, field) for model_id, field in short if model_id is not None]
    if not listed:
        if body.model_id is None:
            raise Invalid(
                "Name the model that serves the feature.", field="model_id", hint="GET /models has its id."
            )
        listed = [(Target(model_id=model_id), field) for model_id, field in given]
    for model_id, field in given:
        place = 0 if field == "model_id" else 1
        if place >= len(listed) or listed[place][0].model_id != model_id:
            raise Invalid(
                f"This is not target {place}. Send {field} or targets, or make them agree.", field=field
            )
        listed[place] = (listed[place][0], field)
    seen: set[UUID] = set()
    for target, field in listed:
        if target.model_id in seen:
            raise Invalid("This model stands there already. A backup must be another model.", field=field)
        seen.add(target.model_id)
    return listed


def _listed(targets: Sequence[Target]) -> list[tuple[Target, str]]:
    placed = sorted(
        (index if target.position is None else target.position, index) for index, target in enumerate(targets)
    )
    if [position for position, _ in placed] != list(range(len(placed))):
        raise Invalid(f"Positions must count from 0 to {len(placed) - 1}, each once.", field="targets")
    return [(targets[index], pointer(["targets", index, "model_id"])) for _, index in placed]


def _check_weights(strategy: str, targets: Sequence[Target]) -> None:
    if strategy == "weighted" and not any(target.weight for target in targets):
        raise Invalid("Under the strategy weighted one target at least needs a weight.", field="targets")


def _set_targets(session: Session, row: FeatureAIAssignment, wanted: Sequence[Target]) -> None:
    if [target_of(stored) for stored in row.targets] == [_bare(target) for target in wanted]:
        return
    row.targets.clear()
    session.flush()  # the old positions must be gone before the new ones come
    row.targets.extend(
        AssignmentTarget(
            position=position,
            model_id=target.model_id,
            weight=target.weight,
            conditions=target.conditions.model_dump(exclude_none=True),
        )
        for position, target in enumerate(wanted)
    )
    session.flush()


def target_of(stored: AssignmentTarget) -> Target:
    """A stored target as a client would send it, without its position."""
    return Target(model_id=stored.model_id, weight=stored.weight, conditions=Conditions(**stored.conditions))


def _bare(target: Target) -> Target:
    return target.model_copy(update={"position": None})


def _current(row: FeatureAIAssignment) -> AssignmentBody:
    """What is stored, but for the targets."""
    prompt = row.prompt_template
    return AssignmentBody.model_construct(
        feature_name=row.feature.name,
        prompt_template=PromptBody(system=prompt.system_template, user=prompt.user_template)
        if prompt
        else None,
        **{name: getattr(row, name) for name in _COLUMNS},
    )


def _expanded(row: FeatureAIAssignment, changes: Mapping[str, object]) -> dict[str, object]:
    """The changes with what they leave alone of targets and prompt put in."""
    expanded = dict(changes)
    if "targets" not in changes:
        stored_targets = {str(target.model_id): target_of(target).model_dump() for target in row.targets}
        expanded["targets"] = [
            stored_targets.get(str(model_id), {"model_id": model_id})
            for model_id in _patched_targets(row, changes)
        ]
    sent, stored = changes.get("prompt_template"), row.prompt_template
    if isinstance(sent, dict) and stored is not None:
        expanded["prompt_template"] = {
            "system": stored.system_template,
            "user": stored.user_template,
            **sent,
        }
    return expanded


def _patched_targets(row: FeatureAIAssignment, changes: Mapping[str, object]) -> list[object]:
    models: list[object] = [target.model_id for target in row.targets]
    if "model_id" in changes:
        if changes["model_id"] is None:
            raise Invalid("An assignment needs a model. Name another, or deactivate it.", field="model_id")
        models[:1] = [changes["model_id"]]
    if "backup_model_id" in changes:
        backup = changes["backup_model_id"]
        models[1:2] = [] if backup is None else [backup]
    elif len(models) > 1 and str(models[0]) == str(models[1]):
        raise Invalid(
            "This model is the backup now. Choose another backup, or none.",
            field="model_id",
            hint="Send another backup_model_id, or null.",
        )
    return models


# --- prompts ------------------------------------------------------------------------------------------


def _check_prompt(prompt: PromptBody) -> None:
    for name, template in (("system", prompt.system), ("user", prompt.user)):
        try:
            prompts.check(template or "")
        except ConfigurationError as error:
            raise Invalid(error.message, field=f"prompt_template/{name}") from None


def _set_prompt(
    session: Session, row: FeatureAIAssignment, wanted: PromptBody | None, admin_id: UUID | None
) -> None:
    """Point at the wanted prompt: the present version where nothing changed, else a new one."""
    stored = row.prompt_template
    if wanted is None or (
        stored and (stored.system_template, stored.user_template) == (wanted.system, wanted.user)
    ):
        row.prompt_template = stored if wanted else None
        return
    _check_prompt(wanted)
    feature_id = row.feature.id
    last = session.scalar(
        select(func.max(PromptTemplate.version)).where(PromptTemplate.feature_id == feature_id)
    )
    row.prompt_template = PromptTemplate(
        id=new_id(),
        feature_id=feature_id,
        version=(last or 0) + 1,
        system_template=wanted.system,
        user_template=wanted.user,
        created_by=admin_id,
    )


def _shown(row: FeatureAIAssignment) -> Assignment:
    prompt = row.prompt_template
    models = [target.model_id for target in row.targets]
    return fields.shown(
        Assignment,
        row,
        feature_name=row.feature.name,
        model_id=models[0] if models else None,
        backup_model_id=models[1] if len(models) > 1 else None,
        targets=[
            ShownTarget(position=place, **target_of(target).model_dump(exclude={"position"}))
            for place, target in enumerate(row.targets)
        ],
        prompt_template=prompt
        and Prompt(system=prompt.system_template, user=prompt.user_template, version=prompt.version),
    )
