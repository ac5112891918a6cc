"""The loop: a plan's routes, tried in order until one answers.

    gather what the input points to, once
    for each route:  compose ─▶ try ─▶ reply ······························▶ Outcome(reply)
                                 │▲ ├▶ parameter refused: the same call without it, at once
                                 ││ └▶ answer unfit for the output_schema: shown to the model, once
                                 ││
                                 │└── wait ≤ 2 s, if the assignment, the deadline and the retry budget allow
                                 └─▶ error: next route if it `tries_backup`, else the end ─▶ Outcome(error)

One try is: cool-downs ─▶ breaker ─▶ limits ─▶ budgets ─▶ unseal ─▶ encode ─▶ send ─▶ decode. Each becomes an
Attempt. Errors are values here: nothing that a provider, a row or a job's input can do makes `execute` raise.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal

from routing import attachments, budgets, limits, outputs, pricing, prompts
from routing.breaker import OPEN, Breakers, Permit, circuit
from routing.cooldowns import PAUSE_SECONDS, Cooldowns
from routing.errors import (
    CircuitOpen,
    ConfigurationError,
    DeadlinePassed,
    LeaseLost,
    LimitSpent,
    NoAccess,
    OutputRejected,
    ProviderError,
    RateLimited,
    RoutingError,
    TimedOut,
    UnsupportedParameter,
)
from routing.limits import Limits, Ticket
from routing.narration import Narrator
from routing.providers import codec, streaming
from routing.providers.refusals import Refusals
from routing.providers.streaming import Stream
from routing.providers.wire import Codec, HttpRequest, HttpResponse, scrubbed
from routing.retry_budget import RetryBudget
from routing.sse import EventReader, ServerEvent
from routing.transport import MAX_BODY, MAX_TEXT, Transport
from routing.values import (
    Attachments,
    Attempt,
    AttemptOutcome,
    Call,
    Capability,
    Outcome,
    Plan,
    Provider,
    Reply,
    Request,
    Route,
    Usage,
)
from store.vault import Vault, VaultError

_TIMEOUT = 60.0  # seconds of a call, where neither assignment nor provider says
_SHARE = 2 / 3  # of the time left until the deadline that a route may take while others follow it
_LONGEST_WAIT = 2.0  # seconds before a retry on the same route; whoever asks for more loses the turn
_MOST_DROPPED = 4  # parameters a route may refuse, one after the other, in a run
_BULKY = frozenset({Capability.SPEECH, Capability.IMAGE, Capability.EMBEDDING})  # not answered in words
_refusals = Refusals()  # of this process


@dataclass(frozen=True, slots=True)
class _Tools:
    transport: Transport
    breakers: Breakers
    cooldowns: Cooldowns
    limits: Limits
    vault: Vault
    budget: RetryBudget
    still_ours: Callable[[], bool]
    reserve: budgets.Reserve


@dataclass(slots=True)
class _Run:
    """One job run in progress."""

    plan: Plan
    request: Request
    tools: _Tools
    narrator: Narrator | None = None
    attempts: list[Attempt] = field(default_factory=list)
    errors: list[RoutingError] = field(default_factory=list)
    attached: Attachments = field(default_factory=Attachments)

    def seconds_left(self) -> float | None:
        """Until the job's deadline; None = it has none."""
        deadline = self.request.deadline
        return None if deadline is None else deadline - time.monotonic()


def execute(
    plan: Plan,
    request: Request,
    *,
    transport: Transport,
    breakers: Breakers,
    cooldowns: Cooldowns,
    limits: Limits,
    vault: Vault,
    budget: RetryBudget,
    still_ours: Callable[[], bool],
    reserve: budgets.Reserve,
    narrator: Narrator | None = None,
) -> Outcome:
    """Run `plan` for `request`.

    `still_ours` is asked before every call; once it says no, the run stops with class `cancelled`. `reserve`
    is asked before every call that a budget covers. `narrator` tells the answer while it is written, where
    that can be. Blocks for at most the request's deadline, or the sum of the calls' timeouts and of waits of
    at most 2 s.
    """
    tools = _Tools(transport, breakers, cooldowns, limits, vault, budget, still_ours, reserve)
    run = _Run(plan, request, tools, narrator)
    if not plan.routes:
        return _failed(run, _no_route(plan))
    try:
        left = run.seconds_left()
        run.attached = attachments.gather(plan.feature, request.input, transport, seconds=left)
    except RoutingError as error:
        run.errors.append(error)
        return _failed(run, _telling(run))
    for route in plan.routes:
        result = _serve(run, route)
        if isinstance(result, Reply):
            return Outcome(tuple(run.attempts), reply=result, route=route)
        run.errors.append(result)
        if not result.tries_backup:
            break
    return _failed(run, _telling(run))


