"""How much of a provider may be used: requests and tokens per minute, calls at the same time.

Rates are kept by GCRA (the leaky bucket of ATM networks): all that is stored of a limit is the instant at
which its units would be used up at the even rate. With an interval T = minute / (limit - burst) and a burst
that may come at once, no minute ever holds more than the limit, wherever it begins. A hundredth is kept
back for calls that are delayed on their way to the provider, which would otherwise fall into the minute of
others.

A call that is not let through is told when its turn will be, and no thread waits for it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol
from uuid import UUID

from routing import budgets
from routing.errors import RateWait
from routing.values import Call, Provider, Usage

MINUTE = 60.0
LONGEST_WAIT_SECONDS = 300.0
"""What a call is told to wait at most."""

_REQUEST_BURST = 0.03  # of the limit
_TOKEN_BURST = 0.1  # calls differ in size
_KEPT_BACK = 0.01
_LONELY = 1.02  # where the limit is one, the second must not come exactly a minute later


@dataclass(frozen=True, slots=True)
class Rate:
    """Units that may come at once, and the seconds between two units beyond that."""

    interval: float
    burst: int

    @classmethod
    def of(cls, limit: int, share: float, *, minute: float, processes: int = 1) -> Rate:
        """The rate of one of several processes which together keep to the limit."""
        burst = max(1, int(limit * share) // processes)
        even = limit - burst * processes - int(limit * _KEPT_BACK)
        return cls(minute * processes / even if even > 0 else minute * processes * _LONELY, burst)

    def ready_at(self, used_up: float, units: int = 1) -> float:
        """When so many units may come; more than a burst of them once nothing is left of what came before."""
        return used_up - max(0, self.burst - units) * self.interval


def request_rate(provider: Provider, *, minute: float, processes: int = 1) -> Rate | None:
    """None where the provider's requests are unlimited."""
    limit = provider.requests_per_minute
    return Rate.of(limit, _REQUEST_BURST, minute=minute, processes=processes) if limit else None


def token_rate(provider: Provider, *, minute: float, processes: int = 1) -> Rate | None:
    """None where the provider's tokens are unlimited."""
    limit = provider.tokens_per_minute
    return Rate.of(limit, _TOKEN_BURST, minute=minute, processes=processes) if limit else None


class Ticket(Protocol):
    """Leave to make one call of a limited provider."""

    def ended(self, tokens: int | None) -> None:
        """The call is over and has used so many tokens; None: as many as were reserved. Call it once."""


class Limits(Protocol):
    """Keeps to the limits of providers."""

    def take(self, call: Call, *, seconds: float, is_last: bool) -> Ticket:
        """Leave for a call of a limited provider, of at most `seconds`.

        Raises RateWait. `is_last`: the job has no other route, so its wait is given a place in the line.
        """


def is_limited(provider: Provider) -> bool:
    """Whether calls of the provider have to ask."""
    return bool(provider.requests_per_minute or provider.tokens_per_minute or provider.max_concurrency)


def expected_tokens(call: Call) -> int:
    """What a call may use, by estimate."""
    most = budgets.at_most(call)
    return (most.input_tokens or 0) + (most.output_tokens or 0)


def used_tokens(usage: Usage | None) -> int | None:
    """What a call has used; None where the provider did not say."""
    if usage is None or (usage.input_tokens is None and usage.output_tokens is None):
        return None
    return (usage.input_tokens or 0) + (usage.output_tokens or 0)


def wait(provider: Provider, seconds: float) -> RateWait:
    """What a call is told that has to wait."""
    limits = {
        "requests a minute": provider.requests_per_minute,
        "tokens a minute": provider.tokens_per_minute,
        "calls at a time": provider.max_concurrency,
    }
    allowed = " and ".join(f"{limit:,} {what}" for what, limit in limits.items() if limit)
    until = datetime.now(UTC) + timedelta(seconds=seconds)
    return RateWait(
        f"Provider {provider.slug!r} is limited to {allowed}. It is passed over until {until:%H:%M:%S} UTC.",
        retry_after=seconds,
    )


@dataclass(slots=True)
class _Used:
    """Instants at which requests and tokens are used up, and the calls that run."""

    requests: float
    tokens: float
    running: int = 0


class ProcessLimits:
    """The limits of a process that is on its own, or shares them by halves with others that it cannot ask.

    Args:
        minute: seconds; tests have shorter ones.
        clock: monotonic seconds.
    """

    def __init__(self, *, minute: float = MINUTE, clock: Callable[[], float] = time.monotonic) -> None:
        self.processes = 1
        self._minute = minute
        self._clock = clock
        self._lock = threading.Lock()
        self._used: dict[UUID, _Used] = {}

    def take(self, call: Call, *, seconds: float, is_last: bool) -> Ticket:
        """Leave for a call, out of this process's share. Raises RateWait."""
        provider = call.route.provider
        requests = request_rate(provider, minute=self._minute, processes=self.processes)
        tokens = token_rate(provider, minute=self._minute, processes=self.processes)
        most = provider.max_concurrency and max(1, provider.max_concurrency // self.processes)
        reserved = expected_tokens(call) if tokens else 0
        with self._lock:
            now = self._clock()
            used = self._used.get(provider.id) or self._begun(provider.id, now, requests, tokens, reserved)
            ready = max(
                now,
                requests.ready_at(used.requests) if requests else now,
                tokens.ready_at(used.tokens, reserved) if tokens else now,
            )
            if ready > now or (most and used.running >= most):
                raise wait(provider, min(max(ready - now, 1.0), LONGEST_WAIT_SECONDS))
            if requests:
                used.requests = max(used.requests, now) + requests.interval
            if tokens:
                used.tokens = max(used.tokens, now) + reserved * tokens.interval
            used.running += 1
        return _Ticket(self, provider.id, reserved, tokens.interval if tokens else 0.0)

    def settle(self, provider_id: UUID, difference: float) -> None:
        """A call is over, which used more tokens than were reserved, by so many seconds of their rate."""
        with self._lock:
            used = self._used[provider_id]
            used.running -= 1
            used.tokens += difference

    def _begun(
        self, provider_id: UUID, now: float, requests: Rate | None, tokens: Rate | None, reserved: int
    ) -> _Used:
        """What came before is unknown: there is room for this call, and no burst."""
        self._used[provider_id] = _Used(
            now + (requests.burst - 1) * requests.interval if requests else now,
            now + max(0, tokens.burst - reserved) * tokens.interval if tokens else now,
        )
        return self._used[provider_id]


@dataclass(frozen=True, slots=True)
class _Ticket:
    limits: ProcessLimits
    provider_id: UUID
    reserved: int
    interval: float

    def ended(self, tokens: int | None) -> None:
        difference = 0 if tokens is None else tokens - self.reserved
        self.limits.settle(self.provider_id, difference * self.interval)
