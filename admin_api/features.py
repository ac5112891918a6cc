"""Features: what applications ask for by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Path, Query, Response, status
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from pydantic import ConfigDict, Field, StringConstraints
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012, EMPTY_REGISTRY
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from admin_api import fields
from admin_api.etags import tagged
from admin_api.fields import Label, Prose, Stamps
from admin_api.pagination import Page, PageQuery, page_of
from admin_api.providers import Changes
from admin_api.refusals import Conflict, Invalid, NotFound, User, pointer
from admin_api.security import Current, GuardedRoute, allow_reading, allow_writing
from admin_api.sessions import Reading, Writing
from admin_api.uses import REMOVED, Deactivate, refuse
from routing.errors import ConfigurationError
from routing.schemas import flaw
from routing.values import Capability
from store.ids import new_id
from store.tables import AIModel, AssignmentTarget, FeatureAIAssignment, Schedule
from store.tables import Feature as FeatureRow

router = APIRouter(prefix="/features", tags=["features"], route_class=GuardedRoute)

Lane = Literal["interactive", "standard", "batch"]
FeatureName = Annotated[str, StringConstraints(pattern=fields.WORD, max_length=100)]


class FeatureReplacement(fields.Body):
    """A feature as a PUT sends it: the address names it."""

    name: FeatureName | None = None
    category: Label | None = None
    description: Prose | None = None
    capability: Capability
    lane: Annotated[Lane, Field(description="Which workers take its jobs.")]
    input_schema: fields.JsonObject = Field(
        default_factory=dict,
        description="JSON Schema 2020-12 of a job's input; its `example` is checked against it.",
    )
    output_schema: Annotated[
        fields.JsonObject | None,
        Field(description="Kept for later: this release does not check answers against it."),
    ] = None
    max_queued: Annotated[
        fields.Positive32 | None,
        Field(description="Unfinished jobs it may have; beyond, enqueueing answers 429. null: any number."),
    ] = None
    keep_days: Annotated[
        fields.KeepDays | None,
        Field(
            description="What its finished jobs were given and made is erased after so many days; null: with "
            "their records, as the policy of job_history says."
        ),
    ] = None
    store_input: Annotated[
        bool,
        Field(
            description="false: the input and metadata of a job are erased as it ends, and those on record "
            "within minutes. Such a job cannot be retried."
        ),
    ] = True
    store_output: Annotated[
        bool,
        Field(
            description="false: the result, artifact and error messages of a job are erased an hour after it "
            "ended, and those on record within minutes."
        ),
    ] = True
    is_active: bool = True


class FeatureBody(FeatureReplacement):
    """A feature as clients send it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "greeting",
                    "capability": "text",
                    "lane": "interactive",
                    "input_schema": {
                        "type": "object",
                        "properties": {"name": {"type": "string"}},
                        "required": ["name"],
                        "example": {"name": "Ada"},
                    },
                }
            ]
        }
    )

    name: FeatureName


class Feature(Stamps):
    """A feature as the API shows it."""

    name: str
    category: str | None
    description: str | None
    capability: str
    lane: str
    input_schema: fields.JsonObject
    output_schema: fields.JsonObject | None
    max_queued: int | None
    keep_days: int | None
    store_input: bool
    store_output: bool
    is_active: bool


class FeatureQuery(PageQuery):
    capability: Capability | None = None
    lane: Lane | None = None
    is_active: bool | None = None


Name = Annotated[str, Path(max_length=100)]


@router.get("")
@allow_reading
def list_features(query: Annotated[FeatureQuery, Query()], session: Reading) -> Page[Feature]:
    """Features by name."""
    wanted = select(FeatureRow)
    for column, value in (
        (FeatureRow.capability, query.capability),
        (FeatureRow.lane, query.lane),
        (FeatureRow.is_active, query.is_active),
    ):
        wanted = wanted if value is None else wanted.where(column == value)
    rows, cursor = page_of(session, wanted, query, by=[FeatureRow.name])
    return Page(items=[fields.shown(Feature, row) for row in rows], next_cursor=cursor)


@router.post("", status_code=status.HTTP_201_CREATED)
@allow_writing
def create_feature(body: FeatureBody, session: Writing, caller: Current) -> Feature:
    """Add a feature. It serves jobs once something is assigned to it."""
    row = FeatureRow(id=new_id(), name=body.name, created_by=caller.admin_id)
    session.add(row)
    return written(session, row, body, caller.admin_id)


@router.get("/{name}")
@allow_reading
@tagged
def get_feature(name: Name, session: Reading) -> Feature:
    """One feature."""
    return fields.shown(Feature, found(session, name))


@router.put("/{name}")
@allow_writing
def replace_feature(name: Name, body: FeatureReplacement, session: Writing, caller: Current) -> Feature:
    """Replace a feature; what is absent gets its default."""
    return written(session, found(session, name), body, caller.admin_id)


