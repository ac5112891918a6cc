"""Several processes' breakers and cool-downs, with a real Valkey between them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from uuid import uuid4

import pytest
import redis

from routing.breaker import Breakers, Permit
from routing.cooldowns import Cooldowns
from routing.errors import AuthFailed, CircuitOpen, KeyRefused, RateLimited, RateWait, ServerError
from routing.values import Call
from tests.relay import Relay
from tests.routing import factories
from tests.workers.conftest import until
from workers.fleet import Fleet, look
from workers.line import Line

SECOND = 1.2  # within which all know, and something for a busy machine
COOLDOWN = 1.5
ID = uuid4()


@dataclass
class Process:
    """What a worker process has."""

    line: Line
    fleet: Fleet
    breakers: Breakers
    cooldowns: Cooldowns

    def state(self) -> str:
        return self.breakers.state(ID)

    def call(self) -> Permit:
        return self.breakers.admit(ID, probe_seconds=2)

    def fail(self, times: int = 5) -> None:
        for _ in range(times):
            self.call().failed(ServerError("broken", status=500))


Start = Callable[..., Process]


@pytest.fixture
def relay(redis_url: str) -> Iterator[Relay]:
    relay = Relay(redis_url)
    yield relay
    relay.close()


@pytest.fixture
def start(redis_url: str) -> Iterator[Start]:
    """Starts processes."""
    started: list[Process] = []

    def start(url: str = redis_url, *, cooldown: float = COOLDOWN) -> Process:
        line = Line(url)
        fleet = Fleet(line, f"host:{len(started)}")
        process = Process(line, fleet, Breakers(cooldown=cooldown, fleet=fleet), Cooldowns(board=fleet))
        fleet.start(process.breakers, process.cooldowns)
        started.append(process)
        return process

    yield start
    for process in started:
        process.fleet.stop()
        process.line.close()


def test_an_opening_and_a_closing_spread_within_a_second(start: Start) -> None:
    first, second = start(), start()
    first.fail()
    until(lambda: second.state() == "open", seconds=SECOND)
    with pytest.raises(CircuitOpen, match="tried again in"):
        second.call()
    late = start()  # one that comes later learns of it, too
    until(lambda: late.state() == "open", seconds=SECOND)
    [opened] = look(first.line).open.values()
    assert (opened.circuit_id, opened.worker) == (ID, "host:0")
    assert 0 < opened.seconds <= COOLDOWN
    _probe(second).succeeded()
    until(lambda: (first.state(), late.state()) == ("closed", "closed"), seconds=SECOND)
    assert look(first.line).open == {}


def _probe(process: Process, *, seconds: float = 5) -> Permit:
    """Have a process make the probe, as soon as it may."""
    permits: list[Permit] = []

    def tries() -> bool:
        with suppress(CircuitOpen):
            permits.append(process.call())
        return bool(permits)

    until(tries, seconds=seconds)
    assert permits[0].state == "half_open"
    return permits[0]


def test_one_probe_in_the_whole_fleet_for_each_cooldown(start: Start) -> None:
    processes = [start(), start()]
    processes[0].fail()
    until(lambda: processes[1].state() == "open", seconds=SECOND)
    began, probes, lock = time.monotonic(), list[float](), threading.Lock()

    def call_on(process: Process) -> None:
        while time.monotonic() < began + 4 * COOLDOWN:
            try:
                permit = process.call()
            except CircuitOpen:
                time.sleep(0.02)
                continue
            with lock:
                probes.append(time.monotonic())
            time.sleep(0.05)
            permit.failed(ServerError("still broken", status=500))

    with ThreadPoolExecutor(64) as threads:
        list(threads.map(call_on, processes * 32))
    gaps = [later - earlier for earlier, later in pairwise(probes)]
    assert 2 <= len(probes) <= 4, gaps
    assert min(gaps) >= COOLDOWN * 0.98, gaps


def test_a_lost_probe_blocks_the_fleet_until_its_permit_runs_out(start: Start) -> None:
    first, second = start(cooldown=0.3), start(cooldown=0.3)
    first.fail()
    until(lambda: second.state() == "open", seconds=SECOND)
    time.sleep(0.4)
    assert first.fleet.take_probe(ID, 2.0) is not None  # and dies
    began = time.monotonic()
    _probe(second)
    assert time.monotonic() - began > 1.5


def test_a_probe_without_verdict_is_given_back_to_all(start: Start) -> None:
    first, second = start(cooldown=0.3), start(cooldown=0.3)
    first.fail()
    until(lambda: second.state() == "open", seconds=SECOND)
    time.sleep(0.4)
    first.call().abandoned()
    _probe(second, seconds=2)


@pytest.mark.parametrize("harm", [Relay.cut, Relay.hold])
def test_without_valkey_each_process_goes_on_by_itself(
    start: Start, relay: Relay, harm: Callable[[Relay], None]
) -> None:
    apart, other = start(relay.url, cooldown=0.5), start(cooldown=0.5)
    harm(relay)
    slowest = max(_seconds(lambda: apart.call().succeeded()) for _ in range(200))
    assert slowest < 0.1
    apart.fail()
    assert apart.state() == "open"
    assert other.state() == "closed"
    time.sleep(0.6)
    assert _seconds(lambda: apart.fail(1)) < 1.0  # the one call that asks
    assert apart.state() == "open"
    relay.mend()
    until(lambda: other.state() == "open", seconds=2 * SECOND + 1)  # what it could not tell it tells now


def _seconds(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def test_a_wiped_valkey_changes_nothing(start: Start, redis_url: str) -> None:
    first, second = start(), start()
    first.fail()
    until(lambda: second.state() == "open", seconds=SECOND)
    with redis.Redis.from_url(redis_url) as client:
        client.flushdb()
    time.sleep(SECOND)
    assert (first.state(), second.state()) == ("open", "open")
    _probe(second).succeeded()
    until(lambda: first.state() == "closed", seconds=SECOND)


def test_healthy_calls_ask_nobody(start: Start, relay: Relay) -> None:
    process, route = start(relay.url), factories.route()
    time.sleep(0.3)  # it greets the server
    before, began = relay.messages, time.monotonic()
    for _ in range(5000):
        process.cooldowns.check(route, None)
        process.call().succeeded()
    assert relay.messages - before <= 1 + 3 * (time.monotonic() - began)  # it looks twice a second, anyway


def test_pauses_and_refused_keys_spread(start: Start) -> None:
    first, second = start(), start()
    paused, refused = factories.call(), factories.call()
    first.cooldowns.refused(paused, RateLimited("slow down", status=429, retry_after=2.0))
    first.cooldowns.refused(refused, AuthFailed("no", status=401))
    began = time.monotonic()
    until(lambda: _raises(second, RateWait, paused) and _raises(second, KeyRefused, refused), seconds=SECOND)
    assert {one.error_class for one in look(second.line).resting} == {"rate_limited", "auth"}
    until(lambda: not _raises(second, RateWait, paused), seconds=3)
    assert time.monotonic() - began >= 1.5
    assert _raises(second, KeyRefused, refused)


def _raises(process: Process, kind: type[Exception], call: Call) -> bool:
    try:
        process.cooldowns.check(call.route, None)
    except kind:
        return True
    return False