def _serve(run: _Run, route: Route) -> Reply | RoutingError:
    """Everything that is tried on one route."""
    try:
        call = _composed(run, route)
    except RoutingError as error:
        _record_refusal(run, route, error)
        return error
    retries = dropped = 0
    is_repair = False
    while True:
        stop = _stopped(run)
        if stop is not None:
            return stop
        result = _try(run, route, call)
        if isinstance(result, Reply):
            return result
        if (
            isinstance(result, UnsupportedParameter)
            and dropped < _MOST_DROPPED
            and _refusals.learn(call, result)
        ):
            call = _refusals.applied(call)
            dropped += 1
            continue
        if isinstance(result, UnsupportedParameter) and call.is_streamed:
            call = replace(call, is_streamed=False)  # perhaps it was the stream's own members
            continue
        if isinstance(result, OutputRejected) and not is_repair and not result.was_cut:
            call, is_repair = outputs.repaired(call, result), True
            continue
        wait = _wait_before_retry(run, route, result, retries)
        if wait is None:
            return result
        time.sleep(wait)
        retries += 1


def _try(run: _Run, route: Route, call: Call) -> Reply | RoutingError:
    """One call, recorded and reported to whoever decides about the next ones."""
    provider = route.provider
    watch = _Stopwatch()
    timeout = _timeout(run, route)
    try:
        run.tools.cooldowns.check(route, call.voice)
        permit = run.tools.breakers.admit(circuit(provider), probe_seconds=timeout)
        ticket = _ticket(run, call, permit, timeout)
    except RoutingError as error:
        state = OPEN if isinstance(error, CircuitOpen) else run.tools.breakers.state(circuit(provider))
        run.attempts.append(_attempt(run, route, watch, breaker=state, error=error))
        return error
    result: Reply | RoutingError | None = None  # as it stays where a bug on our side ends the call
    try:
        refusal = _affordable(run, call)
        if refusal is None:
            result = _called(run, call, timeout)
            permit.succeeded()
        else:
            result = refusal
    except RoutingError as error:
        result = error.with_traceback(None)  # its frames hold the key
        permit.failed(error)
    finally:
        # Where neither was reported: no budget, or a bug on our side, which must not keep the probe.
        permit.abandoned()
        if ticket is not None:
            ticket.ended(_used_tokens(result))
    if isinstance(result, Reply):
        run.tools.cooldowns.answered(call)
        run.attempts.append(_attempt(run, route, watch, breaker=permit.state, reply=result))
    else:
        if isinstance(result, ProviderError):
            run.tools.cooldowns.refused(call, result)
        run.attempts.append(_attempt(run, route, watch, breaker=permit.state, error=result))
    return result


def _ticket(run: _Run, call: Call, permit: Permit, timeout: float) -> Ticket | None:
    """Leave to call a provider that is limited; None for others. Raises RateWait."""
    if not limits.is_limited(call.route.provider):
        return None
    try:
        return run.tools.limits.take(call, seconds=timeout, is_last=_has_no_way_out(run, call.route))
    except BaseException:
        permit.abandoned()
        raise


def _has_no_way_out(run: _Run, route: Route) -> bool:
    """Whether a job that is not let through here is likely to have to wait: routes after this one are limited
    as well, or known to be down."""
    return all(limits.is_limited(other.provider) for other in _following(run, route))


def _following(run: _Run, route: Route) -> list[Route]:
    """The routes after this one that are not known to be down."""
    places = [place for place, other in enumerate(run.plan.routes) if other is route]
    return [
        other
        for other in run.plan.routes[places[0] + 1 :]
        if run.tools.breakers.state(circuit(other.provider)) != OPEN
    ]


def _used_tokens(result: Reply | RoutingError | None) -> int | None:
    """Tokens that a call has used; None where nobody knows."""
    if isinstance(result, Reply):
        return limits.used_tokens(result.usage)
    if isinstance(result, ProviderError):
        used, was_refused = limits.used_tokens(result.usage), _cost_of_failure(result) is not None
        return 0 if used is None and was_refused else used
    return None if result is None else 0


def _affordable(run: _Run, call: Call) -> RoutingError | None:
    """Why no budget pays for the call, or None."""
    number = len(run.attempts) + 1
    return budgets.refusal(run.plan, call, number, run.request.user_id, run.tools.reserve)


