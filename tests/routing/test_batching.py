"""Batches over real HTTP: against the sandbox, and against a script where a provider misbehaves."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routing import batching
from routing.batching import BatchState, BatchStatus, can_batch, cancel, find, limits, poll, results, submit
from routing.errors import (
    AuthFailed,
    BadRequest,
    ConfigurationError,
    ConnectionFailed,
    Overloaded,
    ProviderError,
    RateLimited,
    RoutingError,
    ServerError,
    SubmitUnknown,
    TimedOut,
    TooLarge,
)
from routing.providers import batch_codec, codec
from routing.providers.batches import BatchLine
from routing.providers.wire import HttpResponse
from routing.transport import Transport
from routing.values import Call, Capability, Media, Reply, Turn
from tests.routing import factories
from tests.routing.factories import KEY, png
from tests.routing.servers import Seen, raw, scripted
from tests.sandbox import Sandbox

_PATIENCE = 20  # seconds


@dataclass(frozen=True)
class _Wire:
    vendor: str
    protocol: str
    style: str = "chat"

    def __str__(self) -> str:
        return f"{self.vendor}-{self.style}"


_CHAT = _Wire("openai", "openai_compatible")
_RESPONSES = _Wire("openai", "openai_compatible", "responses")
_MESSAGES = _Wire("anthropic", "anthropic")
_CONTENT = _Wire("gemini", "gemini")
_WIRES = (_CHAT, _RESPONSES, _MESSAGES, _CONTENT)
_BASIC = (_CHAT, _MESSAGES, _CONTENT)
_ABLE = [
    *((_CHAT, one) for one in ("text", "vision", "embedding", "moderation")),
    *((_RESPONSES, one) for one in ("text", "vision")),
    *((_MESSAGES, one) for one in ("text", "vision")),
    *((_CONTENT, one) for one in ("text", "vision", "speech", "transcription", "image")),
]


@pytest.fixture(scope="module")
def transport() -> Iterator[Transport]:
    made = Transport()
    yield made
    made.close()


class _Shop:
    """A provider of the sandbox, and what a scheduler would do with it."""

    def __init__(self, transport: Transport, sandbox: Sandbox, wire: _Wire, key: str = KEY) -> None:
        self.transport = transport
        self.key = key
        base_url = str(getattr(sandbox, wire.vendor))
        self.provider = factories.provider(base_url, protocol=wire.protocol, key=key)
        self.route = factories.route(
            self.provider, model_id="acme-large", api_style=wire.style, max_output_tokens=500
        )

    def calls(self, number: int, capability: Capability = Capability.TEXT, **fields: Any) -> dict[str, Call]:
        return {
            str(uuid4()): factories.call(
                capability, to=self.route, **{"user": f"Tell me of star {place}.", **fields}
            )
            for place in range(number)
        }

    def submit(self, calls: Mapping[str, Call], label: str | None = None) -> str:
        lines = list(calls.items())
        return submit(self.transport, self.provider, self.key, lines, label=label or str(uuid4()))

    def poll(self, batch_id: str) -> BatchState:
        return poll(self.transport, self.provider, self.key, batch_id)

    def wait(self, batch_id: str) -> BatchState:
        deadline = time.monotonic() + _PATIENCE
        while (state := self.poll(batch_id)).status is BatchStatus.RUNNING:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return state

    def results(self, state: BatchState, calls: Mapping[str, Call]) -> dict[str, Reply | RoutingError]:
        found = list(results(self.transport, self.provider, self.key, state, calls))
        assert sorted(custom_id for custom_id, _ in found) == sorted(calls)
        return dict(found)

    def find(self, label: str, **narrowed: Any) -> str | None:
        return find(self.transport, self.provider, self.key, label=label, **narrowed)

    def cancel(self, batch_id: str) -> None:
        cancel(self.transport, self.provider, self.key, batch_id)

    def live(self, call: Call) -> Reply:
        spoken = codec(call.route, call.capability)
        request = spoken.encode(call, self.key)
        return spoken.decode(self.transport.send(request, timeout=20, provider=self.provider), call)


@pytest.fixture
def shop(transport: Transport, sandbox: Sandbox, request: pytest.FixtureRequest) -> _Shop:
    return _Shop(transport, sandbox, request.param)


def _each(*wires: _Wire) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("shop", wires, indirect=True, ids=str)


def _substance(reply: Reply) -> dict[str, Any]:
    """What an answer is, without ids and the rate; of a recording, which varies, what is said in it."""
    usage = replace(reply.usage, raw=None, batch_rate=False)
    artifact = reply.artifact or b""
    if reply.media_type == "audio/wav":
        artifact, usage = artifact.partition(b"ICMT")[2], replace(usage, output_tokens=None)
        assert artifact
    return {
        "text": reply.text,
        "artifact": artifact,
        "embeddings": reply.embeddings,
        "data": reply.data,
        "flagged": reply.flagged,
        "served_model": reply.served_model,
        "usage": usage,
    }


# --- round trips --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shop", "capability"), _ABLE, indirect=["shop"], ids=[f"{wire}-{name}" for wire, name in _ABLE]
)
def test_a_batch_answers_each_line_as_a_live_call_would(shop: _Shop, capability: str) -> None:
    extra: Mapping[str, Mapping[str, Any]] = {
        "vision": {"images": (Media(png(), "image/png"),)},
        "transcription": {"audio": Media(b"RIFF0000WAVE", "audio/wav"), "user": ""},
        "embedding": {"texts": ("one star", "two stars")},
    }
    fields = extra.get(capability, {})
    calls = shop.calls(3, Capability(capability), **fields)
    assert can_batch(shop.route, Capability(capability))
    batch_id = shop.submit(calls)
    assert shop.poll(batch_id).status in (BatchStatus.RUNNING, BatchStatus.ENDED)
    state = shop.wait(batch_id)
    assert (state.status, state.total, state.completed, state.failed) == ("ended", 3, 3, 0)
    for custom_id, outcome in shop.results(state, calls).items():
        assert isinstance(outcome, Reply)
        assert outcome.usage.batch_rate
        assert _substance(outcome) == _substance(shop.live(calls[custom_id]))


@_each(*_WIRES)
def test_bodies_are_those_of_live_calls_and_never_streamed(shop: _Shop) -> None:
    [call] = shop.calls(
        1, history=(Turn("user", "Hi."), Turn("assistant", "Hello.")), parameters={"temperature": 0.5}
    ).values()
    batches = batch_codec(shop.provider)
    request = codec(shop.route, Capability.TEXT).encode(replace(call, is_streamed=True), KEY)
    lines = [BatchLine("one", call, request)]
    upload = batches.upload(shop.provider, KEY, lines)
    sent = upload or batches.create(shop.provider, KEY, lines, "label", None)
    assert request.body in sent.body
    assert b'"stream"' not in sent.body
    assert KEY.encode() not in sent.body
    assert KEY not in sent.url


@_each(_MESSAGES)
def test_one_line_with_sampling_parameters_asks_for_the_version_that_has_them(shop: _Shop) -> None:
    calls = shop.calls(1) | shop.calls(1, parameters={"temperature": 0.5})
    outcomes = shop.results(shop.wait(shop.submit(calls)), calls)
    assert [type(outcome) for outcome in outcomes.values()] == [Reply, Reply]


@_each(*_BASIC)
def test_lines_of_others_are_left_out_and_missing_ones_are_told(shop: _Shop) -> None:
    calls = shop.calls(3)
    state = shop.wait(shop.submit(calls))
    first, *_ = calls
    stranger = str(uuid4())
    outcomes = shop.results(state, {first: calls[first], stranger: calls[first]})
    assert isinstance(outcomes[first], Reply)
    assert type(outcomes[stranger]) is ServerError


@_each(*_BASIC)
def test_the_sandbox_counts_lines_and_not_calls(shop: _Shop, sandbox: Sandbox) -> None:
    calls = shop.calls(7)
    state = shop.wait(shop.submit(calls))
    shop.results(state, calls)
    assert sandbox.calls()["batch_lines"] == 7


# --- batches that do not go well ----------------------------------------------------------------------


@_each(*_BASIC)
def test_an_expired_batch_delivers_what_was_done(shop: _Shop, sandbox: Sandbox) -> None:
    sandbox.fault("batch_expire")
    calls = shop.calls(4)
    state = shop.wait(shop.submit(calls))
    assert (state.status, state.total, state.completed) == ("expired", 4, 2)
    outcomes = list(shop.results(state, calls).values())
    assert sum(isinstance(outcome, Reply) for outcome in outcomes) == 2
    late = [outcome for outcome in outcomes if not isinstance(outcome, Reply)]
    assert [(type(error), error.retryable) for error in late] == [(TimedOut, True)] * 2
    assert not any(isinstance(error, ProviderError) and error.sent for error in late)


@_each(*_BASIC)
@pytest.mark.parametrize(
    ("status", "kind"), [(500, ServerError), (429, RateLimited), (503, Overloaded), (400, BadRequest)]
)
def test_lines_fail_as_live_calls_do(
    shop: _Shop, sandbox: Sandbox, status: int, kind: type[ProviderError]
) -> None:
    sandbox.fault("batch_line_errors", status=status)
    calls = shop.calls(2)
    state = shop.wait(shop.submit(calls))
    assert (state.status, state.completed, state.failed) == ("ended", 0, 2)
    for outcome in shop.results(state, calls).values():
        assert type(outcome) is kind


@_each(*_BASIC)
def test_some_lines_fail_and_the_others_do_not(shop: _Shop, sandbox: Sandbox) -> None:
    sandbox.fault("batch_line_errors", rate=0.5)
    calls = shop.calls(40)
    state = shop.wait(shop.submit(calls))
    outcomes = shop.results(state, calls)
    failed = [outcome for outcome in outcomes.values() if isinstance(outcome, Overloaded)]
    assert 0 < len(failed) < 40
    assert (state.completed, state.failed) == (40 - len(failed), len(failed))
    for custom_id, outcome in outcomes.items():
        if isinstance(outcome, Reply):
            assert outcome.text == shop.live(calls[custom_id]).text


@_each(*_BASIC)
def test_a_line_that_the_provider_refuses_is_its_own_error(shop: _Shop) -> None:
    calls = shop.calls(2)
    bad = {str(uuid4()): factories.call(to=shop.route, parameters={"max_tokens": -1})}
    outcomes = shop.results(shop.wait(shop.submit(calls | bad)), calls | bad)
    assert all(isinstance(outcomes[custom_id], Reply) for custom_id in calls)
    [refused] = [outcomes[custom_id] for custom_id in bad]
    assert isinstance(refused, BadRequest)
    assert refused.status == 400


@_each(_CHAT)
def test_a_failed_batch_says_why_and_fails_its_lines(shop: _Shop) -> None:
    calls = shop.calls(1)
    [call] = calls.values()
    other = replace(call, route=replace(shop.route, model=replace(shop.route.model, model_id="other")))
    state = shop.wait(shop.submit(calls | {str(uuid4()): other}))
    assert (state.status, state.message) == ("failed", "All requests of a batch must name the same model.")
    [outcome] = shop.results(state, calls).values()
    assert isinstance(outcome, ServerError)
    assert "same model" in outcome.message


# --- cancelling ---------------------------------------------------------------------------------------


@_each(*_BASIC)
def test_a_cancelled_batch_ends_with_what_was_done(shop: _Shop, sandbox: Sandbox) -> None:
    sandbox.fault("batch_never")
    calls = shop.calls(4)
    batch_id = shop.submit(calls)
    deadline = time.monotonic() + _PATIENCE
    while sandbox.calls()["batch_lines"] < 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert shop.poll(batch_id).status is BatchStatus.RUNNING
    shop.cancel(batch_id)
    state = shop.wait(batch_id)
    assert state.status is BatchStatus.CANCELLED
    outcomes = list(shop.results(state, calls).values())
    assert sum(isinstance(outcome, Reply) for outcome in outcomes) == 2
    assert sum(type(outcome) is TimedOut for outcome in outcomes) == 2


@_each(*_BASIC)
def test_cancelling_what_has_ended_changes_nothing(shop: _Shop) -> None:
    batch_id = shop.submit(shop.calls(1))
    before = shop.wait(batch_id)
    shop.cancel(batch_id)
    assert shop.poll(batch_id).status is before.status is BatchStatus.ENDED


@_each(*_BASIC)
def test_cancelling_what_never_was_is_an_error(shop: _Shop) -> None:
    with pytest.raises(ProviderError) as refused:
        shop.cancel("batches/none" if shop.provider.protocol == "gemini" else "none")
    assert refused.value.error_class == "not_found"


# --- submits that are refused, and those that nobody knows of -----------------------------------------


@_each(*_BASIC)
def test_a_bad_key_is_a_refusal(transport: Transport, sandbox: Sandbox, shop: _Shop) -> None:
    shop.key = "bad-key"
    with pytest.raises(AuthFailed):
        shop.submit(shop.calls(1))
    with pytest.raises(AuthFailed):
        shop.poll("batches/x")
    with pytest.raises(AuthFailed):
        shop.find("label")
    with pytest.raises(AuthFailed):
        shop.cancel("batches/x")
    shop.key = KEY


@_each(*_BASIC)
def test_a_lost_submit_is_unknown_and_found_again(shop: _Shop, sandbox: Sandbox) -> None:
    label, calls = str(uuid4()), shop.calls(2)
    started = datetime.now(UTC)
    other = shop.submit(shop.calls(1))
    sandbox.fault("batch_lost", count=1)
    with pytest.raises(SubmitUnknown) as unknown:
        shop.submit(calls, label)
    assert unknown.value.retryable
    shop.wait(other)
    deadline = time.monotonic() + _PATIENCE
    while sandbox.calls()["batch_lines"] < 3:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    found = _found(shop, label, since=started)
    assert found not in (None, other)
    state = shop.wait(str(found))
    assert all(isinstance(outcome, Reply) for outcome in shop.results(state, calls).values())
    assert sandbox.calls()["batch_lines"] == 3  # created once, not twice


def _found(shop: _Shop, label: str, **narrowed: Any) -> str | None:
    """What `find` says once everything has ended that must have for it to know."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            return shop.find(label, **narrowed)
        except SubmitUnknown:
            assert time.monotonic() < deadline
            time.sleep(0.02)


