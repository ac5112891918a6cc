"""Which route would win now, and why each other one would not. Decides nothing: it asks what jobs ask."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from routing import limits, prompts
from routing.admission import check_input
from routing.cooldowns import Cooldowns
from routing.errors import CircuitOpen, RoutingError
from routing.figures import Figures
from routing.providers import codec
from routing.resolver import resolve
from routing.snapshot import Snapshot
from routing.values import Call, PassedOver, Plan, Request, Route


class Verdict(StrEnum):
    """What would become of a candidate: the first try, tried where those before it fail, or not tried."""

    WINS = "wins"
    BACKUP = "backup"
    PASSED_OVER = "passed_over"


@dataclass(frozen=True, slots=True)
class Breakers:
    """A provider's circuit breakers: how many of the living worker processes have it open."""

    open: int = 0
    workers: int = 0

    @property
    def is_open(self) -> bool:
        """Whether no worker would call it now."""
        return 0 < self.workers <= self.open


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that was considered. `route` and `call` are None where there is none; `error_class` and
    `reason` say why it is passed over; `notes` are worth knowing all the same."""

    model_id: UUID
    provider: str
    model: str
    verdict: Verdict
    error_class: str | None = None
    reason: str | None = None
    route: Route | None = None
    call: Call | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Explanation:
    """What would happen to a job now. `error` is why nothing would be tried at all: the input, the feature
    or its assignment; `call` holds the prompt as it was rendered."""

    config_version: int
    candidates: tuple[Candidate, ...] = ()
    error: RoutingError | None = None

    @property
    def winner(self) -> Candidate | None:
        """The route that would be tried first."""
        return next((one for one in self.candidates if one.verdict is Verdict.WINS), None)


def explain(
    snapshot: Snapshot,
    request: Request,
    *,
    now: datetime,
    breakers: Mapping[UUID, Breakers],
    figures: Figures | None = None,
    cooldowns: Cooldowns | None = None,
) -> Explanation:
    """Explain what a job with this request would meet at `now`; `breakers` by provider."""
    try:
        plan = resolve(snapshot, request, now=now, figures=figures)
    except RoutingError as error:
        return Explanation(snapshot.version, error=error)
    refused = _refused(plan, request)
    candidates: list[Candidate] = []
    is_won = refused is not None  # an input that is refused is tried nowhere
    for considered in _in_order(plan):
        if isinstance(considered, PassedOver):
            candidates.append(_passed_over(considered))
            continue
        tried = _tried(
            plan,
            considered,
            None if refused else request,
            breakers.get(considered.provider.id, Breakers()),
            cooldowns or Cooldowns(),
            Verdict.BACKUP if is_won else Verdict.WINS,
        )
        is_won = is_won or tried.verdict is Verdict.WINS
        candidates.append(tried)
    return Explanation(snapshot.version, tuple(candidates), refused)


def _refused(plan: Plan, request: Request) -> RoutingError | None:
    try:
        check_input(plan.feature.input_schema, request.input)
    except RoutingError as error:
        return error
    return None


def _in_order(plan: Plan) -> list[Route | PassedOver]:
    """Routes in the order in which they are tried. What was passed over stands where the assignment lists it:
    before the routes that it lists after it."""
    places = {target.model_id: place for place, target in enumerate(plan.assignment.targets)}
    waiting = sorted(plan.passed_over, key=lambda over: places.get(over.model_id, len(places)))
    considered: list[Route | PassedOver] = []
    for route in plan.routes:
        place = places.get(route.model.id, len(places))
        while waiting and places.get(waiting[0].model_id, len(places)) < place:
            considered.append(waiting.pop(0))
        considered.append(route)
    return [*considered, *waiting]


def _passed_over(over: PassedOver) -> Candidate:
    return Candidate(
        over.model_id,
        over.provider or "",
        over.model or "",
        Verdict.PASSED_OVER,
        error_class=over.error_class,
        reason=over.reason,
    )


def _tried(
    plan: Plan,
    route: Route,
    request: Request | None,
    breakers: Breakers,
    cooldowns: Cooldowns,
    verdict: Verdict,
) -> Candidate:
    """What a worker would make of a route. Without a request no call is composed."""
    call: Call | None = None
    error_class: str | None = None
    reason: str | None = None
    try:
        speaker = codec(route, plan.feature.capability)
        if request is not None:
            call = prompts.compose(plan.feature, plan.assignment, route, request)
            speaker.encode(call, None)
        cooldowns.check(route, call.voice if call else None)
    except RoutingError as error:
        verdict, error_class, reason = Verdict.PASSED_OVER, error.error_class, error.message
    if breakers.is_open and reason is None:
        verdict, error_class = Verdict.PASSED_OVER, CircuitOpen.error_class
        reason = (
            f"The circuit breaker of provider {route.provider.slug!r} is open in every worker: its last "
            "calls failed. It is tried again by itself. The provider's health says more."
        )
    return Candidate(
        route.model.id,
        route.provider.slug,
        route.model.model_id,
        verdict,
        error_class=error_class,
        reason=reason,
        route=route,
        call=call,
        notes=_notes(plan, route, breakers),
    )


def _notes(plan: Plan, route: Route, breakers: Breakers) -> tuple[str, ...]:
    notes: list[str] = []
    if all(route.model.id != target.model_id for target in plan.assignment.targets):
        notes.append("It is no target of the assignment, but its last resort (use_any_active_model).")
    if route.price is None:
        notes.append("It has no price now: what its calls cost will be unknown.")
    if route.personal_key is None and route.provider.key_version == 0:
        notes.append("Its provider has no key stored: calls are sent without one.")
    if route.model.retires_at is not None:
        notes.append(f"It is called until {route.model.retires_at} (its retires_at), and not after.")
    if limits.is_limited(route.provider):
        notes.append("Its provider is limited: beyond that it is passed over until there is room again.")
    if 0 < breakers.open < breakers.workers:
        notes.append(f"Its breaker is open in {breakers.open} of {breakers.workers} worker processes.")
    return tuple(notes)
