from __future__ import annotations

import gc
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest

from routing.breaker import Breakers, circuit
from routing.cooldowns import Cooldowns
from routing.errors import RoutingError, ServerError
from routing.failover import execute
from routing.limits import Limits, ProcessLimits
from routing.retry_budget import RetryBudget
from routing.transport import MAX_TEXT, Transport
from routing.values import AttemptOutcome, Capability, Outcome, PassedOver, Plan, Request, Route
from store.vault import Sealed
from tests.routing import factories
from tests.routing.factories import KEY, VAULT
from tests.routing.servers import ScriptedProvider, chat, scripted

_BUSY = (503, {"error": {"message": "busy"}}, {"retry-after-ms": "5"})


@dataclass
class Bench:
    """What `execute` needs beside plan and request."""

    transport: Transport
    breakers: Breakers
    budget: RetryBudget
    cooldowns: Cooldowns = field(default_factory=Cooldowns)
    limits: Limits = field(default_factory=ProcessLimits)

    def run(
        self, plan: Plan, request: Request | None = None, still_ours: Callable[[], bool] = lambda: True
    ) -> Outcome:
        return execute(
            plan,
            request or factories.request(),
            transport=self.transport,
            breakers=self.breakers,
            cooldowns=self.cooldowns,
            limits=self.limits,
            vault=VAULT,
            budget=self.budget,
            still_ours=still_ours,
            reserve=lambda _: None,
        )


@pytest.fixture
def bench() -> Iterator[Bench]:
    transport = Transport()
    yield Bench(transport, Breakers(), RetryBudget())
    transport.close()


def _route(
    server: ScriptedProvider, *, key: str | None = KEY, model_id: str = "acme-large", **fields: Any
) -> Route:
    owner = factories.provider(server.base_url, key=key, **fields)
    return factories.route(owner, price_row=factories.price())


def _classes(outcome: Outcome) -> list[str | None]:
    return [attempt.error_class for attempt in outcome.attempts]


def test_the_first_route_that_answers_wins(bench: Bench) -> None:
    with scripted((200, chat("Hello."), {"x-request-id": "r1"})) as server:
        route = _route(server)
        outcome = bench.run(factories.plan(route, user="For {{ sign }}"))
    assert outcome.reply is not None
    assert (outcome.reply.text, outcome.route, outcome.error_class) == ("Hello.", route, None)
    [attempt] = outcome.attempts
    assert (attempt.n, attempt.outcome, attempt.called) == (1, AttemptOutcome.SUCCEEDED, True)
    assert (attempt.status, attempt.request_id, attempt.breaker) == (200, "r1", "closed")
    assert attempt.cost_usd == Decimal("0.002")  # 1000 in at 0.001, 500 out at 0.002 per thousand
    assert attempt.finished_at >= attempt.started_at
    [seen] = server.seen
    assert seen.headers["authorization"] == f"Bearer {KEY}"
    assert seen.body["messages"] == [{"role": "user", "content": "For aries"}]


def test_a_provider_without_key_is_called_without(bench: Bench) -> None:
    with scripted((200, chat())) as server:
        assert bench.run(factories.plan(_route(server, key=None))).reply
    assert "authorization" not in server.seen[0].headers


@pytest.mark.parametrize(
    ("status", "error_class"),
    [
        (401, "auth"),
        (402, "quota"),
        (404, "not_found"),
        (413, "too_large"),
        (429, "rate_limited"),
        (500, "server_error"),
        (503, "overloaded"),
    ],
)
def test_failover_to_the_backup(bench: Bench, status: int, error_class: str) -> None:
    with scripted((status, {"error": {"message": "no"}})) as bad, scripted((200, chat())) as good:
        primary, backup = _route(bad), _route(good)
        outcome = bench.run(factories.plan(primary, backup))
    assert outcome.route == backup
    assert [(a.n, a.route, a.error_class, a.status) for a in outcome.attempts] == [
        (1, primary, error_class, status),
        (2, backup, None, 200),
    ]
    assert outcome.attempts[0].cost_usd == 0


