"""What rests after a provider's refusal, and for how long. Nothing of it counts against the breaker: a
provider that refuses is well.

    rate_limited    the route: key and model        until retry-after, 5 s where none was said; 10 min at most
    quota           the key                         5 min, doubled each time in a row; 1 h at most
    auth            the key; at 403 with the model  1 min, doubled each time in a row; 1 h at most
    not_found       the model, with its voice       10 min

After the pause of a 429 each process lets one call go ahead, and all of them once it succeeded, or was not
refused within a second: else all threads would run into the next 429 together.

A key that is replaced, a model that is renamed or an address that is changed is another thing, and rests no
more. What one process notes the others learn beside their calls; a call only looks into memory.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Protocol
from uuid import UUID, uuid5

from routing.breaker import circuit
from routing.errors import (
    AuthFailed,
    KeyRefused,
    KeySpent,
    ModelMissing,
    NotFound,
    ProviderError,
    QuotaExhausted,
    RateLimited,
    RateWait,
    RoutingError,
)
from routing.values import Call, Route

PAUSE_SECONDS = 5.0
"""How long a route rests after a 429 that does not say."""

_REMEMBERED_SECONDS = 7200.0  # that something rested, for the next time to last longer
_MOST_PAUSE_SECONDS = 600.0
_TRIAL_SECONDS = 1.0
_AWAITED_SECONDS = 60.0  # how long after a pause its first call still goes ahead of the others


@dataclass(frozen=True, slots=True)
class _Ladder:
    """Seconds of the first rest in a row, and of the longest."""

    first: float
    most: float

    def seconds(self, times: int) -> float:
        return min(self.first * 2.0 ** min(times - 1, 32), self.most)


_LADDERS: dict[str, _Ladder] = {
    QuotaExhausted.error_class: _Ladder(300, 3600),
    AuthFailed.error_class: _Ladder(60, 3600),
    NotFound.error_class: _Ladder(600, 600),
}


def remembered_seconds(error_class: str) -> float:
    """How long after its end a rest still tells how long the next one is."""
    ladder = _LADDERS.get(error_class)
    return _REMEMBERED_SECONDS if ladder and ladder.first < ladder.most else 0.0


@dataclass(frozen=True, slots=True)
class Cooldown:
    """Something that rests, `seconds` from now on, for the `times`-th time in a row. `scope` names it, the
    others are for people: `model` is None where all models of the key rest."""

    scope: str
    error_class: str
    seconds: float
    times: int
    provider_id: UUID
    model: str | None


class Board(Protocol):
    """Where the other processes learn of it. Returns at once, never raises."""

    def rests(self, cooldown: Cooldown) -> None:
        """Something begins to rest."""

    def works(self, scope: str) -> None:
        """What rested before works again."""


class Cooldowns:
    """What rests, as far as this process knows. Thread-safe.

    Args:
        board: tells the other processes.
        clock: monotonic seconds.
    """

    def __init__(self, *, board: Board | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._board = board
        self._clock = clock
        self._lock = threading.Lock()
        self._resting: dict[str, _Rest] = {}

    def check(self, route: Route, voice: str | None) -> None:
        """Raises what the call would come to while its key, its model or both together rest."""
        if not self._resting:
            return
        now = self._clock()
        for scope in _scopes(route, voice).all:
            rest = self._resting.get(scope)
            if rest is not None and now >= rest.until and rest.is_pause:
                rest = self._try_out(scope, now)
            if rest is not None and now < rest.until:
                raise _refusal(rest.cooldown.error_class, route, rest.until - now)

    def _try_out(self, scope: str, now: float) -> _Rest | None:
        """What still keeps the call back: None for the one that goes ahead, and for all after the trial."""
        with self._lock:
            rest = self._resting.get(scope)
            if rest is None or now < rest.until:
                return rest
            if rest.is_trial:
                del self._resting[scope]
            else:
                self._resting[scope] = _Rest(now + _TRIAL_SECONDS, rest.cooldown, is_trial=True)
            return None

    def refused(self, call: Call, error: ProviderError) -> None:
        """Take note of a call that failed. Calls that had begun before something rested change nothing."""
        scope = _scope(call, error)
        if scope is None:
            return
        with self._lock:
            now = self._clock()
            known = self._resting.get(scope)
            times = known.cooldown.times + 1 if known else 1
            if isinstance(error, RateLimited):
                said = PAUSE_SECONDS if error.retry_after is None else error.retry_after
                seconds = min(said, _MOST_PAUSE_SECONDS)
            else:
                seconds = _LADDERS[error.error_class].seconds(times)
            is_longer = isinstance(error, RateLimited) and known and known.until < now + seconds
            rests = known and now < known.until and not known.is_trial
            if seconds <= 0 or (rests and not is_longer):
                return
            whole_key = scope == _scopes(call.route, call.voice).key
            cooldown = Cooldown(
                scope,
                error.error_class,
                seconds,
                times,
                call.route.provider.id,
                None if whole_key else call.route.model.model_id,
            )
            self._resting[scope] = _Rest(now + seconds, cooldown)
            self._forget_old(now)
        if self._board is not None:
            self._board.rests(cooldown)

    def answered(self, call: Call) -> None:
        """Take note of a call that succeeded: what rested until then begins anew the next time."""
        if not self._resting:
            return
        for scope in _scopes(call.route, call.voice).all:
            if self.works(scope) and self._board is not None:
                self._board.works(scope)

    def works(self, scope: str) -> bool:
        """Forget that something rested, unless it still does; whether there was anything to forget."""
        with self._lock:
            rest = self._resting.get(scope)
            if rest is None or (self._clock() < rest.until and not rest.is_trial):
                return False
            del self._resting[scope]
            return True

    def merge(self, cooldown: Cooldown) -> None:
        """Take over what another process noted."""
        with self._lock:
            until = self._clock() + cooldown.seconds
            known = self._resting.get(cooldown.scope)
            if known is None or known.until < until:
                self._resting[cooldown.scope] = _Rest(until, cooldown)
            self._forget_old(self._clock())

    def _forget_old(self, now: float) -> None:
        for scope, rest in list(self._resting.items()):
            remembered = max(_AWAITED_SECONDS, remembered_seconds(rest.cooldown.error_class))
            if rest.until + remembered < now:
                del self._resting[scope]


@dataclass(frozen=True, slots=True)
class _Rest:
    until: float
    cooldown: Cooldown
    is_trial: bool = False

    @property
    def is_pause(self) -> bool:
        return self.cooldown.error_class == RateLimited.error_class


@dataclass(frozen=True, slots=True)
class _Scopes:
    key: str
    route: str
    model: str

    @property
    def all(self) -> tuple[str, str, str]:
        return self.key, self.route, self.model


def _scopes(route: Route, voice: str | None) -> _Scopes:
    own = route.personal_key
    return _named(
        circuit(route.provider),
        f"{own.id if own else 'shared'}/{route.key_version}",
        f"{route.model.id}/{route.model.model_id}",
        voice or "",
    )


@lru_cache(maxsize=1024)
def _named(address: UUID, key: str, model: str, voice: str) -> _Scopes:
    return _Scopes(
        key=f"key:{uuid5(address, key)}",
        route=f"route:{uuid5(address, f'{key}/{model}')}",
        model=f"model:{uuid5(address, f'{model}/{voice}')}",
    )


def _scope(call: Call, error: ProviderError) -> str | None:
    scopes = _scopes(call.route, call.voice)
    match error:
        case RateLimited():
            return scopes.route
        case QuotaExhausted():
            return scopes.key
        case AuthFailed():  # what is forbidden (403) is often one model only
            return scopes.route if error.status == 403 else scopes.key
        case NotFound():
            return scopes.model
    return None


def _refusal(error_class: str, route: Route, left: float) -> RoutingError:
    until = f"{datetime.now(UTC) + timedelta(seconds=left):%H:%M:%S} UTC"
    provider, model = f"Provider {route.provider.slug!r}", f"Model {route.model.model_id!r}"
    if error_class == QuotaExhausted.error_class:
        return KeySpent(
            f"{provider} said that the quota of its key is used up. The key is passed over until {until}; "
            "raise the quota there, or store another key."
        )
    if error_class == AuthFailed.error_class:
        return KeyRefused(
            f"{provider} refused its key. The key is passed over until {until}; store a valid one."
        )
    if error_class == NotFound.error_class:
        return ModelMissing(
            f"{model} is unknown to provider {route.provider.slug!r}. It is passed over until {until}; "
            "correct its name, or assign another."
        )
    return RateWait(f"{provider} asked for a pause. {model} is passed over until {until}.", retry_after=left)