def _called(run: _Run, call: Call, timeout: float) -> Reply:
    until = time.monotonic() + timeout
    speaker = codec(call.route, call.capability)
    reply = speaker.decode(_answer(run, speaker, call, timeout), call)
    if reply.artifact_url is not None:
        left = until - time.monotonic()
        reply = attachments.downloaded(reply, call.route.provider, run.tools.transport, seconds=left)
    schema = prompts.output_schema(run.plan.feature)
    return reply if schema is None else outputs.checked(reply, schema)


def _answer(run: _Run, speaker: Codec, call: Call, timeout: float) -> HttpResponse:
    """The provider's answer. The key lives in this frame and the next only, and not in what they return."""
    tools, provider = run.tools, call.route.provider
    key = unsealed(tools.vault, call.route)
    request = speaker.encode(call, key)
    tools.budget.called(provider.id)
    stream = streaming.stream_of(call.route) if call.is_streamed else None
    if run.narrator is not None:
        last = run.attempts[-1].error_class if run.attempts else "the worker died"
        run.narrator.begin(f"The last try failed ({last}).")
        if stream is not None:
            asked = stream.asked(request, call.route)
            return scrubbed(_told(run.narrator, tools.transport, asked, stream, timeout, provider, key), key)
    most = MAX_BODY if call.capability in _BULKY else MAX_TEXT
    return scrubbed(tools.transport.send(request, timeout=timeout, provider=provider, max_body=most), key)


def _told(
    narrator: Narrator,
    transport: Transport,
    request: HttpRequest,
    stream: Stream,
    timeout: float,
    provider: Provider,
    key: str | None,
) -> HttpResponse:
    """The answer as if it had come at once, told as it comes. One that does not stream after all is not."""
    reader, folding = EventReader(), stream.folding()
    events = 0

    def tell(found: Iterable[ServerEvent]) -> None:
        nonlocal events
        for event in found:
            events += 1
            text = folding.add(event)
            if text:
                narrator.say(text if key is None else text.replace(key, "[key]"))

    response = transport.send(
        request, timeout=timeout, provider=provider, heard=lambda piece: tell(reader.feed(piece))
    )
    tell(reader.end())
    if not events:
        return response
    return replace(response, body=folding.whole())


def unsealed(vault: Vault, route: Route) -> str | None:
    """The key of a route: the caller's own where the resolver chose it, else the provider's."""
    provider, own = route.provider, route.personal_key
    if own is not None:
        what, table, row = f"Your own key for provider {provider.slug!r}", "admin_provider_settings", own.id
        sealed, version = own.sealed_key, own.key_version
    else:
        what, table, row = f"The key of provider {provider.slug!r}", "ai_providers", provider.id
        sealed, version = provider.sealed_key, provider.key_version
    if sealed is None:
        return None
    try:
        return vault.open(sealed, table=table, row=str(row), field="api_key", version=version)
    except VaultError as error:
        raise ConfigurationError(f"{what} cannot be opened. {error}") from None


def _composed(run: _Run, route: Route) -> Call:
    """The call for this route. Raises also where its protocol cannot serve the feature at all."""
    codec(route, Capability.VISION if run.attached.images else run.plan.feature.capability)
    call = prompts.compose(run.plan.feature, run.plan.assignment, route, run.request, run.attached)
    return _refusals.applied(replace(call, is_streamed=_is_told(run, call)))


def _is_told(run: _Run, call: Call) -> bool:
    """Whether the answer is told while it is written: not one that is checked as a whole."""
    writes = call.capability in (Capability.TEXT, Capability.VISION)
    return run.narrator is not None and writes and prompts.output_schema(run.plan.feature) is None


# --- decisions ----------------------------------------------------------------------------------------


def _stopped(run: _Run) -> RoutingError | None:
    """Why no further call may begin, or None."""
    left = run.seconds_left()
    if left is not None and left <= 0:
        return _out_of_time(run)
    if not run.tools.still_ours():
        return LeaseLost("The job was cancelled, or another worker has taken it over.")
    return None


def _timeout(run: _Run, route: Route) -> float:
    """Seconds for the next call: the assignment's, else the provider's, else 60; the deadline bounds all, and
    a provider that hangs leaves a third of the time until then to the routes that follow."""
    timeout = run.plan.assignment.timeout_seconds or route.provider.timeout_seconds or _TIMEOUT
    left = run.seconds_left()
    if left is None:
        return timeout
    return max(0.001, min(timeout, left * _SHARE if _following(run, route) else left))


