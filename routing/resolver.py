"""Feature + caller + snapshot → the routes to try, in order. Pure: no I/O, no clock of its own."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from uuid import UUID

from routing.errors import ConfigurationError, NoAccess, RoutingError, UnknownFeature
from routing.snapshot import Snapshot
from routing.values import Assignment, Caller, Feature, Model, PassedOver, Plan, Provider, Request, Route


def resolve(snapshot: Snapshot, request: Request, *, now: datetime) -> Plan:
    """Decide which routes serve `request`, best first, and say why other targets do not.

    Raises:
        UnknownFeature: no feature has this name.
        ConfigurationError: the feature is inactive, or nothing is assigned to it.
    """
    feature = snapshot.features.get(request.feature)
    if feature is None:
        raise UnknownFeature(f"There is no feature {request.feature!r}. GET /api/v1/features lists them.")
    assignment = _assignment(snapshot, feature)
    routes: list[Route] = []
    passed_over: list[PassedOver] = []
    for model_id in _candidates(snapshot, feature, assignment):
        model = snapshot.models[model_id]
        provider = snapshot.providers[model.provider_id]
        obstacle = _obstacle(feature, request.caller, model, provider)
        if obstacle is None:
            routes.append(Route(provider, model, snapshot.price(model_id, now)))
        else:
            passed_over.append(
                PassedOver(model_id, provider.slug, model.model_id, obstacle.error_class, obstacle.message)
            )
    return Plan(snapshot.version, feature, assignment, tuple(routes), tuple(passed_over))


def _assignment(snapshot: Snapshot, feature: Feature) -> Assignment:
    if not feature.is_active:
        raise ConfigurationError(f"Feature {feature.name!r} is inactive. Set its is_active to true.")
    assignment = snapshot.assignments.get(feature.id)
    if assignment is None:
        raise ConfigurationError(
            f"Feature {feature.name!r} has no assignment. Create one for it in feature-assignments."
        )
    if not assignment.is_active:
        raise ConfigurationError(
            f"The assignment of feature {feature.name!r} is inactive. Set its is_active to true."
        )
    return assignment


def _candidates(snapshot: Snapshot, feature: Feature, assignment: Assignment) -> Iterator[UUID]:
    """The targets in their order, then, as a last resort, every other usable model."""
    yield from assignment.targets
    if assignment.use_any_active_model:
        others = (
            model
            for model in snapshot.models.values()
            if model.id not in assignment.targets
            and model.is_active
            and feature.capability in model.capabilities
            and snapshot.providers[model.provider_id].is_active
        )
        yield from (model.id for model in sorted(others, key=lambda model: (model.sort_order, model.id)))


def _obstacle(feature: Feature, caller: Caller, model: Model, provider: Provider) -> RoutingError | None:
    """Why this model cannot serve this caller now, or None."""
    if not provider.is_active:
        return ConfigurationError(
            f"Provider {provider.slug!r} is inactive. Set its is_active to true, or assign another model."
        )
    if not model.is_active:
        return ConfigurationError(
            f"Model {model.model_id!r} of provider {provider.slug!r} is inactive. Set its is_active to true, "
            "or assign another model."
        )
    if feature.capability not in model.capabilities:
        return ConfigurationError(
            f"Model {model.model_id!r} of provider {provider.slug!r} lacks the capability "
            f"{feature.capability!s} that feature {feature.name!r} needs. Add it to the model's "
            "capabilities, or assign another model."
        )
    if caller.role == "admin" and not provider.allow_shared_for_normal_admins:
        return NoAccess(
            f"Provider {provider.slug!r} does not share its key with admins. Set its "
            "allow_shared_for_normal_admins to true, or enqueue as the application."
        )
    return None
