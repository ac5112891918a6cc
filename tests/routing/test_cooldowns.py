from __future__ import annotations

from dataclasses import replace
from uuid import uuid4

import pytest

from routing.cooldowns import Cooldown, Cooldowns
from routing.errors import (
    AuthFailed,
    BadRequest,
    KeyRefused,
    KeySpent,
    ModelMissing,
    NotFound,
    ProviderError,
    QuotaExhausted,
    RateLimited,
    RateWait,
    RoutingError,
    ServerError,
)
from routing.values import Call, PersonalKey, Route
from tests.routing import factories


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Told:
    """A board that keeps what it is told."""

    def __init__(self) -> None:
        self.resting: list[Cooldown] = []
        self.working: list[str] = []

    def rests(self, cooldown: Cooldown) -> None:
        self.resting.append(cooldown)

    def works(self, scope: str) -> None:
        self.working.append(scope)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def cooldowns(clock: Clock, told: Told) -> Cooldowns:
    return Cooldowns(board=told, clock=clock)


@pytest.fixture
def route() -> Route:
    return factories.route()


def _call(route: Route, voice: str | None = None) -> Call:
    return factories.call(to=route, voice=voice)


def _refusal(cooldowns: Cooldowns, route: Route, voice: str | None = None) -> RoutingError | None:
    try:
        cooldowns.check(route, voice)
    except RoutingError as error:
        return error
    return None


def _seconds(cooldowns: Cooldowns, clock: Clock, route: Route) -> float:
    """How long the route rests from now on; it does not rest afterwards."""
    began, step = clock.now, 0.25
    while _refusal(cooldowns, route):
        clock.now += step
    return clock.now - began


@pytest.mark.parametrize(("said", "rests"), [(7.0, 7.0), (None, 5.0), (0.0, 0.0), (3600.0, 600.0)])
def test_a_429_rests_the_route_until_retry_after(
    cooldowns: Cooldowns, clock: Clock, route: Route, said: float | None, rests: float
) -> None:
    cooldowns.refused(_call(route), RateLimited("slow", status=429, retry_after=said))
    error = _refusal(cooldowns, route)
    if rests:
        assert isinstance(error, RateWait)
        assert (error.error_class, error.retry_after) == ("rate_wait", rests)
        assert "passed over until" in error.message
    assert _refusal(cooldowns, replace(route, model=replace(route.model, id=uuid4()))) is None
    assert _seconds(cooldowns, clock, route) == rests


def test_after_a_pause_one_call_goes_ahead(cooldowns: Cooldowns, clock: Clock, route: Route) -> None:
    paused = RateLimited("slow", status=429, retry_after=2)
    cooldowns.refused(_call(route), paused)
    clock.now += 2
    assert _refusal(cooldowns, route) is None
    ahead = _refusal(cooldowns, route)
    assert isinstance(ahead, RateWait)
    assert ahead.retry_after == 1.0

    cooldowns.refused(_call(route), paused)
    assert _seconds(cooldowns, clock, route) == 2.0
    assert _refusal(cooldowns, route)

    cooldowns.answered(_call(route))
    assert [_refusal(cooldowns, route) for _ in range(3)] == [None] * 3


def test_the_others_follow_after_a_second_without_a_refusal(
    cooldowns: Cooldowns, clock: Clock, route: Route
) -> None:
    cooldowns.refused(_call(route), RateLimited("slow", status=429, retry_after=2))
    clock.now += 2
    assert _refusal(cooldowns, route) is None
    clock.now += 1
    assert [_refusal(cooldowns, route) for _ in range(3)] == [None] * 3


def test_a_later_429_prolongs_the_pause_and_never_shortens_it(
    cooldowns: Cooldowns, clock: Clock, route: Route
) -> None:
    cooldowns.refused(_call(route), RateLimited("slow", status=429, retry_after=10))
    cooldowns.refused(_call(route), RateLimited("slow", status=429, retry_after=1))
    cooldowns.answered(_call(route))  # it had begun before
    clock.now += 2
    cooldowns.refused(_call(route), RateLimited("slow", status=429, retry_after=20))
    assert _seconds(cooldowns, clock, route) == 20