@_each(*_BASIC)
def test_a_submit_that_never_arrived_is_not_found(shop: _Shop, sandbox: Sandbox) -> None:
    label = str(uuid4())
    shop.wait(shop.submit(shop.calls(1)))
    sandbox.fault("reset")
    with pytest.raises((SubmitUnknown, ConnectionFailed)):
        shop.submit(shop.calls(1), label)
    sandbox.heal()
    assert _found(shop, label, since=datetime.now(UTC) - timedelta(minutes=1)) is None


@_each(_MESSAGES)
def test_while_a_batch_runs_anthropic_does_not_say_whose_it_is(shop: _Shop, sandbox: Sandbox) -> None:
    sandbox.fault("batch_never")
    running = shop.submit(shop.calls(2))
    with pytest.raises(SubmitUnknown):
        shop.find("another label")
    assert shop.find("another label", known={running}, since=datetime.now(UTC)) is None
    assert shop.find("another label", since=datetime.now(UTC) + timedelta(hours=1)) is None
    shop.cancel(running)


@_each(_MESSAGES, _CONTENT)
def test_an_answer_of_5xx_leaves_a_submit_unknown(shop: _Shop, sandbox: Sandbox) -> None:
    sandbox.fault("status", status=500)
    with pytest.raises(SubmitUnknown) as unknown:
        shop.submit(shop.calls(1))
    assert unknown.value.status == 500
    sandbox.fault("garbage")
    with pytest.raises(SubmitUnknown):
        shop.submit(shop.calls(1))


