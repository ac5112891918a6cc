"""Versions of assignments: every state one was saved in, and the way back to each."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from admin_api import assignments, fields
from admin_api.assignments import Assignment, AssignmentBody, Conditions, PromptBody, Target
from admin_api.pagination import Page, PageQuery, cut, decoded
from admin_api.refusals import Conflict, Invalid, NotFound
from admin_api.security import Current, GuardedRoute, allow_reading, allow_writing
from admin_api.sessions import Reading, Writing
from store.tables import AIModel, AssignmentVersion, FeatureAIAssignment, PromptTemplate

router = APIRouter(prefix="/feature-assignments", tags=["feature-assignments"], route_class=GuardedRoute)


class Change(BaseModel):
    """What one member was in the version before, and what it is in this one."""

    field: str
    before: Any
    after: Any


class VersionTarget(BaseModel):
    """A model as it was called when the version was saved."""

    model_id: UUID
    position: int
    weight: float = 1.0
    conditions: Conditions = Conditions()
    name: Annotated[str | None, Field(description="Provider and model: `openai/gpt-6-sol`.")]


class Version(BaseModel):
    """A state that an assignment was saved in. `changes` are those since the version before."""

    version: int
    saved_at: datetime
    saved_by: Annotated[UUID | None, Field(description="An admin's id; null: not by a person.")]
    is_current: bool
    targets: list[VersionTarget]
    prompt_template: assignments.Prompt | None
    settings: Annotated[fields.JsonObject, Field(description="All other members.")]
    changes: list[Change]


class Rollback(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"version": 3}]})

    version: Annotated[int, Field(ge=1, lt=2**31, description="The version to return to.")]


@router.get("/{assignment_id}/versions")
@allow_reading
def list_versions(
    assignment_id: UUID, query: Annotated[PageQuery, Query()], session: Reading
) -> Page[Version]:
    """Every state the assignment was saved in, newest first, with who saved it and what that changed."""
    row = assignments.found(session, assignment_id)
    wanted = select(AssignmentVersion).where(AssignmentVersion.assignment_id == row.id)
    if query.cursor is not None:
        wanted = wanted.where(AssignmentVersion.version < decoded(query.cursor, [int])[0])
    kept = session.scalars(
        wanted.order_by(AssignmentVersion.version.desc()).limit(query.limit + 1)
    ).all()  # one more: the changes of the last shown are against it
    shown, cursor = cut(kept, query.limit, key=lambda one: [one.version])
    last = newest(session, row.id)
    befores = [*kept[1:], None][: len(shown)]
    items = [_shown(one, before, last) for one, before in zip(shown, befores, strict=True)]
    return Page(items=items, next_cursor=cursor)


@router.post("/{assignment_id}/rollback")
@allow_writing
def roll_back(assignment_id: UUID, body: Rollback, session: Writing, caller: Current) -> Assignment:
    """Make the assignment what it was in a version, prompt included: that becomes its newest version.

    Refused with 409 where it cannot be any more, say because a model of it was deleted. Jobs that start from
    now on see it.
    """
    row = assignments.found(session, assignment_id)
    kept = session.get(AssignmentVersion, (row.id, body.version))
    if kept is None:
        raise NotFound(
            f"There is no version {body.version} of this assignment.", hint="GET …/versions lists them."
        )
    _check_models(session, kept)
    wanted = _body(row, kept.state)
    _set_prompt(session, row, kept.state)
    try:
        return assignments.written(session, row, wanted, caller.admin_id)
    except Invalid as refused:
        raise Conflict(
            f"The assignment cannot be what it was in version {kept.version}. {refused.message}",
            field="version",
        ) from None


def newest(session: Session, assignment_id: UUID) -> int | None:
    """The version that the assignment was last saved in; None where that is not committed yet."""
    return session.scalar(
        select(AssignmentVersion.version)
        .where(AssignmentVersion.assignment_id == assignment_id)
        .order_by(AssignmentVersion.version.desc())
        .limit(1)
    )


def _check_models(session: Session, kept: AssignmentVersion) -> None:
    ids = [UUID(target["model_id"]) for target in kept.state["targets"]]
    there = set(session.scalars(select(AIModel.id).where(AIModel.id.in_(ids))))
    gone = [kept.names.get(str(model_id), str(model_id)) for model_id in ids if model_id not in there]
    if gone:
        raise Conflict(
            f"Version {kept.version} refers to models that were deleted since: {', '.join(gone)}. Add them "
            "again and assign them, or choose another version.",
            field="version",
        )


def _body(row: FeatureAIAssignment, state: Mapping[str, Any]) -> AssignmentBody:
    """What a client would send for this state. Not validated: it was, under the rules of its time."""
    prompt = state["prompt_template"]
    known = AssignmentBody.model_fields.keys() & state.keys() - {"targets", "prompt_template"}
    return AssignmentBody.model_construct(
        None,
        **{name: state[name] for name in known},
        feature_name=row.feature.name,
        targets=[
            Target(
                model_id=UUID(target["model_id"]),
                weight=target.get("weight", 1.0),
                conditions=Conditions(**target.get("conditions", {})),
            )
            for target in state["targets"]
        ]
        or None,
        prompt_template=prompt and PromptBody(system=prompt["system"], user=prompt["user"]),
    )


def _set_prompt(session: Session, row: FeatureAIAssignment, state: Mapping[str, Any]) -> None:
    """Back to the prompt's own row, so that records of jobs name the same version as before."""
    prompt = state["prompt_template"]
    found = prompt and session.get(PromptTemplate, UUID(prompt["id"]))
    if found is not None:
        row.prompt_template = found


_APART = frozenset({"targets", "prompt_template"})


def _shown(kept: AssignmentVersion, before: AssignmentVersion | None, newest: int | None) -> Version:
    prompt = kept.state["prompt_template"]
    return Version(
        version=kept.version,
        saved_at=kept.created_at,
        saved_by=kept.created_by,
        is_current=kept.version == newest,
        targets=[
            VersionTarget(**target, name=kept.names.get(target["model_id"]))
            for target in kept.state["targets"]
        ],
        prompt_template=prompt
        and assignments.Prompt(system=prompt["system"], user=prompt["user"], version=prompt["version"]),
        settings={name: value for name, value in kept.state.items() if name not in _APART},
        changes=[] if before is None else _changes(before, kept),
    )


def _changes(before: AssignmentVersion, after: AssignmentVersion) -> list[Change]:
    was, became = _members(before), _members(after)
    return [
        Change(field=name, before=was.get(name), after=became.get(name))
        for name in sorted(was.keys() | became.keys())
        if was.get(name) != became.get(name)
    ]


def _members(kept: AssignmentVersion) -> dict[str, Any]:
    """The state as people compare it: models by name, prompts by what they say."""
    prompt = kept.state["prompt_template"] or {}
    return {
        **{name: value for name, value in kept.state.items() if name not in _APART},
        "prompt_template/system": prompt.get("system"),
        "prompt_template/user": prompt.get("user"),
        "targets": [kept.names.get(t["model_id"], t["model_id"]) for t in kept.state["targets"]],
    }