@pytest.mark.parametrize(
    ("error", "kind", "seconds"),
    [
        (QuotaExhausted("no", status=402), KeySpent, [300, 600, 1200, 2400, 3600, 3600]),
        (AuthFailed("no", status=401), KeyRefused, [60, 120, 240, 480, 960, 1920, 3600]),
        (AuthFailed("no", status=403), KeyRefused, [60, 120]),
        (NotFound("no", status=404), ModelMissing, [600, 600]),
    ],
)
def test_what_is_refused_again_rests_for_longer(
    cooldowns: Cooldowns,
    clock: Clock,
    route: Route,
    error: ProviderError,
    kind: type[RoutingError],
    seconds: list[float],
) -> None:
    for expected in seconds:
        for _ in range(3):  # calls that were under way say nothing new
            cooldowns.refused(_call(route), error)
        found = _refusal(cooldowns, route)
        assert type(found) is kind
        assert (found.error_class, found.retryable, found.tries_backup) == (error.error_class, False, True)
        assert _seconds(cooldowns, clock, route) == expected


def test_an_answer_ends_the_row(cooldowns: Cooldowns, clock: Clock, route: Route, told: Told) -> None:
    cooldowns.refused(_call(route), QuotaExhausted("no", status=402))
    assert _seconds(cooldowns, clock, route) == 300
    cooldowns.answered(_call(route))
    assert told.working == [told.resting[0].scope]
    cooldowns.refused(_call(route), QuotaExhausted("no", status=402))
    assert _seconds(cooldowns, clock, route) == 300


@pytest.mark.parametrize("error", [BadRequest("x", status=400), ServerError("x", status=500)])
def test_other_errors_rest_nothing(cooldowns: Cooldowns, route: Route, error: ProviderError) -> None:
    cooldowns.refused(_call(route), error)
    assert _refusal(cooldowns, route) is None


def test_a_key_rests_with_all_its_models_and_no_other_key_does(cooldowns: Cooldowns, route: Route) -> None:
    cooldowns.refused(_call(route), AuthFailed("no", status=401))
    other_model = replace(route, model=replace(route.model, id=uuid4()))
    assert _refusal(cooldowns, other_model)
    newer = replace(route, provider=replace(route.provider, key_version=2))
    own = PersonalKey(uuid4(), uuid4(), route.provider.id, None, 1, False, None)
    elsewhere = replace(route, provider=replace(route.provider, base_url="https://elsewhere.example/v1"))
    for other in (newer, replace(route, personal_key=own), elsewhere):
        assert _refusal(cooldowns, other) is None


def test_what_is_forbidden_rests_with_its_model_alone(cooldowns: Cooldowns, route: Route) -> None:
    cooldowns.refused(_call(route), AuthFailed("not this model", status=403))
    assert _refusal(cooldowns, route)
    assert _refusal(cooldowns, replace(route, model=replace(route.model, id=uuid4()))) is None


def test_a_missing_model_rests_for_all_keys_until_it_is_renamed(cooldowns: Cooldowns, route: Route) -> None:
    cooldowns.refused(_call(route), NotFound("no such model", status=404))
    own = PersonalKey(uuid4(), uuid4(), route.provider.id, None, 1, False, None)
    assert _refusal(cooldowns, replace(route, personal_key=own))
    assert _refusal(cooldowns, replace(route, model=replace(route.model, model_id="right"))) is None


def test_a_voice_that_a_job_made_up_rests_alone(cooldowns: Cooldowns, route: Route) -> None:
    cooldowns.refused(_call(route, voice="nobody"), NotFound("no such voice", status=404))
    assert _refusal(cooldowns, route, "nobody")
    assert _refusal(cooldowns, route, "alloy") is None


def test_what_others_tell_holds_here(told: Told, clock: Clock, route: Route) -> None:
    there, here = Cooldowns(board=told), Cooldowns(clock=clock)
    there.refused(_call(route), QuotaExhausted("no", status=402))
    [news] = told.resting
    assert (news.provider_id, news.model, news.times) == (route.provider.id, None, 1)
    here.merge(replace(news, seconds=120))
    assert _seconds(here, clock, route) == 120
    here.refused(_call(route), QuotaExhausted("no", status=402))
    assert _seconds(here, clock, route) == 600  # the second time in a row, wherever the first was