@_each(*_BASIC)
def test_an_answer_of_4xx_is_a_refusal(shop: _Shop, sandbox: Sandbox) -> None:
    sandbox.fault("status", status=429, retry_after=3)
    with pytest.raises(RateLimited) as refused:
        shop.submit(shop.calls(1))
    assert refused.value.retry_after == 3


@_each(_CHAT)
def test_a_failed_upload_has_made_no_batch(shop: _Shop, sandbox: Sandbox) -> None:
    sandbox.fault("status", status=500)
    with pytest.raises(ServerError):
        shop.submit(shop.calls(1))


@_each(*_BASIC)
def test_an_unreachable_provider_has_made_no_batch(transport: Transport, shop: _Shop) -> None:
    away = replace(shop.provider, base_url="http://127.0.0.1:1")
    with pytest.raises(ConnectionFailed) as failed:
        submit(transport, away, KEY, list(shop.calls(1).items()), label="label")
    assert not failed.value.sent


def test_more_than_a_batch_may_have_is_not_sent(transport: Transport) -> None:
    with scripted((500, {})) as server:
        owner = factories.provider(server.base_url, protocol="gemini")
        call = factories.call(to=factories.route(owner), user="x" * 20_000_000)
        with pytest.raises(TooLarge) as refused:
            submit(transport, owner, KEY, [("one", call)], label="label")
    assert (refused.value.sent, server.seen) == (False, [])