@pytest.mark.parametrize(
    ("answer", "error_class"),
    [
        ((400, {"error": {"message": "bad"}}), "bad_request"),
        ((400, {"error": {"message": "no", "code": "content_policy_violation"}}), "content_policy"),
    ],
)
def test_what_fails_everywhere_ends_the_run(bench: Bench, answer: tuple[Any, ...], error_class: str) -> None:
    with scripted(answer) as bad, scripted((200, chat())) as good:
        outcome = bench.run(factories.plan(_route(bad), _route(good)))
        assert good.seen == []
    assert (outcome.error_class, outcome.retryable, outcome.reply) == (error_class, False, None)


def test_every_route_spent_tells_the_error_that_may_pass(bench: Bench) -> None:
    slow = (429, {"error": {"message": "slow"}}, {"retry-after": "40"})
    busy = (503, {"error": {"message": "busy"}}, {"retry-after": "9"})
    with scripted((401, {})) as first, scripted(slow) as second, scripted(busy) as third:
        outcome = bench.run(factories.plan(_route(first), _route(second), _route(third), max_retries=3))
    assert _classes(outcome) == ["auth", "rate_limited", "overloaded"]  # nobody waits nine seconds here
    assert (outcome.error_class, outcome.retryable, outcome.retry_after) == ("rate_limited", True, 9.0)


def test_lost_answers_cost_an_unknown_amount(bench: Bench) -> None:
    with scripted((200, b"garbage")) as server:
        [attempt] = bench.run(factories.plan(_route(server))).attempts
    assert (attempt.error_class, attempt.cost_usd) == ("server_error", None)


def test_a_failure_that_names_its_usage_costs_that(bench: Bench) -> None:
    spent = chat("", prompt_tokens=1000, completion_tokens=2000)
    spent["choices"][0]["finish_reason"] = "length"
    with scripted((200, spent)) as server:
        [attempt] = bench.run(factories.plan(_route(server))).attempts
    assert (attempt.error_class, attempt.cost_usd) == ("too_large", Decimal("0.005"))
    assert attempt.usage.output_tokens == 2000


def test_an_unreachable_provider_costs_nothing(bench: Bench) -> None:
    with scripted((200, chat())) as gone:
        route = _route(gone)
    [attempt] = bench.run(factories.plan(route)).attempts
    assert (attempt.error_class, attempt.cost_usd, attempt.status) == ("connection", Decimal(0), None)


# --- retries on the same route ------------------------------------------------------------------------


@pytest.mark.parametrize(("max_retries", "calls"), [(0, 1), (1, 2), (5, 2)])
def test_a_route_is_tried_again_at_most_once(bench: Bench, max_retries: int, calls: int) -> None:
    with scripted(_BUSY) as server:
        outcome = bench.run(factories.plan(_route(server), max_retries=max_retries))
    assert _classes(outcome) == ["overloaded"] * calls
    assert len(server.seen) == calls


def test_a_retry_may_succeed(bench: Bench) -> None:
    with scripted(_BUSY, (200, chat())) as server:
        outcome = bench.run(factories.plan(_route(server), max_retries=1))
    assert outcome.reply
    assert _classes(outcome) == ["overloaded", None]


@pytest.mark.parametrize(
    ("answer", "calls"),
    [
        ((503, {}, {"retry-after-ms": "5", "x-should-retry": "false"}), 1),
        ((409, {}, {"retry-after-ms": "5", "x-should-retry": "true"}), 2),
        ((503, {}, {"retry-after": "3"}), 1),
        ((401, {}, {"retry-after-ms": "5"}), 1),
    ],
)
def test_the_provider_has_a_say_in_retries(bench: Bench, answer: tuple[Any, ...], calls: int) -> None:
    with scripted(answer) as server:
        bench.run(factories.plan(_route(server), max_retries=1))
    assert len(server.seen) == calls


