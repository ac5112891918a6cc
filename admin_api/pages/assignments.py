"""Assignments: which model serves which feature, and the swap to another in one click."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response

from admin_api import moves, usage
from admin_api.assignments import Assignment, AssignmentQuery, list_assignments
from admin_api.etags import tagged
from admin_api.features import Feature, FeatureQuery, Name, list_features
from admin_api.pages.model_names import Models, NamedModel, known_models
from admin_api.pages.render import page
from admin_api.pages.route import PageRoute, Sent, SentForm, done, safe_path
from admin_api.pagination import every
from admin_api.refusals import NotFound
from admin_api.security import Current, allow_reading, allow_writing
from admin_api.services import Services, Using
from admin_api.sessions import Reading, Writing, configuration_version
from admin_api.usage import Row, StatsQuery
from routing.values import Capability

router = APIRouter(route_class=PageRoute)

PATH = "/assignments"
USAGE_DAYS = 7

_FEATURES = 20  # a page
_CHOICES = 6  # models to swap to, of one feature; its own page lists all


@dataclass(frozen=True, slots=True)
class Line:
    """A feature, the models that serve it in order, and those it may be swapped to, the likeliest first."""

    feature: Feature
    assignment: Assignment | None
    chain: Sequence[NamedModel]
    choices: Sequence[str]
    has_more: bool
    usage: Row | None


@router.get(PATH)
@allow_reading
def show_assignments(
    query: Annotated[FeatureQuery, Query()], request: Request, session: Reading, using: Using
) -> Response:
    features = list_features(query.model_copy(update={"limit": _FEATURES}), session)
    models = known_models(session)
    assigned = {each.feature_name: each for each in _assignments(session)}
    used = _used(using)
    lines = [
        _line(feature, assigned.get(feature.name), models, used.get(feature.name))
        for feature in features.items
    ]
    return page(
        request,
        "assignments.html",
        groups=_grouped(lines),
        is_empty=not models,
        unassigned=sum(not line.chain for line in lines),
        capabilities=list(Capability),
        capability=query.capability,
        first=_address(query, None) if query.cursor else "",
        further=_address(query, features.next_cursor) if features.next_cursor else "",
        days=USAGE_DAYS,
    )


@router.post(PATH)
@allow_writing
def swap(sent: Sent, session: Writing, caller: Current) -> Response:
    """The model that was chosen for the feature becomes its primary; who was becomes the first backup."""
    feature = sent.get("feature")
    model = known_models(session).named(sent.get(f"to:{feature}"), field="model_id")
    moved = moves.move(session, model.id, [feature], caller)
    back = _back(sent)
    if not moved:
        return done(back, f"{model.name} serves {feature} already.", kind="warn")
    said = f"Swapped at configuration version {configuration_version(session)}."
    return done(
        back,
        f"{said} New jobs of {feature} go to {model.name}.",
        undo=undo_address(feature, moved[0].version),
    )


@router.post(PATH + "/{feature}/undo")
@allow_writing
def undo(feature: Name, version: int, sent: Sent, session: Writing, caller: Current) -> Response:
    """Take back what made the assignment what it is, if nothing changed it since."""
    moves.undo(session, [(assignment_of(feature, session).id, version)], caller)
    now = f"as in its version {version}" if version else "unassigned again"
    said = f"Taken back at configuration version {configuration_version(session)}."
    return done(_back(sent), f"{said} {feature} is {now}.")


@tagged
def assignment_of(feature: Name, session: Reading) -> Assignment:
    """The feature's assignment. Raises NotFound."""
    found = list_assignments(AssignmentQuery(feature=feature), session).items
    if not found:
        raise NotFound(f"Nothing is assigned to {feature} any more.")
    return found[0]


def undo_address(feature: str, version: int) -> str:
    """Where a POST makes the assignment what it was in that version; 0: takes it away."""
    return f"{PATH}/{feature}/undo?version={version}"


def _back(sent: SentForm) -> str:
    return safe_path(sent.get("back"), otherwise=PATH)


def _address(query: FeatureQuery, cursor: str | None) -> str:
    members = {"capability": query.capability, "cursor": cursor}
    found = urlencode({name: value for name, value in members.items() if value})
    return PATH + (f"?{found}" if found else "")


def _assignments(session: Reading) -> Iterable[Assignment]:
    return every(lambda cursor: list_assignments(AssignmentQuery(limit=200, cursor=cursor), session))


def _used(using: Services) -> dict[str, Row]:
    rows = usage.counted(StatsQuery(days=USAGE_DAYS, group_by="feature"), using).items
    return {row.feature: row for row in rows if row.feature}


def _line(feature: Feature, assignment: Assignment | None, models: Models, used: Row | None) -> Line:
    chain = models.chain(target.model_id for target in assignment.targets) if assignment else []
    backups = [model for model in chain[1:] if not model.obstacle]
    others = [model for model in models.fit(feature.capability) if model not in chain]
    choices = [model.name for model in (*backups, *others)]
    return Line(feature, assignment, chain, choices[:_CHOICES], len(choices) > _CHOICES, used)


def _grouped(lines: Sequence[Line]) -> list[tuple[str, list[Line]]]:
    """The features by category; those without one by what they need."""

    def category(line: Line) -> str:
        return line.feature.category or line.feature.capability

    return [(name, list(group)) for name, group in groupby(sorted(lines, key=category), category)]