# --- what a provider can do ---------------------------------------------------------------------------


def test_who_can_batch_what() -> None:
    def able(protocol: str, capability: Capability, **settings: Any) -> bool:
        return can_batch(
            factories.route(factories.provider(protocol=protocol, settings=settings)), capability
        )

    assert able("openai_compatible", Capability.TEXT)
    assert able("anthropic", Capability.VISION)
    assert able("gemini", Capability.SPEECH)
    assert not able("openai_compatible", Capability.SPEECH)
    assert not able("anthropic", Capability.EMBEDDING)
    assert not able("gemini", Capability.EMBEDDING)
    assert not able("elevenlabs", Capability.SPEECH)
    assert not able("unheard_of", Capability.TEXT)
    assert not able("openai_compatible", Capability.TEXT, batches=False)


def test_who_has_no_batch_api_takes_no_batch(transport: Transport) -> None:
    owner = factories.provider(settings={"batches": False})
    with pytest.raises(ConfigurationError, match="'acme' has no batch API"):
        submit(transport, owner, KEY, [("one", factories.call(to=factories.route(owner)))], label="label")


def test_limits_are_the_protocols_but_for_answers_of_megabytes() -> None:
    def of(protocol: str, *capabilities: str) -> tuple[int, int]:
        owner = factories.provider(protocol=protocol)
        return limits(factories.route(owner, capabilities=frozenset(capabilities)))

    assert of("openai_compatible", "text") == (50_000, 200_000_000)
    assert of("openai_compatible", "text", "image") == (50_000, 200_000_000)
    assert of("anthropic", "text") == (100_000, 256_000_000)
    assert of("gemini", "text") == (10_000, 19_000_000)
    assert of("gemini", "speech") == (50, 19_000_000)


