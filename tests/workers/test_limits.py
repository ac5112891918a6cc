"""Limits that several processes keep together, with a real Valkey and minutes of three seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
import redis

from routing.breaker import Breakers
from routing.cooldowns import Cooldowns
from routing.errors import RateWait
from routing.limits import LONGEST_WAIT_SECONDS, Ticket, expected_tokens
from routing.values import Call
from tests.relay import Relay
from tests.routing import factories
from tests.routing.test_limits import most_in_a_minute
from tests.workers.conftest import until
from workers.fleet import Fleet
from workers.limits import SharedLimits
from workers.line import Line

MINUTE = 3.0


@dataclass
class Process:
    """What a worker process has."""

    line: Line
    fleet: Fleet
    limits: SharedLimits

    def take(self, call: Call, *, seconds: float = 10, is_last: bool = True) -> Ticket:
        return self.limits.take(call, seconds=seconds, is_last=is_last)

    def wait(self, call: Call, *, is_last: bool = True) -> float:
        """Seconds that a call has to wait; 0: it was let through."""
        try:
            self.take(call, is_last=is_last)
        except RateWait as error:
            return error.retry_after or 0.0
        return 0.0


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

    def start(url: str = redis_url, *, minute: float = MINUTE) -> Process:
        line = Line(url)
        fleet = Fleet(line, f"host:{len(started)}")
        fleet.start(Breakers(fleet=fleet), Cooldowns(board=fleet))
        started.append(Process(line, fleet, SharedLimits(line, fleet.soon, minute=minute)))
        return started[-1]

    yield start
    for process in started:
        process.fleet.stop()
        process.line.close()


def _call(**limits: Any) -> Call:
    return factories.call(to=factories.route(factories.provider(**limits)), parameters={"max_tokens": 100})


def _instants(processes: list[Process], call: Call, *, seconds: float) -> list[float]:
    """When calls were let through, of eight threads that come back as told, or a little later."""
    granted, lock, end = list[float](), threading.Lock(), time.monotonic() + seconds

    def call_on(process: Process) -> None:
        while time.monotonic() < end:
            wait = process.wait(call)
            if wait:
                time.sleep(min(wait, 0.05))
                continue
            with lock:
                granted.append(time.monotonic())

    with ThreadPoolExecutor(2 * len(processes)) as threads:
        list(threads.map(call_on, processes * 2))
    return sorted(granted)


def test_no_minute_holds_more_than_the_limit_and_95_percent_are_used(start: Start) -> None:
    """A machine that is too busy to come back in time uses less, so it may try again; never may it use
    more."""
    limit, used = 300, 0.0
    for _ in range(3):
        processes = [start() for _ in range(4)]
        instants = _instants(processes, _call(requests_per_minute=limit), seconds=4 * MINUTE)
        print(f"{len(instants)} of {4 * limit}, at most {most_in_a_minute(instants, MINUTE)} in a minute")
        assert most_in_a_minute(instants, MINUTE) <= limit
        used = max(used, len(instants) / (4 * limit))
        if used >= 0.95:
            break
    assert used >= 0.95


@pytest.mark.parametrize("harm", [Relay.cut, Relay.hold])
def test_without_valkey_each_process_keeps_to_its_share(
    start: Start, relay: Relay, harm: Callable[[Relay], None]
) -> None:
    processes, limit, call = [start(relay.url) for _ in range(2)], 300, _call(requests_per_minute=300)
    for process in processes:
        process.limits.share(2)
    events = [threading.Timer(1.5, harm, [relay]), threading.Timer(7.5, relay.mend)]
    for event in events:
        event.start()
    instants = _instants(processes, call, seconds=4 * MINUTE)
    for event in events:
        event.join()
    print(f"{len(instants)} of {4 * limit}, at most {most_in_a_minute(instants, MINUTE)} in a minute")
    assert most_in_a_minute(instants, MINUTE) <= limit * 1.03
    assert len(instants) >= 0.8 * 4 * limit


def test_who_comes_back_first_keeps_to_its_share_until_all_know(start: Start, relay: Relay) -> None:
    process, call = (
        start(relay.url, minute=600),
        _call(requests_per_minute=120),
    )  # one in five seconds, or in ten
    process.limits.share(2)
    relay.cut()
    until(lambda: process.line.ask(lambda server: server.ping()) is None)
    assert not process.line.all_know
    assert process.wait(call) == 0, "nothing is known of what came before: one call, and no burst"
    relay.mend()
    until(lambda: process.line.ask(lambda server: server.ping()))
    assert not process.line.all_know, "others may not have asked again yet"
    assert process.wait(call) > 1, "its own share has no more for now, whatever the others leave"
    until(lambda: process.line.all_know)
    assert process.wait(call) == 0, "there is room where all keep to the limit together"


def test_a_wiped_valkey_starts_without_a_burst(start: Start, redis_url: str) -> None:
    process, call = start(minute=60), _call(requests_per_minute=300)  # five a second, and nine at once
    with redis.Redis.from_url(redis_url) as client:
        for _ in range(3):
            began = time.monotonic()
            let_through = sum(process.wait(call) == 0 for _ in range(30))
            assert let_through <= 1 + 5 * (time.monotonic() - began)
            client.flushdb()


def test_waiting_calls_get_places_one_after_the_other(start: Start) -> None:
    processes, call = [start(minute=600), start(minute=600)], _call(requests_per_minute=100)
    while processes[0].wait(call, is_last=False) == 0:
        pass
    places = [time.monotonic() + processes[place % 2].wait(call) for place in range(50)]
    assert [later - earlier for earlier, later in pairwise(places)] == pytest.approx([5.0] * 49, abs=0.2)
    more = [processes[0].wait(call) for _ in range(100)]
    assert max(more) == pytest.approx(LONGEST_WAIT_SECONDS, abs=0.1)
    assert processes[0].wait(call, is_last=False) < 6.25  # it has another route, and needs no place


def test_tokens_that_were_not_used_are_given_back_with_the_next_call(start: Start) -> None:
    process = start(minute=60)
    call = _call(tokens_per_minute=60 * expected_tokens(_call()))
    ticket = process.take(call)
    assert process.wait(call) > 0.5
    ticket.ended(0)
    used_up = process.take(call)  # and this one takes twenty times as much
    used_up.ended(expected_tokens(call) * 20)
    assert process.wait(call) == pytest.approx(22.5, abs=1.5)


def test_calls_at_a_time_are_counted_over_all_processes(start: Start) -> None:
    first, second = start(), start()
    call = _call(max_concurrency=3)
    tickets = [first.take(call), first.take(call), second.take(call)]
    with pytest.raises(RateWait, match="3 calls at a time"):
        second.take(call)
    tickets[0].ended(None)
    until(lambda: second.wait(call) == 0, seconds=1)
    assert first.wait(call) > 0


def test_the_place_of_a_dead_process_is_free_when_its_call_would_have_ended(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.limits._GRACE_SECONDS", 0.3)
    process, call = start(), _call(max_concurrency=1)
    process.take(call, seconds=0.5)  # and never says that it ended
    began = time.monotonic()
    until(lambda: process.wait(call) == 0, seconds=3)
    assert time.monotonic() - began >= 0.7


def test_a_limited_call_makes_one_round_trip(relay: Relay) -> None:
    line = Line(relay.url)
    shared = SharedLimits(line, lambda command: None)  # nothing else is sent over this line
    call = _call(requests_per_minute=1_000_000, tokens_per_minute=100_000_000)
    shared.take(call, seconds=10, is_last=True).ended(100)  # the script is loaded
    before = relay.messages
    for _ in range(200):
        shared.take(call, seconds=10, is_last=True).ended(100)
    assert relay.messages - before == 200
    line.close()
