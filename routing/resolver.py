"""Feature + caller + snapshot + figures → the routes to try, in order. Pure: no I/O, no clock of its own.

targets ─ obstacles, conditions ─▶ usable ones ─ strategy ─▶ in order, then the last resort
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from uuid import UUID

from routing.access import Access, access
from routing.errors import ConfigurationError, LimitSpent, NoAccess, RoutingError, UnknownFeature
from routing.figures import Figures
from routing.media import IMAGE_INPUTS
from routing.snapshot import Snapshot
from routing.strategies import STRATEGIES, Choice, Situation
from routing.values import (
    Assignment,
    Budget,
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
    Target,
)


def resolve(snapshot: Snapshot, request: Request, *, now: datetime, figures: Figures | None = None) -> Plan:
    """Decide which routes serve `request`, best first, and say why other targets do not.

    Without `figures` nobody knows how far budgets have burned, and conditions on that count as met.

    Raises:
        UnknownFeature: no feature has this name.
        ConfigurationError: the feature is inactive, or nothing is assigned to it.
    """
    feature = snapshot.features.get(request.feature)
    if feature is None:
        raise UnknownFeature(f"There is no feature {request.feature!r}. GET /api/v1/features lists them.")
    assignment = _assignment(snapshot, feature)
    budgets = _budgets(snapshot, feature, assignment, request)
    burn = None if figures is None else max((figures.burn.get(one.id, 0.0) for one in budgets), default=0.0)
    choices: list[Choice] = []
    passed_over: list[PassedOver] = []
    for target in assignment.targets:
        found = _route(snapshot, feature, request, target, now, burn)
        if isinstance(found, Route):
            choices.append(Choice(target, found))
        else:
            passed_over.append(found)
    situation = Situation(assignment.id, feature.name, request.sticky, figures or Figures())
    routes = [choice.route for choice in STRATEGIES[assignment.strategy](choices, situation)]
    for target in _last_resort(snapshot, _needed(feature, request), assignment, now):
        found = _route(snapshot, feature, request, target, now, burn)
        if isinstance(found, Route):
            routes.append(found)
        else:
            passed_over.append(found)
    return Plan(snapshot.version, feature, assignment, tuple(routes), tuple(passed_over), budgets)


def _route(
    snapshot: Snapshot,
    feature: Feature,
    request: Request,
    target: Target,
    now: datetime,
    burn: float | None,
) -> Route | PassedOver:
    model = snapshot.models[target.model_id]
    provider = snapshot.providers[model.provider_id]
    own = snapshot.personal_key(request.caller, provider.id)
    granted = _granted(request.caller, model, provider, own)
    obstacle = _unmet(target, request, burn) or _obstacle(
        feature, _needed(feature, request), model, provider, granted, own, now
    )
    if obstacle is not None:
        return PassedOver(model.id, provider.slug, model.model_id, obstacle.error_class, obstacle.message)
    key = own if granted is Access.AVAILABLE_PERSONAL else None
    return Route(provider, model, snapshot.price(model.id, now), key)


def _budgets(
    snapshot: Snapshot, feature: Feature, assignment: Assignment, request: Request
) -> tuple[Budget, ...]:
    """Those that cover a call to one of the targets at least."""
    if not snapshot.budgets:
        return ()
    providers = {snapshot.models[target.model_id].provider_id for target in assignment.targets}
    if assignment.use_any_active_model:
        providers |= snapshot.providers.keys()
    return tuple(
        budget
        for budget in snapshot.budgets
        if any(
            budget.covers(feature=feature.name, user_id=request.user_id, provider_id=provider_id)
            for provider_id in providers
        )
    )


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


def _last_resort(
    snapshot: Snapshot, needed: Capability, assignment: Assignment, now: datetime
) -> Iterator[Target]:
    """Every other usable model where the assignment allows it, defaults first."""
    if not assignment.use_any_active_model:
        return
    listed = {target.model_id for target in assignment.targets}
    others = (
        model
        for model in snapshot.models.values()
        if model.id not in listed
        and model.is_active
        and not model.is_retired(now)
        and needed in model.capabilities
        and snapshot.providers[model.provider_id].is_active
    )
    yield from (Target(model.id) for model in sorted(others, key=_preference))


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


def _unmet(target: Target, request: Request, burn: float | None) -> RoutingError | None:
    """The condition of the target that does not hold, or None."""
    if target.plan is not None and target.plan != request.plan:
        plan = "jobs without one" if request.plan is None else f"those of plan {request.plan!r}"
        return ConfigurationError(f"It serves jobs of plan {target.plan!r} only, and not {plan}.")
    wanted = target.budget_burn_percent
    if wanted is not None and burn is not None and burn < wanted:
        return ConfigurationError(
            f"It serves jobs once {wanted:g} % of a budget are burned; now it is {burn:.0f} %."
        )
    return None


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
            "it shared, or enqueue as the application."
        )
    if granted is Access.AVAILABLE_PERSONAL and own is not None and own.is_spent:
        return LimitSpent(
            f"Your own key for provider {provider.slug!r} has used {own.tokens_spent:,} of the "
            f"{own.monthly_limit:,} tokens that its monthly limit allows. Raise the limit, or wait for "
            "the next month (UTC)."
        )
    return None
