"""One suite for all adapters, over real HTTP, against the sandbox and, where it speaks the protocol, against
an imitation that somebody else wrote (llmock, from the package index)."""

from __future__ import annotations

import io
import wave
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from llmock.chaos import ChaosSettings
from llmock.testing import LLMockServer

from routing.errors import AuthFailed, Overloaded, ProviderError, QuotaExhausted, RateLimited, ServerError
from routing.media import audio_type, image_type
from routing.providers import CODECS, classify, codec, probe
from routing.transport import Transport
from routing.values import (
    Call,
    Capability,
    FinishReason,
    Media,
    Provider,
    Reply,
    Route,
    Turn,
)
from tests.routing import factories
from tests.routing.factories import KEY, png
from tests.routing.runs import ran
from tests.sandbox import Sandbox

_TEXTS = (Capability.TEXT, Capability.VISION)


@dataclass(frozen=True)
class _Wire:
    """One way to be spoken to: by a server, in a protocol and a style of it."""

    server: str
    vendor: str
    protocol: str
    style: str = "chat"

    def __str__(self) -> str:
        return f"{self.server}-{self.vendor}-{self.style}"


_SANDBOX = (
    _Wire("sandbox", "openai", "openai_compatible"),
    _Wire("sandbox", "openai", "openai_compatible", "responses"),
    _Wire("sandbox", "anthropic", "anthropic"),
    _Wire("sandbox", "gemini", "gemini"),
    _Wire("sandbox", "elevenlabs", "elevenlabs"),
)
_FOREIGN = (
    _Wire("llmock", "openai", "openai_compatible"),
    _Wire("llmock", "openai", "openai_compatible", "responses"),
    _Wire("llmock", "groq", "openai_compatible"),
    _Wire("llmock", "mistral", "openai_compatible"),
    _Wire("llmock", "anthropic", "anthropic"),
    _Wire("llmock", "gemini", "gemini"),
)
_FOREIGN_SERVES = {
    "openai": {*_TEXTS, Capability.EMBEDDING},
    "gemini": {*_TEXTS},
    "anthropic": {*_TEXTS},
}


def _capabilities(wire: _Wire) -> list[Capability]:
    able = list(CODECS[wire.protocol])
    if wire.style == "responses":
        return [capability for capability in able if capability in _TEXTS]
    if wire.server == "llmock":
        return [c for c in able if c in _FOREIGN_SERVES.get(wire.vendor, {Capability.TEXT})]
    return able


_ALL = [(wire, capability) for wire in (*_SANDBOX, *_FOREIGN) for capability in _capabilities(wire)]
_SPOKEN = [(wire, capability) for wire, capability in _ALL if wire.server == "sandbox"]
_FIRST = [(wire, _capabilities(wire)[0]) for wire in (*_SANDBOX, *_FOREIGN)]


@pytest.fixture(scope="module")
def foreign() -> Iterator[LLMockServer]:
    with LLMockServer() as running:
        yield running


@pytest.fixture(scope="module")
def transport() -> Iterator[Transport]:
    made = Transport()
    yield made
    made.close()


def _base_url(wire: _Wire, sandbox: Sandbox, foreign: LLMockServer) -> str:
    if wire.server == "sandbox":
        return str(getattr(sandbox, wire.vendor))
    return foreign.base_url(wire.vendor).removesuffix("/v1beta")


Owner = Callable[..., Provider]


@pytest.fixture
def owner(sandbox: Sandbox, foreign: LLMockServer) -> Owner:
    def make(wire: _Wire, key: str = KEY) -> Provider:
        return factories.provider(_base_url(wire, sandbox, foreign), protocol=wire.protocol, key=key)

    return make


def _route(wire: _Wire, owner: Provider, model_id: str = "acme-large") -> Route:
    return factories.route(owner, model_id=model_id, api_style=wire.style, max_output_tokens=500)


def _recording(transport: Transport, sandbox: Sandbox, text: str = "Hello, stars.") -> Media:
    """What the sandbox says when it is given a text to speak."""
    to = factories.route(factories.provider(sandbox.openai))
    call = factories.call(Capability.SPEECH, to=to, user=text, voice="alloy")
    spoken = _reply(transport, call)
    assert spoken.artifact is not None
    return Media(spoken.artifact, "audio/wav")


