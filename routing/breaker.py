"""Circuit breakers: who may call a provider that has been failing.

pybreaker keeps the state machine (closed, open, half-open, the count of failures in a row) and tells
listeners. Admission is ours, because pybreaker's own ways are unfit for long calls in many threads:
`call()` holds its lock for the whole call, so calls to a provider would run one after the other, and
`calling()` lets every waiting thread through once half-open. Here a lock is held only to look and to report:

    permit = breakers.admit(provider.id, probe_seconds=timeout)     # CircuitOpen while the provider is down
    ...the call...
    permit.succeeded() | permit.failed(error) | permit.abandoned()

pybreaker reads the wall clock for its cool-down; ours runs on the monotonic clock, and pybreaker is only fed
while closed or half-open, so its `reset_timeout` never comes into play. State is per process.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeAlias
from uuid import UUID

import pybreaker

from routing.errors import CircuitOpen, ProviderError, RoutingError

CLOSED, OPEN, HALF_OPEN = "closed", "open", "half_open"

OnChange: TypeAlias = Callable[[UUID, str, str], None]

_FAILURES_IN_A_ROW = 5
_WINDOW = 30.0  # seconds
_WINDOW_CALLS = 20  # fewer say nothing about a rate
_PROBE_GRACE = 5.0  # seconds that a probe's permit outlives its deadline
_NAMES = {
    pybreaker.STATE_CLOSED: CLOSED,
    pybreaker.STATE_OPEN: OPEN,
    pybreaker.STATE_HALF_OPEN: HALF_OPEN,
}


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
        on_change: told (provider id, old state, new state), outside of every lock.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        *,
        cooldown: float = 30.0,
        on_change: OnChange | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cooldown = cooldown
        self._on_change = on_change
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

    def _circuit(self, provider_id: UUID) -> _Circuit:
        with self._lock:
            if provider_id not in self._circuits:
                self._circuits[provider_id] = _Circuit(
                    provider_id, self._cooldown, self._clock, self._on_change
                )
            return self._circuits[provider_id]


class _Circuit(pybreaker.CircuitBreakerListener):
    """One provider's breaker.

    `epoch` counts the changes of state. A result is worth something only in the epoch it was admitted in: a
    call that began before the breaker opened must neither close it nor keep it open for longer.
    """

    def __init__(
        self, provider_id: UUID, cooldown: float, clock: Callable[[], float], on_change: OnChange | None
    ) -> None:
        self._provider_id = provider_id
        self._cooldown = cooldown
        self._clock = clock
        self._on_change = on_change
        self._lock = threading.Lock()
        self._breaker = pybreaker.CircuitBreaker(
            fail_max=_FAILURES_IN_A_ROW, listeners=[self], throw_new_error_on_trip=False
        )
        self._epoch = 0
        self._opened_at = 0.0
        self._probe_until: float | None = None
        self._window = _Window()
        self._changes: list[tuple[str, str]] = []

    @property
    def state(self) -> str:
        return _NAMES[self._breaker.current_state]

    def admit(self, probe_seconds: float) -> Permit:
        with self._lock:
            permit = self._admitted(probe_seconds)
            changes = self._drained()
        self._tell(changes)
        return permit

    def report(self, epoch: int, verdict: bool | None) -> None:
        with self._lock:
            if epoch == self._epoch:
                self._judge(verdict)
            changes = self._drained()
        self._tell(changes)

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
            self._opened_at = self._clock()
        old = _NAMES[old_state.name] if old_state else CLOSED
        self._changes.append((old, _NAMES[new_state.name]))

    def _admitted(self, probe_seconds: float) -> Permit:
        state, now = self.state, self._clock()
        if state == CLOSED:
            return Permit(self, CLOSED, self._epoch)
        wait = self._opened_at + self._cooldown - now
        if state == OPEN and wait > 0:
            raise CircuitOpen(f"The provider keeps failing; it is tried again in {wait:.0f} s.")
        if state == HALF_OPEN and self._probe_until is not None and now < self._probe_until:
            raise CircuitOpen("The provider kept failing; one call is just testing whether it is back.")
        self._breaker.half_open()  # a new epoch, also where a lost probe's permit ran out
        self._probe_until = now + probe_seconds + _PROBE_GRACE
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
