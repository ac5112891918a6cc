"""Who needs what is to be removed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import Query
from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from admin_api.refusals import InUse, User
from store.tables import AIModel, AssignmentTarget, Feature, FeatureAIAssignment

Deactivate = Annotated[
    bool, Query(description="Set is_active to false instead of removing it, whether it is in use or not.")
]
REMOVED: dict[int | str, dict[str, Any]] = {
    200: {"description": "It was deactivated, as asked."},
    204: {"description": "It was removed."},
}


def refuse_if_used(session: Session, what: str, by: ColumnElement[bool]) -> None:
    """Raise InUse where assignments name a model that `by` picks; `what` begins the sentence."""
    using = session.execute(
        select(FeatureAIAssignment.id, Feature.name)
        .join(Feature, Feature.id == FeatureAIAssignment.feature_id)
        .join(AssignmentTarget, AssignmentTarget.assignment_id == FeatureAIAssignment.id)
        .join(AIModel, AIModel.id == AssignmentTarget.model_id)
        .where(by)
        .distinct()
        .order_by(Feature.name)
    ).all()
    refuse(what, [User(row.id, row.name) for row in using])


def refuse(what: str, users: Sequence[User]) -> None:
    """Raise InUse where there are any."""
    if users:
        raise InUse(
            f"{what} is in use by the assignments of: {', '.join(user.feature_name for user in users)}. "
            "Change those first, or deactivate it instead.",
            users,
            hint="?deactivate=true does that.",
        )