def _call(wire: _Wire, capability: Capability, owner: Provider, recording: Media | None = None) -> Call:
    turns = (Turn("user", "Hi"), Turn("assistant", "Hello"))
    return factories.call(
        capability,
        to=_route(wire, owner),
        history=turns if capability in _TEXTS else (),
        texts=("a", "b") if capability is Capability.EMBEDDING else (),
        images=(Media(png(), "image/png"),) if capability is Capability.VISION else (),
        voice="alloy" if capability is Capability.SPEECH else None,
        audio=recording if capability is Capability.TRANSCRIPTION else None,
        parameters={"response_format": "wav"} if capability is Capability.SPEECH else {},
    )


def _reply(transport: Transport, call: Call, key: str = KEY) -> Reply:
    speaker = codec(call.route, call.capability)
    request = speaker.encode(call, key)
    return speaker.decode(transport.send(request, timeout=10, provider=call.route.provider), call)


def _error(transport: Transport, call: Call, key: str = KEY) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        _reply(transport, call, key)
    return caught.value


@pytest.mark.parametrize(("wire", "capability"), _ALL, ids=str)
def test_each_capability_answers(
    wire: _Wire, capability: Capability, owner: Owner, transport: Transport, sandbox: Sandbox
) -> None:
    needs_sound = capability is Capability.TRANSCRIPTION
    recording = _recording(transport, sandbox) if needs_sound else None
    reply = _reply(transport, _call(wire, capability, owner(wire), recording))
    match capability:
        case Capability.TEXT | Capability.VISION:
            assert reply.text
            assert reply.finish_reason is FinishReason.STOP
            says_nothing = (wire.server, wire.vendor) == ("llmock", "gemini")
            assert reply.served_model == (None if says_nothing else "acme-large")
            assert not reply.usage.estimated
            assert (reply.usage.output_tokens or 0) > 0
        case Capability.SPEECH:
            assert audio_type(reply.artifact or b"") == reply.media_type == "audio/wav"
            with wave.open(io.BytesIO(reply.artifact or b"")) as sound:
                assert sound.getnframes() / sound.getframerate() > 0.3
            assert reply.usage.characters == len("Hello, stars.")
        case Capability.TRANSCRIPTION:
            assert reply.text == "Hello, stars."
            assert (reply.usage.seconds or reply.usage.input_tokens or 0) > 0
        case Capability.IMAGE:
            assert image_type(reply.artifact or b"") == reply.media_type == "image/png"
            assert reply.usage.images == 1
        case Capability.EMBEDDING:
            assert len(reply.embeddings) == 2
            assert reply.embeddings[0] != reply.embeddings[1]
        case Capability.MODERATION:
            assert reply.flagged is False


@pytest.mark.parametrize("wire", [*_SANDBOX, *_FOREIGN], ids=str)
def test_a_key_is_tested_for_nothing(wire: _Wire, owner: Owner, transport: Transport) -> None:
    made = owner(wire)
    assert transport.send(probe(made, KEY), timeout=10, provider=made).status == 200


@pytest.mark.parametrize("wire", _SANDBOX, ids=str)
def test_a_bad_key_is_a_bad_key(wire: _Wire, owner: Owner, transport: Transport) -> None:
    made = owner(wire)
    response = transport.send(probe(made, "bad-key"), timeout=10, provider=made)
    assert type(classify(made, response)) is AuthFailed
    assert type(_error(transport, _call(wire, _capabilities(wire)[0], made), "bad-key")) is AuthFailed


@pytest.mark.parametrize("wire", [w for w in _SANDBOX if Capability.TEXT in _capabilities(w)], ids=str)
def test_counts_follow_each_protocols_convention(wire: _Wire, owner: Owner, transport: Transport) -> None:
    plain = _reply(transport, factories.call(to=_route(wire, owner(wire), "m"))).usage
    wished = _route(wire, owner(wire), "m+cached-8+reasoning-40")
    usage = _reply(transport, factories.call(to=wished)).usage
    assert usage.input_tokens == plain.input_tokens
    assert (usage.cached_tokens, usage.reasoning_tokens) == (8, 40)
    assert (usage.output_tokens or 0) > 40


@pytest.mark.parametrize("wire", [w for w in _SANDBOX if Capability.TEXT in _capabilities(w)], ids=str)
def test_what_is_cut_off_says_so(wire: _Wire, owner: Owner, transport: Transport) -> None:
    call = factories.call(to=_route(wire, owner(wire)), parameters={"max_tokens": 16})
    assert _reply(transport, call).finish_reason is FinishReason.LENGTH


