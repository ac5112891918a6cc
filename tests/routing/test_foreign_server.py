"""Our adapters against a provider imitation that somebody else wrote (llmock, from the package index)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from llmock.chaos import ChaosSettings
from llmock.testing import LLMockServer

from routing.errors import Overloaded, ProviderError, RateLimited, ServerError
from routing.providers import CODECS, classify, probe
from routing.transport import Transport
from routing.values import Capability, FinishReason, Provider, Reply, Turn
from tests.routing import factories
from tests.routing.factories import KEY

_WIRE = [
    ("openai", "openai_compatible"),
    ("groq", "openai_compatible"),
    ("mistral", "openai_compatible"),
    ("anthropic", "anthropic"),
]


@pytest.fixture(scope="module")
def server() -> Iterator[LLMockServer]:
    with LLMockServer() as running:
        yield running


@pytest.fixture(scope="module")
def transport() -> Iterator[Transport]:
    made = Transport()
    yield made
    made.close()


def _reply(transport: Transport, owner: Provider, capability: Capability = Capability.TEXT) -> Reply:
    turns = (Turn("user", "Hi"), Turn("assistant", "Hello"))
    history = turns if capability is Capability.TEXT else ()
    texts = ("a", "b") if capability is Capability.EMBEDDING else ()
    call = factories.call(capability, to=factories.route(owner), history=history, texts=texts)
    speaker = CODECS[owner.protocol][capability]
    return speaker.decode(transport.send(speaker.encode(call, KEY), timeout=10, provider=owner), call)


@pytest.mark.parametrize(("vendor", "protocol"), _WIRE)
def test_text_and_probe(server: LLMockServer, transport: Transport, vendor: str, protocol: str) -> None:
    owner = factories.provider(server.base_url(vendor), protocol=protocol)
    reply = _reply(transport, owner)
    assert reply.text
    assert reply.finish_reason is FinishReason.STOP
    assert reply.served_model == "acme-large"
    assert not reply.usage.estimated
    assert transport.send(probe(owner, KEY), timeout=10, provider=owner).status == 200


def test_embeddings(server: LLMockServer, transport: Transport) -> None:
    reply = _reply(transport, factories.provider(server.base_url()), Capability.EMBEDDING)
    assert len(reply.embeddings) == 2


@pytest.mark.parametrize(("vendor", "protocol"), _WIRE)
@pytest.mark.parametrize(("status", "expected"), [(429, RateLimited), (500, ServerError), (503, Overloaded)])
def test_errors(
    transport: Transport, vendor: str, protocol: str, status: int, expected: type[ProviderError]
) -> None:
    with LLMockServer(chaos=ChaosSettings(error_rates={status: 1.0})) as broken:
        owner = factories.provider(broken.base_url(vendor), protocol=protocol)
        speaker = CODECS[protocol][Capability.TEXT]
        request = speaker.encode(factories.call(to=factories.route(owner)), KEY)
        response = transport.send(request, timeout=10, provider=owner)
    assert type(classify(owner, response)) is expected
