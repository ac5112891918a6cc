"""Changes of providers and models that would break assignments: refused at once, not job by job."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session, joinedload, selectinload

from admin_api.refusals import Conflict, Invalid
from admin_api.serving import check_targets
from store.tables import AIModel, AssignmentTarget, FeatureAIAssignment


@contextmanager
def breaks_nothing(session: Session, which: ColumnElement[bool], *, field: str) -> Iterator[None]:
    """Around a change of the models that `which` picks, or of their provider; it is flushed at the end.

    Raises Conflict where an assignment cannot be served that could be before. What was broken already does
    not stand in the way of a change.
    """
    before = _broken(session, which)
    yield
    session.flush()
    broken = {feature: why for feature, why in _broken(session, which).items() if feature not in before}
    if broken:
        listed = " ".join(f"{feature}: {why}" for feature, why in sorted(broken.items()))
        raise Conflict(
            f"This change would break the assignments of {len(broken)} features. {listed} Change those "
            "assignments first.",
            field=field,
        )


def _broken(session: Session, which: ColumnElement[bool]) -> dict[str, str]:
    """Features whose assignments the models cannot serve, and why."""
    models: set[UUID] = set()
    for model in session.scalars(select(AIModel).where(which)):
        models.add(model.id)
        session.expire(model, ["provider"])  # which may be another one now
    using = select(AssignmentTarget.assignment_id).where(AssignmentTarget.model_id.in_(models))
    assignments = session.scalars(
        select(FeatureAIAssignment)
        .where(FeatureAIAssignment.id.in_(using))
        .options(joinedload(FeatureAIAssignment.feature), selectinload(FeatureAIAssignment.targets))
    )
    found: dict[str, str] = {}
    for assignment in assignments:
        own = [(target.model_id, "model_id") for target in assignment.targets if target.model_id in models]
        try:
            check_targets(session, assignment, own, assignment.parameters)
        except Invalid as refused:
            found[assignment.feature.name] = refused.message
    return found