# --- results ------------------------------------------------------------------------------------------


def _line(custom_id: str, text: str = "Hi.") -> bytes:
    body = {"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}
    return json.dumps({"custom_id": custom_id, "response": {"status_code": 200, "body": body}}).encode()


def test_results_may_be_larger_than_a_live_answer() -> None:
    ids = [str(place) for place in range(20)]
    small = Transport(max_body=10_000)
    with scripted((200, b"\n".join(_line(one, "x" * 1000) for one in ids))) as server:
        owner = factories.provider(server.base_url)
        call = factories.call(to=factories.route(owner))
        state = BatchState("batch", BatchStatus.ENDED, files=("file",))
        found = dict(results(small, owner, KEY, state, dict.fromkeys(ids, call)))
    small.close()
    assert sorted(found) == sorted(ids)
    assert {getattr(reply, "text", None) for reply in found.values()} == {"x" * 1000}


def test_results_have_a_limit_too(transport: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "MOST_RESULTS", 1000)
    with scripted((200, b"x" * 1001)) as server:
        owner = factories.provider(server.base_url)
        state = BatchState("batch", BatchStatus.ENDED, files=("file",))
        with pytest.raises(ServerError, match="exceeds 1,000 bytes"):
            list(results(transport, owner, KEY, state, {"1": factories.call(to=factories.route(owner))}))


def test_an_unreadable_line_costs_one_line(transport: Transport) -> None:
    lines = (_line("good"), b'{"custom_id": "bad", "respo', b"\xff\xfe", b"[]", b"null", _line("late"))
    with scripted((200, b"\n".join(lines))) as server:
        owner = factories.provider(server.base_url)
        calls = dict.fromkeys(("late", "bad", "good"), factories.call(to=factories.route(owner)))
        state = BatchState("batch", BatchStatus.ENDED, files=("file",))
        found = dict(results(transport, owner, KEY, state, calls))
    assert {custom_id: type(outcome) for custom_id, outcome in found.items()} == {
        "good": Reply,
        "late": Reply,
        "bad": ServerError,
    }


def test_answers_and_errors_are_read_together_or_not_at_all(transport: Transport) -> None:
    with scripted((200, _line("1")), (503, {"error": {"message": "later"}})) as server:
        owner = factories.provider(server.base_url)
        state = BatchState("batch", BatchStatus.ENDED, files=("output", "error"))
        outcomes = results(transport, owner, KEY, state, {"1": factories.call(to=factories.route(owner))})
        with pytest.raises(Overloaded):
            next(outcomes)


def test_inline_answers_without_keys_come_in_the_order_of_the_requests(transport: Transport) -> None:
    owner = factories.provider(protocol="gemini")
    call = factories.call(to=factories.route(owner))
    inline = tuple(
        {"response": {"candidates": [{"content": {"parts": [{"text": text}]}, "finishReason": "STOP"}]}}
        for text in ("of a", "of b", "of c")
    )
    state = BatchState("batches/1", BatchStatus.ENDED, inline=inline)
    found = dict(results(transport, owner, KEY, state, dict.fromkeys("cab", call)))
    assert {one: getattr(reply, "text", None) for one, reply in found.items()} == {
        "a": "of a",
        "b": "of b",
        "c": "of c",
    }
    partly = dict(results(transport, owner, KEY, state, dict.fromkeys("ca", call)))
    assert [type(outcome) for outcome in partly.values()] == [ServerError, ServerError]


_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
_NAMES = st.sampled_from(
    [
        *("custom_id", "key", "metadata", "response", "error", "result", "status_code", "body", "code"),
        *("type", "message", "choices", "content", "candidates", "parts", "text", "request_id"),
    ]
)
_WORDS = st.sampled_from(["1", "2", "x_1", "succeeded", "errored", "expired", "canceled", "batch_expired"])
_GARBAGE = st.recursive(
    _SCALARS | _WORDS | st.sampled_from([200, 400, 500, 429, 3, 13]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=5),
    max_leaves=15,
)
_ENVELOPES = st.fixed_dictionaries(
    {"custom_id": _WORDS, "metadata": st.fixed_dictionaries({"key": _WORDS})},
    optional={"response": _GARBAGE, "error": _GARBAGE, "result": _GARBAGE},
)
_DOCUMENTS = st.lists(_GARBAGE | _ENVELOPES, max_size=6)


@pytest.mark.parametrize("protocol", ["openai_compatible", "anthropic", "gemini"])
@given(documents=_DOCUMENTS, status=st.sampled_from(list(BatchStatus)))
def test_whatever_results_hold_each_call_has_one_outcome(
    protocol: str, documents: list[Any], status: BatchStatus
) -> None:
    owner = factories.provider(protocol=protocol)
    calls = dict.fromkeys(("1", "2"), factories.call(to=factories.route(owner)))
    lines = [json.dumps(document).encode() for document in documents]
    unsent = _Canned(b"\n".join(lines))
    state = BatchState("batch", status, files=("file",), inline=tuple(documents))
    found = list(results(unsent, owner, KEY, state, calls))
    assert sorted(custom_id for custom_id, _ in found) == ["1", "2"]
    assert all(isinstance(outcome, Reply | RoutingError) for _, outcome in found)


@pytest.mark.parametrize("protocol", ["openai_compatible", "anthropic"])
@settings(max_examples=50)
@given(body=st.binary(max_size=200))
def test_whatever_bytes_results_are_each_call_has_one_outcome(protocol: str, body: bytes) -> None:
    owner = factories.provider(protocol=protocol)
    calls = dict.fromkeys(("1", "2"), factories.call(to=factories.route(owner)))
    state = BatchState("batch", BatchStatus.ENDED, files=("file",))
    found = list(results(_Canned(body), owner, KEY, state, calls))
    assert [(custom_id, type(outcome)) for custom_id, outcome in found] == [
        ("1", ServerError),
        ("2", ServerError),
    ]


class _Canned(Transport):
    """Downloads always the same."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def download(self, *_: Any, file: Any, **__: Any) -> Any:
        file.write(self._body)
        return HttpResponse(200, {}, b"")


# --- keys ---------------------------------------------------------------------------------------------


def test_the_key_stays_on_the_providers_host_whatever_results_url_says(transport: Transport) -> None:
    elsewhere: list[bytes] = []
    with raw(lambda _, request: elsewhere.append(request)) as other:
        ended = {"processing_status": "ended", "results_url": f"{other.url}/v1/messages/batches/b/results"}
        with scripted((200, ended), (200, b"")) as server:
            owner = factories.provider(server.base_url, protocol="anthropic")
            state = poll(transport, owner, KEY, "b")
            list(results(transport, owner, KEY, state, {"1": factories.call(to=factories.route(owner))}))
    assert [seen.path for seen in server.seen] == ["/v1/messages/batches/b", "/v1/messages/batches/b/results"]
    assert [seen.headers["x-api-key"] for seen in server.seen] == [KEY, KEY]
    assert elsewhere == other.requests == []


def test_a_key_that_comes_back_in_a_line_is_not_shown(transport: Transport) -> None:
    echo = {"status_code": 401, "body": {"error": {"message": f"Wrong key {KEY}"}}}
    with scripted((200, {"custom_id": "1", "response": echo})) as server:
        owner = factories.provider(server.base_url)
        state = BatchState("batch", BatchStatus.ENDED, files=("file",))
        calls = {"1": factories.call(to=factories.route(owner))}
        [(_, outcome)] = results(transport, owner, KEY, state, calls)
    assert isinstance(outcome, AuthFailed)
    assert KEY not in outcome.message


@pytest.mark.parametrize("wire", _BASIC, ids=str)
def test_the_key_travels_in_headers_alone(transport: Transport, wire: _Wire) -> None:
    answer = {"id": "batch", "name": "batches/1", "processing_status": "in_progress"}
    with scripted((200, answer)) as server:
        owner = factories.provider(server.base_url, protocol=wire.protocol)
        line = ("one", factories.call(to=factories.route(owner)))
        batch_id = submit(transport, owner, KEY, [line], label="label")
        poll(transport, owner, KEY, batch_id)
        cancel(transport, owner, KEY, batch_id)
        assert find(transport, owner, KEY, label="label") is None
    assert len(server.seen) >= 4
    for seen in server.seen:
        assert KEY not in seen.path
        assert KEY.encode() not in _bytes(seen)
        assert any(KEY in value for value in seen.headers.values())


def _bytes(seen: Seen) -> bytes:
    return seen.body if isinstance(seen.body, bytes) else json.dumps(seen.body).encode()


def test_a_vendors_own_path_is_not_part_of_a_lines_url(transport: Transport) -> None:
    with scripted((200, {"id": "file"}), (200, {"id": "batch"})) as server:
        owner = factories.provider(f"{server.base_url.removesuffix('/v1')}/openai/v1")
        line = ("one", factories.call(to=factories.route(owner)))
        assert submit(transport, owner, KEY, [line], label="label") == "batch"
    upload, create = server.seen
    assert (upload.path, create.path) == ("/openai/v1/files", "/openai/v1/batches")
    assert b'"url": "/v1/chat/completions"' in upload.body
    assert create.body == {
        "input_file_id": "file",
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
        "metadata": {"orrery": "label"},
    }
