from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID, uuid4

import pytest

from routing.breaker import Breakers, Permit
from routing.errors import (
    AuthFailed,
    BadRequest,
    CircuitOpen,
    ConfigurationError,
    ConnectionFailed,
    EmptyReply,
    Overloaded,
    PoolTimedOut,
    RateLimited,
    RoutingError,
    ServerError,
    TimedOut,
)

_ID = uuid4()


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def changes() -> list[tuple[str, str]]:
    return []


@pytest.fixture
def breakers(clock: Clock, changes: list[tuple[str, str]]) -> Breakers:
    return Breakers(clock=clock, on_change=lambda _id, old, new: changes.append((old, new)))


def _admit(breakers: Breakers, provider: UUID = _ID) -> Permit:
    return breakers.admit(provider, probe_seconds=10)


def _fail(breakers: Breakers, times: int = 1, error: RoutingError | None = None) -> None:
    for _ in range(times):
        _admit(breakers).failed(error or ServerError("broken", status=500))


def _opened(breakers: Breakers) -> None:
    _fail(breakers, 5)
    assert breakers.state(_ID) == "open"


def test_five_failures_in_a_row_open_it(
    breakers: Breakers, clock: Clock, changes: list[tuple[str, str]]
) -> None:
    _fail(breakers, 4)
    _admit(breakers).succeeded()
    _fail(breakers, 4)
    assert breakers.state(_ID) == "closed"
    _fail(breakers)
    assert (breakers.state(_ID), changes) == ("open", [("closed", "open")])
    clock.now += 12
    with pytest.raises(CircuitOpen, match="in 18 s"):
        _admit(breakers)
    assert breakers.admit(uuid4(), probe_seconds=1).state == "closed"  # another provider's is its own


@pytest.mark.parametrize(
    "error",
    [Overloaded("x", status=503), ServerError("x", status=500), TimedOut("x"), ConnectionFailed("x")],
)
def test_errors_that_count(breakers: Breakers, error: RoutingError) -> None:
    _fail(breakers, 5, error)
    assert breakers.state(_ID) == "open"


@pytest.mark.parametrize(
    "error",
    [
        BadRequest("x", status=400),
        AuthFailed("x", status=401),
        RateLimited("x", status=429),
        EmptyReply("x", status=200),
        PoolTimedOut("x"),
        ConfigurationError("x"),
    ],
)
def test_errors_that_do_not_count(breakers: Breakers, error: RoutingError) -> None:
    _fail(breakers, 30, error)
    assert breakers.state(_ID) == "closed"


def test_half_of_twenty_calls_in_the_window_open_it(breakers: Breakers) -> None:
    for _ in range(9):
        _fail(breakers)
        _admit(breakers).succeeded()
    _admit(breakers).succeeded()
    assert breakers.state(_ID) == "closed"  # 9 of 19
    _fail(breakers)
    assert breakers.state(_ID) == "open"


def test_old_failures_leave_the_window(breakers: Breakers, clock: Clock) -> None:
    for _ in range(12):
        for _ in range(3):
            _fail(breakers)
            _admit(breakers).succeeded()
        clock.now += 10.5  # at most 18 calls are ever within 30 s
    assert breakers.state(_ID) == "closed"


def test_a_successful_probe_closes_it(
    breakers: Breakers, clock: Clock, changes: list[tuple[str, str]]
) -> None:
    _opened(breakers)
    clock.now += 30
    probe = _admit(breakers)
    assert (probe.state, breakers.state(_ID)) == ("half_open", "half_open")
    with pytest.raises(CircuitOpen, match="testing"):
        _admit(breakers)
    probe.succeeded()
    assert changes == [("closed", "open"), ("open", "half_open"), ("half_open", "closed")]
    _fail(breakers, 4)  # the count begins anew
    assert breakers.state(_ID) == "closed"


def test_a_failed_probe_opens_it_for_another_cooldown(breakers: Breakers, clock: Clock) -> None:
    _opened(breakers)
    clock.now += 30
    _admit(breakers).failed(TimedOut("still down"))
    assert breakers.state(_ID) == "open"
    clock.now += 29
    with pytest.raises(CircuitOpen):
        _admit(breakers)
    clock.now += 1
    assert _admit(breakers).state == "half_open"