@pytest.mark.parametrize("wire", [w for w in _SANDBOX if Capability.TEXT in _capabilities(w)], ids=str)
def test_an_output_schema_is_asked_for_and_met(wire: _Wire, owner: Owner) -> None:
    schema = {
        "type": "object",
        "properties": {"title": {"type": "string"}, "salary": {"type": "integer", "minimum": 70_000}},
        "required": ["title", "salary"],
        "additionalProperties": False,
    }
    of = factories.feature(output_schema=schema)
    outcome = ran(factories.plan(_route(wire, owner(wire)), of=of, user="What is offered?"))
    assert outcome.reply is not None, outcome.error_message
    assert set(outcome.reply.data) == {"title", "salary"}
    assert len(outcome.attempts) == 1, "the provider was told of the schema"


# --- what goes wrong ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("wire", "capability"), _SPOKEN, ids=str)
@pytest.mark.parametrize(
    ("status", "retry_after", "code", "expected"),
    [
        (429, 7.0, None, RateLimited),
        (429, 7.0, "insufficient_quota", QuotaExhausted),
        (500, None, None, ServerError),
        (503, None, None, Overloaded),
        (529, None, None, Overloaded),
    ],
)
def test_scripted_statuses(
    wire: _Wire,
    capability: Capability,
    status: int,
    retry_after: float | None,
    code: str | None,
    expected: type[ProviderError],
    owner: Owner,
    transport: Transport,
    sandbox: Sandbox,
) -> None:
    sandbox.fault("status", status=status, retry_after=retry_after, code=code)
    sound = Media(b"RIFF\x00\x00\x00\x00WAVE", "audio/wav")
    error = _error(transport, _call(wire, capability, owner(wire), sound))
    assert type(error) is expected
    assert error.status == status
    if expected is RateLimited:
        assert error.retry_after == retry_after


@pytest.mark.parametrize(("wire", "capability"), _SPOKEN, ids=str)
@pytest.mark.parametrize("mode", ["truncate", "garbage", "reset"])
def test_broken_answers(
    wire: _Wire, capability: Capability, mode: str, owner: Owner, transport: Transport, sandbox: Sandbox
) -> None:
    recording = _recording(transport, sandbox) if capability is Capability.TRANSCRIPTION else None
    call = _call(wire, capability, owner(wire), recording)
    sandbox.fault(mode)
    error = _error(transport, call)
    assert (error.error_class, error.tries_backup, error.retryable) == (
        "server_error" if mode == "garbage" else "connection",
        True,
        True,
    )


@pytest.mark.parametrize(("wire", "capability"), _FIRST, ids=str)
def test_failover_is_the_same_whoever_fails(
    wire: _Wire, capability: Capability, owner: Owner, sandbox: Sandbox
) -> None:
    made = owner(wire)
    with ExitStack() as stack:
        if wire.server == "llmock":
            broken = stack.enter_context(LLMockServer(chaos=ChaosSettings(error_rates={503: 1.0})))
            made = factories.provider(_base_url(wire, sandbox, broken), protocol=wire.protocol, key=KEY)
        else:
            sandbox.fault("status", protocol=wire.vendor, status=503)
        parameters = {"voice": "alloy"} if capability is Capability.SPEECH else {}
        plan = factories.plan(_route(wire, made), capability=capability, parameters=parameters)
        outcome = ran(plan, {"text": "Hi."})
    assert (outcome.error_class, outcome.retryable) == ("overloaded", True)
    assert [attempt.status for attempt in outcome.attempts] == [503]


@pytest.mark.parametrize("wire", _FOREIGN, ids=str)
@pytest.mark.parametrize(("status", "expected"), [(429, RateLimited), (500, ServerError), (503, Overloaded)])
def test_foreign_errors(
    wire: _Wire, status: int, expected: type[ProviderError], transport: Transport, sandbox: Sandbox
) -> None:
    with LLMockServer(chaos=ChaosSettings(error_rates={status: 1.0})) as broken:
        made = factories.provider(_base_url(wire, sandbox, broken), protocol=wire.protocol)
        assert type(_error(transport, _call(wire, Capability.TEXT, made))) is expected