def test_no_retry_waits_beyond_the_deadline(bench: Bench) -> None:
    with scripted((503, {}, {"retry-after-ms": "1900"})) as server:
        request = factories.request(deadline=time.monotonic() + 1.5)
        outcome = bench.run(factories.plan(_route(server), max_retries=1), request)
    assert len(server.seen) == 1
    assert outcome.error_class == "overloaded"


def test_retries_stop_when_the_budget_is_spent(bench: Bench) -> None:
    with scripted((429, {}, {"retry-after-ms": "1"})) as server:
        route = _route(server)
        runs = 10
        for _ in range(runs):
            bench.run(factories.plan(route, max_retries=1))
            time.sleep(0.005)  # until the route may be called again
    retries = len(server.seen) - runs
    assert retries == 3  # the floor; a fifth of so few calls would be less


def test_budget_is_a_fifth_of_the_calls_of_a_minute() -> None:
    now = 0.0
    budget = RetryBudget(clock=lambda: now)
    provider = uuid4()
    for _ in range(100):
        budget.called(provider)
    assert sum(budget.take(provider) for _ in range(100)) == 20
    assert budget.take(uuid4())
    now = 61.0
    assert sum(budget.take(provider) for _ in range(100)) == 3


# --- parameters that models refuse --------------------------------------------------------------------


def _refusing(parameter: str, hint: str = "") -> tuple[Any, ...]:
    message = f"Unsupported parameter: '{parameter}' is not supported. {hint}"
    return 400, {"error": {"message": message, "code": "unsupported_parameter", "param": parameter}}


def test_a_refused_parameter_is_dropped_at_once_and_remembered(bench: Bench) -> None:
    with scripted(_refusing("temperature"), _refusing("seed"), (200, chat())) as server:
        plan = factories.plan(_route(server), parameters={"temperature": 0.5, "seed": 1, "top_p": 1})
        first = bench.run(plan)
        second = bench.run(plan)
        third = bench.run(replace(plan, assignment=replace(plan.assignment, parameters={"temperature": 1})))
    assert first.reply
    assert second.reply
    assert third.reply
    assert _classes(first) == ["bad_request", "bad_request", None]
    assert _classes(second) == [None]
    assert {"temperature", "seed"} <= set(server.seen[0].body)
    assert {"temperature", "seed", "top_p"} & set(server.seen[3].body) == {"top_p"}
    assert server.seen[4].body["temperature"] == 1  # another value may be welcome


def test_a_renamed_parameter_is_sent_under_its_new_name(bench: Bench) -> None:
    with scripted(_refusing("max_tokens", "Use 'max_completion_tokens' instead."), (200, chat())) as server:
        assert bench.run(factories.plan(_route(server), parameters={"max_tokens": 50})).reply
    assert "max_tokens" not in server.seen[1].body
    assert server.seen[1].body["max_completion_tokens"] == 50


def test_a_refusal_of_what_was_not_sent_goes_to_the_backup(bench: Bench) -> None:
    with scripted(_refusing("temperature")) as odd, scripted((200, chat())) as good:
        outcome = bench.run(factories.plan(_route(odd), _route(good)))
        assert len(odd.seen) == 1
    assert outcome.reply


# --- configuration ------------------------------------------------------------------------------------


def test_a_key_that_does_not_open_passes_the_route_over(bench: Bench) -> None:
    with scripted((200, chat())) as server:
        broken, backup = _route(server, slug="broken-one"), _route(server)
        moved = replace(broken, provider=replace(broken.provider, id=uuid4()))  # another row's ciphertext
        assert bench.run(factories.plan(moved, backup)).route == backup
        outcome = bench.run(factories.plan(moved))
    assert outcome.error_class == "configuration"
    assert "'broken-one'" in (outcome.error_message or "")
    assert (outcome.attempts[0].called, outcome.attempts[0].cost_usd) == (False, Decimal(0))
    assert not outcome.retryable