@pytest.mark.parametrize("status", [400, 401, 429])
def test_a_probe_that_is_answered_at_all_closes_it(breakers: Breakers, clock: Clock, status: int) -> None:
    _opened(breakers)
    clock.now += 30
    _admit(breakers).failed(BadRequest("no", status=status))
    assert breakers.state(_ID) == "closed"


@pytest.mark.parametrize(
    "give_back",
    [Permit.abandoned, lambda p: p.failed(ConfigurationError("key")), lambda p: p.failed(PoolTimedOut("x"))],
)
def test_a_probe_without_verdict_gives_its_permit_back(
    breakers: Breakers, clock: Clock, give_back: Callable[[Permit], None]
) -> None:
    _opened(breakers)
    clock.now += 30
    give_back(_admit(breakers))
    assert _admit(breakers).state == "half_open"


def test_a_probe_that_vanished_blocks_nobody_for_long(breakers: Breakers, clock: Clock) -> None:
    _opened(breakers)
    clock.now += 30
    lost = _admit(breakers)
    clock.now += 14.9  # ten seconds of probe and five of grace
    with pytest.raises(CircuitOpen):
        _admit(breakers)
    clock.now += 0.2
    second = _admit(breakers)
    lost.succeeded()
    assert breakers.state(_ID) == "half_open"  # the lost probe's word counts no more
    second.succeeded()
    assert breakers.state(_ID) == "closed"


def test_late_results_neither_close_it_nor_keep_it_open(breakers: Breakers, clock: Clock) -> None:
    late = [_admit(breakers) for _ in range(10)]
    _opened(breakers)
    clock.now += 20
    late[0].succeeded()
    for permit in late[1:5]:
        permit.failed(TimedOut("slow"))
    assert breakers.state(_ID) == "open"
    clock.now += 10  # thirty seconds after opening, whatever came since
    probe = _admit(breakers)
    late[5].failed(TimedOut("slow"))
    late[6].succeeded()
    assert breakers.state(_ID) == "half_open"
    probe.succeeded()
    for permit in late[7:]:
        permit.failed(TimedOut("slow"))
    _fail(breakers, 4)
    assert breakers.state(_ID) == "closed"


def test_a_permit_reports_once(breakers: Breakers) -> None:
    for _ in range(4):
        permit = _admit(breakers)
        permit.failed(ServerError("x", status=500))
        permit.failed(ServerError("x", status=500))
        permit.abandoned()
    assert breakers.state(_ID) == "closed"


def test_exactly_one_of_many_threads_probes(breakers: Breakers, clock: Clock) -> None:
    _opened(breakers)
    clock.now += 30
    start = threading.Barrier(32)

    def try_once(_: int) -> str:
        start.wait()
        try:
            return _admit(breakers).state
        except CircuitOpen:
            return "refused"

    with ThreadPoolExecutor(32) as threads:
        results = list(threads.map(try_once, range(32)))
    assert sorted(results) == ["half_open"] + ["refused"] * 31


def test_healthy_calls_run_side_by_side(breakers: Breakers) -> None:
    together = threading.Barrier(32, timeout=20)

    def call(_: int) -> None:
        permit = _admit(breakers)
        together.wait()  # passes only if all 32 hold a permit at the same time
        permit.succeeded()

    with ThreadPoolExecutor(32) as threads:
        list(threads.map(call, range(32)))
    assert breakers.state(_ID) == "closed"


def test_a_listener_may_ask_for_the_state(clock: Clock) -> None:
    seen: list[str] = []

    def on_change(provider: UUID, _old: str, _new: str) -> None:
        seen.append(watched.state(provider))

    watched = Breakers(clock=clock, on_change=on_change)
    _opened(watched)  # told outside of the locks, or this would hang
    assert seen == ["open"]


def test_who_is_refused_is_told_when_to_come_back() -> None:
    now = [100.0]
    breakers = Breakers(cooldown=30, clock=lambda: now[0])
    provider = uuid4()
    for _ in range(5):
        breakers.admit(provider, probe_seconds=1).failed(ServerError("down", status=500))
    now[0] += 10

    with pytest.raises(CircuitOpen) as refused:
        breakers.admit(provider, probe_seconds=1)

    assert refused.value.retry_after == pytest.approx(20)