@router.patch("/{name}", openapi_extra=fields.patch_of(FeatureReplacement))
@allow_writing
def change_feature(name: Name, changes: Changes, session: Writing, caller: Current) -> Feature:
    """Change some members of a feature."""
    row = found(session, name)
    body = fields.merged(fields.stored(FeatureReplacement, row), changes)
    return written(session, row, body, caller.admin_id)


@router.delete("/{name}", response_model=Feature, responses=REMOVED)
@allow_writing
def delete_feature(
    name: Name, session: Writing, caller: Current, deactivate: Deactivate = False
) -> Feature | Response:
    """Remove a feature with its prompts. Its jobs in the queue fail; history stays.

    One that has an assignment or a schedule answers 409 and names it.
    """
    row = found(session, name)
    if deactivate:
        row.is_active, row.updated_by = False, caller.admin_id
        session.flush()
        return fields.shown(Feature, row)
    assigned = session.scalars(
        select(FeatureAIAssignment.id).where(FeatureAIAssignment.feature_id == row.id)
    ).all()
    refuse(f"Feature {row.name!r}", [User(assignment, row.name) for assignment in assigned])
    planned = session.scalars(select(Schedule.name).where(Schedule.feature_name == row.name)).all()
    if planned:
        raise Conflict(
            f"Feature {row.name!r} is in use by the schedules: {', '.join(planned)}. Remove those first, or "
            "deactivate it instead.",
            hint="?deactivate=true does that.",
        )
    session.execute(delete(FeatureRow).where(FeatureRow.id == row.id))
    return Response(status_code=status.HTTP_204_NO_CONTENT)


def found(session: Session, name: str) -> FeatureRow:
    """The feature's row. Raises NotFound."""
    row = session.scalar(select(FeatureRow).where(FeatureRow.name == name))
    if row is None:
        raise NotFound(f"There is no feature {name!r}.", hint="GET /features lists them.")
    return row


def written(session: Session, row: FeatureRow, body: FeatureReplacement, admin_id: UUID | None) -> Feature:
    if body.name not in (None, row.name):
        raise Invalid(
            "A feature keeps its name: applications, jobs and history refer to it. Add another.",
            field="name",
        )
    _check_schema(body.input_schema, "input_schema")
    _check_schema(body.output_schema or {}, "output_schema")
    _check_models(session, row, body.capability)
    for name in FeatureReplacement.model_fields.keys() - {"name"}:
        setattr(row, name, getattr(body, name))
    row.updated_by = admin_id
    session.flush()
    return fields.shown(Feature, row)


def _check_models(session: Session, row: FeatureRow, capability: Capability) -> None:
    if row.capability in (None, capability):
        return
    unfit = session.scalars(
        select(AIModel.model_id)
        .join(AssignmentTarget, AssignmentTarget.model_id == AIModel.id)
        .join(FeatureAIAssignment, FeatureAIAssignment.id == AssignmentTarget.assignment_id)
        .where(FeatureAIAssignment.feature_id == row.id, ~AIModel.capabilities.contains([capability.value]))
    ).all()
    if unfit:
        raise Invalid(
            f"Assigned models lack the capability {capability}: {', '.join(unfit)}. Assign others first.",
            field="capability",
        )


def _check_schema(schema: Mapping[str, Any], field: str) -> None:
    """Refuse what would fail at a job's door: a bad schema, a reference that leads nowhere or outside."""
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise Invalid(
            f"This is no valid JSON Schema: {error.message[:300]}",
            field=pointer([field, *error.absolute_path]),
        ) from None
    for reference in _references(schema):
        _check_reference(schema, reference, field)
    try:
        found = flaw(schema, schema.get("example"), field=field)
    except ConfigurationError as error:
        raise Invalid(error.message, field=field) from None
    if found is not None and "example" in schema:
        raise Invalid(
            f"The example breaks the schema: {found.sentence}", field=pointer([field, "example", *found.path])
        )


def _check_reference(schema: Mapping[str, Any], reference: str, field: str) -> None:
    resource = DRAFT202012.create_resource(schema)
    try:
        if not reference.startswith("#"):
            raise Invalid(
                f"The reference {reference!r} leads outside of the schema. Put what it means under $defs.",
                field=field,
            )
        EMPTY_REGISTRY.resolver_with_root(resource).lookup(reference)
    except Unresolvable:
        raise Invalid(f"The reference {reference!r} leads nowhere.", field=field) from None


def _references(schema: object) -> Iterator[str]:
    if isinstance(schema, dict):
        for name in ("$ref", "$dynamicRef"):
            if isinstance(schema.get(name), str):
                yield schema[name]
        for member in schema.values():
            yield from _references(member)
    elif isinstance(schema, list):
        for member in schema:
            yield from _references(member)
