"""Moves of features to a model that is to serve them first: many in one act, and the way back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import and_, select
from sqlalchemy.orm import Session, aliased

from admin_api import assignments, models, versions
from admin_api.assignments import AssignmentBody
from admin_api.refusals import Conflict, Invalid
from admin_api.security import Principal
from admin_api.versions import Rollback
from store.tables import (
    AIModel,
    AIProvider,
    AssignmentTarget,
    Feature,
    FeatureAIAssignment,
)

MOST = 200
"""Features that one act looks at."""


@dataclass(frozen=True, slots=True)
class Place:
    """A feature that a model could serve, and who serves it.

    `position`: the model's own among the targets, None where it is none of them. `primary`: provider and
    model that are tried first now; None without an assignment.
    """

    feature: str
    capability: str
    is_active: bool
    assignment_id: UUID | None
    is_assigned: bool
    position: int | None
    primary: str | None

    @property
    def is_served(self) -> bool:
        """Whether the model is the one that is tried first."""
        return self.position == 0


@dataclass(frozen=True, slots=True)
class Moved:
    """A feature that was moved. `version` is its assignment's of before; 0: there was none."""

    feature: str
    assignment_id: UUID
    version: int


def places(session: Session, model_id: UUID) -> list[Place]:
    """The features whose capability the model has: those it serves, those it backs up, and the others."""
    model = models.found(session, model_id)
    own, first = aliased(AssignmentTarget), aliased(AssignmentTarget)
    rows = session.execute(
        select(
            Feature.name,
            Feature.capability,
            Feature.is_active,
            FeatureAIAssignment.id,
            FeatureAIAssignment.is_active,
            own.position,
            AIProvider.slug + "/" + AIModel.model_id,
        )
        .outerjoin(FeatureAIAssignment, FeatureAIAssignment.feature_id == Feature.id)
        .outerjoin(own, and_(own.assignment_id == FeatureAIAssignment.id, own.model_id == model.id))
        .outerjoin(first, and_(first.assignment_id == FeatureAIAssignment.id, first.position == 0))
        .outerjoin(AIModel, AIModel.id == first.model_id)
        .outerjoin(AIProvider, AIProvider.id == AIModel.provider_id)
        .where(Feature.capability.in_(model.capabilities))
        .order_by(own.position != 0, Feature.name)
        .limit(MOST)
    )
    return [
        Place(name, capability, is_active, assignment_id, bool(is_assigned), position, primary)
        for name, capability, is_active, assignment_id, is_assigned, position, primary in rows
    ]


def move(session: Session, model_id: UUID, features: Sequence[str], caller: Principal) -> list[Moved]:
    """Have the model serve the features first; who did becomes the first backup of each.

    What the model serves first already stays as it is. Raises Invalid, naming the feature that stands in the
    way; then nothing of it counts, for the caller's transaction ends.
    """
    known = {place.feature: place for place in places(session, model_id)}
    moved = []
    for feature in dict.fromkeys(features):
        place = known.get(feature)
        if place is None:
            raise Invalid(f"The model has not the capability that {feature!r} needs.", field="features")
        if place.is_served:
            continue
        try:
            moved.append(_moved(session, model_id, place, caller))
        except Invalid as refused:
            raise Invalid(f"{feature}: {refused.message}", field="features") from None
    return moved


def _moved(session: Session, model_id: UUID, place: Place, caller: Principal) -> Moved:
    if place.assignment_id is None:
        body = AssignmentBody(feature_name=place.feature, model_id=model_id)
        return Moved(place.feature, assignments.create_assignment(body, session, caller).id, 0)
    before = versions.newest(session, place.assignment_id) or 0
    row = assignments.found(session, place.assignment_id)
    others = [target.model_id for target in row.targets if target.model_id != model_id]
    targets = [{"model_id": str(each)} for each in (model_id, *others)]
    assignments.change_assignment(row.id, {"targets": targets}, session, caller)
    return Moved(place.feature, row.id, before)


def undo(session: Session, moved: Sequence[tuple[UUID, int]], caller: Principal) -> list[str]:
    """Take moves back, each an assignment's id and its version of before; the features' names.

    Raises Conflict where an assignment was changed since, for that change would be lost; NotFound.
    """
    names = []
    for assignment_id, version in moved:
        feature = assignments.found(session, assignment_id).feature.name
        if versions.newest(session, assignment_id) != version + 1:
            raise Conflict(f"The assignment of {feature} was changed since. Its page lists its versions.")
        if version:
            versions.roll_back(assignment_id, Rollback(version=version), session, caller)
        else:
            assignments.delete_assignment(assignment_id, session)
        names.append(feature)
    return names
