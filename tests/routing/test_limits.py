from __future__ import annotations

from bisect import bisect_left
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.errors import RateWait
from routing.limits import MINUTE, ProcessLimits, Rate, Ticket, expected_tokens
from routing.values import Call
from tests.routing import factories


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def _call(**limits: Any) -> Call:
    return factories.call(to=factories.route(factories.provider(**limits)), parameters={"max_tokens": 100})


def most_in_a_minute(instants: list[float], minute: float) -> int:
    """The most that any span of a minute holds, both ends included."""
    return max(bisect_left(instants, at + minute + 1e-9) - place for place, at in enumerate(instants))


def _granted(limits: ProcessLimits, call: Call) -> Ticket | None:
    try:
        return limits.take(call, seconds=10, is_last=True)
    except RateWait:
        return None


@given(limit=st.integers(1, 5000), processes=st.integers(1, 40), share=st.sampled_from([0.03, 0.1]))
def test_a_minute_never_holds_more_than_the_limit(limit: int, processes: int, share: float) -> None:
    """Burst and even rate of all processes together, as the arithmetic has it."""
    rate = Rate.of(limit, share, minute=MINUTE, processes=processes)
    even = int(MINUTE / rate.interval + 1e-9)
    assert processes * (rate.burst + even) <= max(limit, processes)  # each makes one call at least


@given(
    limit=st.integers(1, 300),
    pauses=st.lists(st.floats(0, 5) | st.floats(0, 0.01) | st.just(70.0), min_size=50, max_size=600),
)
def test_whatever_comes_no_minute_holds_more(limit: int, pauses: list[float]) -> None:
    clock = Clock()
    limits, call = ProcessLimits(clock=clock), _call(requests_per_minute=limit)
    granted = []
    for pause in pauses:
        clock.now += pause
        if _granted(limits, call):
            granted.append(clock.now)
    assert not granted or most_in_a_minute(granted, MINUTE) <= limit


@pytest.mark.parametrize("limit", [100, 600, 3000])
def test_at_least_95_percent_are_used(limit: int) -> None:
    clock = Clock()
    limits, call = ProcessLimits(clock=clock), _call(requests_per_minute=limit)
    used = 0
    while clock.now < 1000 + 5 * MINUTE:
        used += _granted(limits, call) is not None
        clock.now += MINUTE / limit / 4
    assert used >= 0.95 * limit * 5


def test_a_call_that_waits_is_told_when_its_turn_is() -> None:
    clock = Clock()
    limits, call = ProcessLimits(clock=clock), _call(requests_per_minute=2)
    assert _granted(limits, call)
    with pytest.raises(RateWait, match=r"limited to 2 requests a minute\. It is passed over until") as told:
        limits.take(call, seconds=10, is_last=True)
    assert (told.value.error_class, told.value.is_wait, told.value.tries_backup) == ("rate_wait", True, True)
    clock.now += told.value.retry_after or 0
    assert _granted(limits, call)


def test_tokens_are_reserved_by_estimate_and_settled_by_use() -> None:
    clock = Clock()
    call = _call(tokens_per_minute=60 * expected_tokens(_call()))
    limits = ProcessLimits(clock=clock)
    first = _granted(limits, call)
    assert first
    assert _granted(limits, call) is None
    first.ended(0)  # it used nothing, so there is room at once
    second = _granted(limits, call)
    assert second
    second.ended(expected_tokens(call) * 20)  # it used twenty times as much
    clock.now += 18
    assert _granted(limits, call) is None
    clock.now += 18
    assert _granted(limits, call)


def test_a_call_larger_than_any_burst_is_let_through_in_its_turn() -> None:
    clock = Clock()
    limits, call = ProcessLimits(clock=clock), _call(tokens_per_minute=100)
    assert expected_tokens(call) > 100
    assert _granted(limits, call)
    assert _granted(limits, call) is None
    clock.now += 2 * MINUTE
    assert _granted(limits, call)


def test_calls_at_a_time_are_counted_until_they_end() -> None:
    limits, call = ProcessLimits(), _call(max_concurrency=2)
    tickets = [_granted(limits, call), _granted(limits, call)]
    assert all(tickets)
    assert _granted(limits, call) is None
    assert tickets[0]
    tickets[0].ended(None)
    assert _granted(limits, call)


def test_each_of_several_processes_has_its_share() -> None:
    limits, call = ProcessLimits(), _call(max_concurrency=8)
    limits.processes = 4
    assert [bool(_granted(limits, call)) for _ in range(3)] == [True, True, False]


def test_what_a_call_may_use_is_its_prompt_and_its_answer() -> None:
    assert 100 < expected_tokens(_call()) < 130
