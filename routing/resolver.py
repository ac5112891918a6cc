"""Feature + caller + snapshot → the routes to try, in order. Pure: no I/O, no clock of its own."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from uuid import UUID

from routing.access import Access, access
from routing.errors import ConfigurationError, LimitSpent, NoAccess, RoutingError, UnknownFeature
from routing.media import IMAGE_INPUTS
from routing.snapshot import Snapshot
from routing.values import (
    Assignment,
    Caller,
    Capability,
    Feature,
    Model,
    PassedOver,
    PersonalKey,
    Plan,
    Provider,
    Request,
    Route,
)


def resolve(snapshot: Snapshot, request: Request, *, now: datetime) -> Plan:
    """Decide which routes serve `request`, best first, and say why other targets do not.

    Raises:
        UnknownFeature: no feature has this name.
        ConfigurationError: the feature is inactive, or nothing is assigned to it.
    """
    feature = snapshot.features.get(request.feature)
    if feature is None:
        raise UnknownFeature(
            f"There is no feature {request.feature!r}.", hint="GET /api/v1/features lists them."
        )
    assignment = _assignment(snapshot, feature)
    routes: list[Route] = []
    passed_over: list[PassedOver] = []
    needed = _needed(feature, request)
    for model_id in _candidates(snapshot, needed, assignment, now):
        model = snapshot.models[model_id]
        provider = snapshot.providers[model.provider_id]
        own = snapshot.personal_key(request.caller, provider.id)
        granted = _granted(request.caller, model, provider, own)
        obstacle = _obstacle(feature, needed, model, provider, granted, own, now)
        if obstacle is None:
            key = own if granted is Access.AVAILABLE_PERSONAL else None
            routes.append(Route(provider, model, snapshot.price(model_id, now), key))
        else:
            passed_over.append(
                PassedOver(model_id, provider.slug, model.model_id, obstacle.error_class, obstacle.message)
            )
    return Plan(snapshot.version, feature, assignment, tuple(routes), tuple(passed_over))


def _assignment(snapshot: Snapshot, feature: Feature) -> Assignment:
    if not feature.is_active:
        raise ConfigurationError(f"Feature {feature.name!r} is inactive. Activate it.")
    assignment = snapshot.assignments.get(feature.id)
    if assignment is None:
        raise ConfigurationError(f"Feature {feature.name!r} has no assignment. Assign a model to it.")
    if not assignment.is_active:
        raise ConfigurationError(f"The assignment of feature {feature.name!r} is inactive. Activate it.")
    return assignment


def _needed(feature: Feature, request: Request) -> Capability:
    """What a model must be able to do: a picture among a text feature's input wants one that sees."""
    if feature.capability is Capability.TEXT and any(request.input.get(name) for name in IMAGE_INPUTS):
        return Capability.VISION
    return feature.capability


def _candidates(
    snapshot: Snapshot, needed: Capability, assignment: Assignment, now: datetime
) -> Iterator[UUID]:
    """The targets in their order, then, as a last resort, every other usable model, defaults first."""
    yield from assignment.targets
    if assignment.use_any_active_model:
        others = (
            model
            for model in snapshot.models.values()
            if model.id not in assignment.targets
            and model.is_active
            and not model.is_retired(now)
            and needed in model.capabilities
            and snapshot.providers[model.provider_id].is_active
        )
        yield from (model.id for model in sorted(others, key=_preference))


def _preference(model: Model) -> tuple[bool, int, UUID]:
    return not model.is_default, model.sort_order, model.id


def _granted(caller: Caller, model: Model, provider: Provider, own: PersonalKey | None) -> Access:
    return access(
        caller,
        is_active=provider.is_active and model.is_active,
        has_personal_key=own is not None,
        use_shared_api=own is not None and own.use_shared_api,
        is_shared=provider.allow_shared_for_normal_admins,
    )


def _obstacle(
    feature: Feature,
    needed: Capability,
    model: Model,
    provider: Provider,
    granted: Access,
    own: PersonalKey | None,
    now: datetime,
) -> RoutingError | None:
    """Why this model cannot serve this caller now, or None."""
    if granted is Access.DISABLED and not provider.is_active:
        return ConfigurationError(
            f"Provider {provider.slug!r} is inactive. Activate it, or assign another model."
        )
    if granted is Access.DISABLED:
        return ConfigurationError(
            f"Model {model.model_id!r} of provider {provider.slug!r} is inactive. Activate it, or assign "
            "another model."
        )
    if model.is_retired(now):
        return ConfigurationError(
            f"Model {model.model_id!r} of provider {provider.slug!r} was retired after "
            f"{model.retires_at}. Assign its successor, or correct the date."
        )
    if needed not in model.capabilities:
        why = "" if needed is feature.capability else " for a picture"
        return ConfigurationError(
            f"Model {model.model_id!r} of provider {provider.slug!r} lacks the capability "
            f"{needed!s} that feature {feature.name!r} needs{why}. Add it to the model's "
            "capabilities, or assign another model."
        )
    if granted is Access.NO_ACCESS:
        return NoAccess(
            f"Provider {provider.slug!r} does not share its key with admins. Store a key of your own, have "
            "it shared, or enqueue as the application.",
            hint=f"PUT /personal-keys/{provider.id}, or its allow_shared_for_normal_admins.",
        )
    if granted is Access.AVAILABLE_PERSONAL and own is not None and own.is_spent:
        return LimitSpent(
            f"Your own key for provider {provider.slug!r} has used {own.tokens_spent:,} of the "
            f"{own.monthly_limit:,} tokens that its monthly limit allows. Raise the limit, or wait for "
            "the next month (UTC)."
        )
    return None
