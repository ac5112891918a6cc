"""Circuit breakers: who may call a provider that has been failing.

pybreaker keeps the state machine (closed, open, half-open, the count of failures in a row) and tells
listeners. Admission is ours, because pybreaker's own ways are unfit for long calls in many threads:
`call()` holds its lock for the whole call, so calls to a provider would run one after the other, and
`calling()` lets every waiting thread through once half-open. Here a lock is held only to look and to
report:

    permit = breakers.admit(provider.id, probe_seconds=timeout)     # CircuitOpen while the provider is down
    ...the call...
    permit.succeeded() | permit.failed(error) | permit.abandoned()

pybreaker reads the wall clock for its cool-down; ours runs on the monotonic clock, and pybreaker is only
fed while closed or half-open, so its `reset_timeout` never comes into play.

State is per process, and a `Fleet` carries what changes to the others: openings and closings go out and
come in beside the calls, and only who is about to probe asks first, for one probe is enough for all. So a
healthy call asks nobody, and where the fleet cannot be reached each process goes on by itself.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol, TypeAlias
from uuid import UUID, uuid5

import pybreaker

from routing.errors import CircuitOpen, ProviderError, RoutingError
from routing.values import Provider

CLOSED, OPEN, HALF_OPEN = "closed", "open", "half_open"

OnChange: TypeAlias = Callable[[UUID, str, str], None]

_FAILURES_IN_A_ROW = 5
_WINDOW = 30.0  # seconds
_WINDOW_CALLS = 20  # fewer say nothing about a rate
_PROBE_GRACE = 5.0  # seconds that a probe's permit outlives its deadline
_ASK_AGAIN = 1.0  # seconds until a process asks again whether it may probe
_TESTING = "The provider kept failing; one call is just testing whether it is back."
_NAMES = {
    pybreaker.STATE_CLOSED: CLOSED,
    pybreaker.STATE_OPEN: OPEN,
    pybreaker.STATE_HALF_OPEN: HALF_OPEN,
}


def circuit(provider: Provider) -> UUID:
    """Which breaker: a provider that was given another address starts with a closed one."""
    return circuit_at(provider.id, provider.base_url)


@lru_cache(maxsize=1024)
def circuit_at(provider_id: UUID, base_url: str) -> UUID:
    """The breaker of a provider at an address."""
    return uuid5(provider_id, base_url)


class Fleet(Protocol):
    """The other processes. None of this raises, and only `take_probe` may take time: half a second."""

    def opened(self, circuit_id: UUID, seconds: float, probe: str) -> None:
        """Ours has opened for so long, which ends the `probe`, if there was one."""

    def closed(self, circuit_id: UUID, probe: str) -> None:
        """Our probe succeeded."""

    def take_probe(self, circuit_id: UUID, seconds: float) -> str | None:
        """The right to probe, for all and for so long: its name, or None where somebody else has it."""

    def gave_back(self, circuit_id: UUID, probe: str) -> None:
        """Our probe came to nothing; another may be made at once."""


class Alone:
    """The fleet of one process."""

    def opened(self, circuit_id: UUID, seconds: float, probe: str) -> None:
        """Nobody to tell."""

    def closed(self, circuit_id: UUID, probe: str) -> None:
        """Nobody to tell."""

    def take_probe(self, circuit_id: UUID, seconds: float) -> str | None:
        """Nobody else would."""
        return ""

    def gave_back(self, circuit_id: UUID, probe: str) -> None:
        """Nobody to tell."""


class Permit:
    """Leave to make one call. Report once how it ended; later reports are ignored.

    `state` is the breaker's at admission: `closed`, or `half_open` for the probe.
    """

    def __init__(self, circuit: _Circuit, state: str, epoch: int) -> None:
        self.state = state
        self._circuit = circuit
        self._epoch = epoch
        self._open = True

    def succeeded(self) -> None:
        """The provider answered."""
        self._report(True)

    def failed(self, error: RoutingError) -> None:
        """The call failed. Only errors that trip the breaker count against the provider; an answer such as
        400, 401 or 429 proves it alive; anything else (no call was made) says nothing."""
        if error.trips_breaker:
            self._report(False)
        elif isinstance(error, ProviderError) and error.status is not None:
            self._report(True)
        else:
            self.abandoned()

    def abandoned(self) -> None:
        """No verdict: the next caller may probe instead."""
        self._report(None)

    def _report(self, verdict: bool | None) -> None:
        if self._open:
            self._open = False
            self._circuit.report(self._epoch, verdict)


class Breakers:
    """The breakers of a process, one per provider, made on first use.

    Args:
        cooldown: seconds between opening and the probe.
        on_change: told (circuit, old state, new state), outside of every lock, of what this process's own
            calls changed.
        fleet: the other processes.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        *,
        cooldown: float = 30.0,
        on_change: OnChange | None = None,
        fleet: Fleet | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cooldown = cooldown
        self._on_change = on_change
        self._fleet = fleet or Alone()
        self._clock = clock
        self._lock = threading.Lock()
        self._circuits: dict[UUID, _Circuit] = {}

    def admit(self, provider_id: UUID, *, probe_seconds: float) -> Permit:
        """Leave to call the provider now, for at most `probe_seconds`.

        Raises CircuitOpen while it is down, or while another caller probes it.
        """
        return self._circuit(provider_id).admit(probe_seconds)

    def state(self, provider_id: UUID) -> str:
        """`closed`, `open` or `half_open`, for display."""
        with self._lock:
            circuit = self._circuits.get(provider_id)
        return circuit.state if circuit else CLOSED

    def merge(self, circuit_id: UUID, state: str, seconds: float) -> None:
        """Take over from the fleet that a breaker opened, `seconds` before its next probe, or closed."""
        self._circuit(circuit_id).merge(state, seconds)

    def _circuit(self, provider_id: UUID) -> _Circuit:
        with self._lock:
            if provider_id not in self._circuits:
                self._circuits[provider_id] = _Circuit(
                    provider_id, self._cooldown, self._clock, self._on_change, self._fleet
                )
            return self._circuits[provider_id]