@pytest.mark.parametrize(
    ("plan_fields", "provider_fields", "word"),
    [
        ({"parameters": {"tempo": 1}}, {}, "tempo"),
        ({"user": "{{ nothing }}"}, {}, "nothing"),
        ({"user": "{% if"}, {}, "line 1"),
        ({"capability": Capability.SPEECH}, {"protocol": "anthropic"}, "speech"),
        ({}, {"protocol": "morse"}, "morse"),
        ({}, {"allow_private_network": False}, "allow_private_network"),
        ({}, {"base_url": "gopher://x"}, "base_url"),
        ({}, {"settings": {"extra_headers": 1}}, "extra_headers"),
        ({}, {"sealed_key": Sealed(b"rubbish"), "key_version": 1}, "Store it anew"),
    ],
)
def test_whatever_a_row_holds_becomes_an_error_that_names_it(
    bench: Bench, plan_fields: dict[str, Any], provider_fields: dict[str, Any], word: str
) -> None:
    with scripted((200, chat())) as server:
        route = _route(server, key=None)
        route = replace(route, provider=replace(route.provider, **provider_fields))
        outcome = bench.run(factories.plan(route, **plan_fields))
        assert server.seen == []
    assert outcome.error_class == "configuration"
    assert word in (outcome.error_message or "")
    assert [attempt.called for attempt in outcome.attempts] == [False]


def test_a_plan_without_routes_says_why(bench: Bench) -> None:
    def passed(error_class: str, reason: str) -> PassedOver:
        return PassedOver(uuid4(), "acme", "acme-large", error_class, reason)

    plan = replace(factories.plan(), passed_over=(passed("no_access", "Add a personal key."),))
    outcome = bench.run(plan)
    assert (outcome.error_class, outcome.attempts) == ("no_access", ())
    assert "acme/acme-large: Add a personal key." in (outcome.error_message or "")
    mixed = replace(plan, passed_over=(*plan.passed_over, passed("configuration", "Activate it.")))
    assert bench.run(mixed).error_class == "configuration"
    assert bench.run(factories.plan()).error_class == "configuration"


# --- deadline, lease, breaker -------------------------------------------------------------------------


def test_a_passed_deadline_allows_no_call(bench: Bench) -> None:
    with scripted((200, chat())) as server:
        outcome = bench.run(factories.plan(_route(server)), factories.request(deadline=time.monotonic() - 1))
        assert server.seen == []
    assert (outcome.error_class, outcome.retryable, outcome.attempts) == ("deadline", False, ())


@pytest.mark.parametrize(
    ("assigned", "provided", "left", "error_class"),
    [(0.3, 30, None, "timeout"), (None, 0.3, None, "timeout"), (30, 30, 0.3, "deadline")],
)
def test_the_shortest_limit_ends_a_call(
    bench: Bench, assigned: float | None, provided: float, left: float | None, error_class: str
) -> None:
    release = threading.Event()
    with scripted((200, chat())) as server:
        server.gate = lambda: _wait(release)
        request = factories.request(deadline=None if left is None else time.monotonic() + left)
        outcome = bench.run(
            factories.plan(_route(server, timeout_seconds=provided), timeout_seconds=assigned), request
        )
        release.set()
    assert outcome.error_class == error_class
    assert _classes(outcome) == ["timeout"]
    assert outcome.attempts[0].latency_ms >= 250
    assert outcome.attempts[0].cost_usd is None


def _wait(event: threading.Event) -> None:
    event.wait(20)


def test_words_have_less_room_than_sounds(bench: Bench) -> None:
    with scripted((200, chat("a" * MAX_TEXT))) as server:
        outcome = bench.run(factories.plan(_route(server), max_retries=0))
    assert outcome.error_class == "server_error"
    assert "exceeds 8,388,608 bytes" in (outcome.error_message or "")


def test_a_provider_that_hangs_leaves_time_for_its_backup(bench: Bench) -> None:
    release = threading.Event()
    with scripted((200, chat())) as hung, scripted((200, chat())) as well:
        hung.gate = lambda: _wait(release)
        plan = factories.plan(_route(hung), _route(well), max_retries=3)
        outcome = bench.run(plan, factories.request(deadline=time.monotonic() + 1.5))
        release.set()
    assert _classes(outcome) == ["timeout", None]
    assert 900 <= outcome.attempts[0].latency_ms < 1400