def _wait_before_retry(run: _Run, route: Route, error: RoutingError, retries: int) -> float | None:
    """Seconds until the same route is tried again, or None: it is not."""
    if not isinstance(error, ProviderError) or retries >= min(run.plan.assignment.max_retries, 1):
        return None
    wanted = error.retries_route if error.should_retry is None else error.should_retry
    backoff = 0.5 * 2**retries * random.uniform(0.75, 1.25)  # noqa: S311 - spreads load, guards nothing
    wait = backoff if error.retry_after is None else error.retry_after
    if isinstance(error, RateLimited) and error.retry_after is None:
        wait = PAUSE_SECONDS  # the route rests that long
    left = run.seconds_left()
    if not wanted or wait > _LONGEST_WAIT or (left is not None and wait >= left):
        return None
    if left is not None and isinstance(error, TimedOut) and _following(run, route):
        return None  # what is left is theirs
    return wait if run.tools.budget.take(route.provider.id) else None


# --- results ------------------------------------------------------------------------------------------


def _telling(run: _Run) -> RoutingError:
    """Of the routes' errors the one to tell: what stopped the run, else the first that may pass, else the
    first."""
    stops = [error for error in run.errors if isinstance(error, LeaseLost | DeadlinePassed)]
    passing = [error for error in run.errors if error.retryable]
    left = run.seconds_left()
    if not stops and passing and left is not None and left <= 0:
        stops = [_out_of_time(run)]
    return [*stops, *passing, *run.errors][0]


def _out_of_time(run: _Run) -> DeadlinePassed:
    last = run.attempts[-1].error_message if run.attempts else None
    return DeadlinePassed(f"The job's deadline has passed.{f' Last error: {last}' if last else ''}")


def _no_route(plan: Plan) -> RoutingError:
    passed = plan.passed_over
    reasons = " ".join(
        f"{over.provider or 'unknown provider'}/{over.model or over.model_id}: {over.reason}"
        for over in passed
    )
    classes = {over.error_class for over in passed}
    kind: type[RoutingError] = ConfigurationError
    if classes == {NoAccess.error_class}:
        kind = NoAccess
    elif classes and classes <= {NoAccess.error_class, LimitSpent.error_class}:
        kind = LimitSpent
    return kind(
        f"No route can serve feature {plan.feature.name!r}. "
        f"{reasons or 'Its assignment has no targets; add a model.'}"
    )


def _failed(run: _Run, error: RoutingError) -> Outcome:
    waits = [e.retry_after for e in run.errors if e.retry_after is not None]
    return Outcome(
        tuple(run.attempts),
        error_class=error.error_class,
        error_message=error.message,
        retryable=error.retryable,
        retry_after=min(waits, default=None),
        is_wait=error.retryable
        and any(e.is_wait for e in run.errors)
        and not any(attempt.called for attempt in run.attempts),
    )


class _Stopwatch:
    def __init__(self) -> None:
        self.started_at = datetime.now(UTC)
        self._start = time.monotonic()

    def milliseconds(self) -> int:
        return round((time.monotonic() - self._start) * 1000)


def _record_refusal(run: _Run, route: Route, error: RoutingError) -> None:
    """A route that could not even be called."""
    state = run.tools.breakers.state(circuit(route.provider))
    run.attempts.append(_attempt(run, route, _Stopwatch(), breaker=state, error=error))


def _attempt(
    run: _Run,
    route: Route,
    watch: _Stopwatch,
    *,
    breaker: str,
    reply: Reply | None = None,
    error: RoutingError | None = None,
) -> Attempt:
    answered = error if isinstance(error, ProviderError) else None
    called = reply is not None or answered is not None
    usage = reply.usage if reply else answered.usage if answered else None
    return Attempt(
        n=len(run.attempts) + 1,
        route=route,
        started_at=watch.started_at,
        finished_at=datetime.now(UTC),
        latency_ms=watch.milliseconds() if called else 0,
        outcome=AttemptOutcome.FAILED if reply is None else AttemptOutcome.SUCCEEDED,
        called=called,
        breaker=breaker,
        error_class=error.error_class if error else None,
        error_message=error.message if error else None,
        status=200 if reply else answered.status if answered else None,
        request_id=reply.request_id if reply else answered.request_id if answered else None,
        served_model=reply.served_model if reply else None,
        usage=usage or Usage(),
        cost_usd=cost_of(usage, answered, route),
    )


def cost_of(usage: Usage | None, error: ProviderError | None, route: Route) -> Decimal | None:
    """What a call cost that had this usage, or this error; None = unknown."""
    return pricing.cost(usage, route.price) if usage else _cost_of_failure(error)


def _cost_of_failure(error: ProviderError | None) -> Decimal | None:
    """Nothing where no call was made or the provider refused it; unknown where it may have worked, and
    billed, before the answer was lost."""
    refused = error is None or not error.sent or (error.status is not None and error.status >= 400)
    return Decimal(0) if refused else None