class _Circuit(pybreaker.CircuitBreakerListener):
    """One provider's breaker.

    `epoch` counts the changes of state. A result is worth something only in the epoch it was admitted in: a
    call that began before the breaker opened must neither close it nor keep it open for longer.
    """

    def __init__(
        self,
        provider_id: UUID,
        cooldown: float,
        clock: Callable[[], float],
        on_change: OnChange | None,
        fleet: Fleet,
    ) -> None:
        self._provider_id = provider_id
        self._cooldown = cooldown
        self._clock = clock
        self._on_change = on_change
        self._fleet = fleet
        self._lock = threading.Lock()
        self._breaker = pybreaker.CircuitBreaker(
            fail_max=_FAILURES_IN_A_ROW, listeners=[self], throw_new_error_on_trip=False
        )
        self._epoch = 0
        self._retry_at = 0.0
        self._probe = ""
        self._probe_until: float | None = None  # while one asks for the probe, or makes it
        self._window = _Window()
        self._changes: list[tuple[str, str]] = []

    @property
    def state(self) -> str:
        return _NAMES[self._breaker.current_state]

    def admit(self, probe_seconds: float) -> Permit:
        with self._lock:
            if self.state == CLOSED:
                return Permit(self, CLOSED, self._epoch)
            self._refuse_unless_due()
            self._probe_until = self._clock() + probe_seconds + _PROBE_GRACE  # the others need not ask
        probe = self._fleet.take_probe(self._provider_id, probe_seconds + _PROBE_GRACE)
        with self._lock:
            permit = self._admitted(probe, probe_seconds)
            changes = self._drained()
        if probe is not None and permit.state == CLOSED:
            self._fleet.gave_back(self._provider_id, probe)
        self._tell(changes)
        return permit

    def report(self, epoch: int, verdict: bool | None) -> None:
        with self._lock:
            probe, is_probe = self._probe, self.state == HALF_OPEN and epoch == self._epoch
            if epoch == self._epoch:
                self._judge(verdict)
            changes = self._drained()
        if is_probe and verdict is None:
            self._fleet.gave_back(self._provider_id, probe)
        for _, new in changes:
            if new == OPEN:
                self._fleet.opened(self._provider_id, self._cooldown, probe)
            else:
                self._fleet.closed(self._provider_id, probe)
        self._tell(changes)

    def merge(self, state: str, seconds: float) -> None:
        """What the fleet found. A probe of our own that is under way knows better than an opening."""
        with self._lock:
            if state == CLOSED and self.state != CLOSED:
                self._breaker.close()
            elif state == OPEN and self.state != HALF_OPEN:
                if self.state == CLOSED:
                    self._breaker.open()
                self._retry_at = self._clock() + seconds
            self._drained()

    def state_change(
        self,
        cb: pybreaker.CircuitBreaker,
        old_state: pybreaker.CircuitBreakerState | None,
        new_state: pybreaker.CircuitBreakerState,
    ) -> None:
        """pybreaker's listener hook; runs under our lock."""
        self._epoch += 1
        self._probe_until = None
        self._window = _Window()
        if new_state.name == pybreaker.STATE_OPEN:
            self._retry_at = self._clock() + self._cooldown
        old = _NAMES[old_state.name] if old_state else CLOSED
        self._changes.append((old, _NAMES[new_state.name]))

    def _refuse_unless_due(self) -> None:
        now = self._clock()
        if self._probe_until is not None and now < self._probe_until:
            raise CircuitOpen(_TESTING)
        if self.state == OPEN and now < self._retry_at:
            wait = self._retry_at - now
            message = f"The provider keeps failing; it is tried again in {wait:.0f} s."
            raise CircuitOpen(message, retry_after=wait)

    def _admitted(self, probe: str | None, probe_seconds: float) -> Permit:
        if self.state == CLOSED:  # somebody else's probe succeeded while we asked
            return Permit(self, CLOSED, self._epoch)
        if probe is None:
            self._probe_until = self._clock() + _ASK_AGAIN
            raise CircuitOpen(_TESTING)
        self._breaker.half_open()  # a new epoch, also where a lost probe's permit ran out
        self._probe = probe
        self._probe_until = self._clock() + probe_seconds + _PROBE_GRACE
        return Permit(self, HALF_OPEN, self._epoch)

    def _judge(self, verdict: bool | None) -> None:
        if verdict is None:
            self._probe_until = None
            return
        with suppress(_FailedCall):
            self._breaker.call(_replay, verdict)
        if self.state == CLOSED and self._window.add(self._clock(), verdict):
            self._breaker.open()

    def _drained(self) -> list[tuple[str, str]]:
        changes, self._changes = self._changes, []
        return [(old, new) for old, new in changes if old != new]

    def _tell(self, changes: list[tuple[str, str]]) -> None:
        if self._on_change is not None:
            for old, new in changes:
                self._on_change(self._provider_id, old, new)


class _FailedCall(Exception):
    """Stands for a provider's error inside pybreaker, which would otherwise keep the traceback alive."""


def _replay(succeeded: bool) -> None:
    """What pybreaker watches in place of the call, which is over."""
    if not succeeded:
        raise _FailedCall


@dataclass(slots=True)
class _Second:
    start: float
    calls: int = 0
    failures: int = 0


@dataclass(slots=True)
class _Window:
    """Calls and failures of the last 30 s, by the second."""

    _seconds: deque[_Second] = field(default_factory=deque)

    def add(self, now: float, succeeded: bool) -> bool:
        """Count one call; True if this failure makes at least half of at least twenty."""
        while self._seconds and self._seconds[0].start <= now - _WINDOW:
            self._seconds.popleft()
        if not self._seconds or now - self._seconds[-1].start >= 1:
            self._seconds.append(_Second(now))
        self._seconds[-1].calls += 1
        self._seconds[-1].failures += not succeeded
        calls = sum(second.calls for second in self._seconds)
        failures = sum(second.failures for second in self._seconds)
        return not succeeded and calls >= _WINDOW_CALLS and 2 * failures >= calls