def test_a_lost_lease_stops_the_run_between_tries(bench: Bench) -> None:
    answers = iter([True, False])
    with scripted((500, {})) as bad, scripted((200, chat())) as good:
        outcome = bench.run(factories.plan(_route(bad), _route(good)), still_ours=lambda: next(answers))
        assert good.seen == []
    assert (outcome.error_class, outcome.retryable) == ("cancelled", False)
    assert _classes(outcome) == ["server_error"]


def test_an_open_breaker_is_an_attempt_without_a_call(bench: Bench) -> None:
    with scripted((500, {})) as bad, scripted((200, chat())) as good:
        primary, backup = _route(bad), _route(good)
        plan = factories.plan(primary, backup)
        for _ in range(5):
            bench.run(plan)
        outcome = bench.run(plan)
        assert len(bad.seen) == 5
    assert outcome.route == backup
    skipped = outcome.attempts[0]
    assert (skipped.called, skipped.breaker, skipped.error_class) == (False, "open", "overloaded")
    assert (skipped.latency_ms, skipped.cost_usd, skipped.status) == (0, Decimal(0), None)


def test_a_bug_of_ours_does_not_keep_the_probe(bench: Bench) -> None:
    class Broken(Transport):
        def send(self, *_: Any, **__: Any) -> Any:
            raise ZeroDivisionError

    now = 0.0
    breakers = Breakers(clock=lambda: now)
    with scripted((200, chat())) as server:
        route = _route(server)
        for _ in range(5):
            breakers.admit(circuit(route.provider), probe_seconds=1).failed(ServerError("x", status=500))
        now = 31.0
        broken = replace(bench, breakers=breakers, transport=Broken())
        with pytest.raises(ZeroDivisionError):
            broken.run(factories.plan(route))
        outcome = replace(bench, breakers=breakers).run(factories.plan(route))
    assert outcome.reply
    assert outcome.attempts[0].breaker == "half_open"


def test_calls_to_a_healthy_provider_run_side_by_side(bench: Bench) -> None:
    together = threading.Barrier(16, timeout=20)
    with scripted((200, chat())) as server:
        server.gate = lambda: _ignore(together.wait())
        plan = factories.plan(_route(server))
        with ThreadPoolExecutor(16) as threads:
            outcomes = list(threads.map(lambda _: bench.run(plan), range(16)))
    assert all(outcome.reply for outcome in outcomes)


def _ignore(_: int) -> None:
    pass


# --- keys ---------------------------------------------------------------------------------------------


def test_the_key_shows_nowhere(bench: Bench) -> None:
    echo = {"error": {"message": f"Incorrect API key provided: {KEY}"}}
    with (
        scripted((401, echo, {"x-request-id": KEY})) as rude,
        scripted((200, chat(f"You sent {KEY}."))) as chatty,
    ):
        outcome = bench.run(factories.plan(_route(rude), _route(chatty)))
    assert outcome.reply is not None
    assert outcome.reply.text == "You sent [key]."
    assert KEY not in repr(outcome)


def test_errors_do_not_keep_the_frames_that_held_the_key(bench: Bench) -> None:
    found: list[str] = []

    def look_around() -> bool:
        """Asked between tries, while the first route's error is still being kept."""
        for error in [thing for thing in gc.get_objects() if isinstance(thing, RoutingError)]:
            found.append("error")
            lines = traceback.TracebackException.from_exception(error, capture_locals=True).format()
            found.extend("key" for line in lines if KEY in line)
        return True

    with scripted((200, chat())) as gone:
        unreachable = _route(gone)  # fails in the transport, below the frame that unsealed the key
    with scripted((200, chat())) as good:
        assert bench.run(factories.plan(unreachable, _route(good)), still_ours=look_around).reply
    assert "error" in found
    assert "key" not in found
