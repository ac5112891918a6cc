"""One module per WIRE PROTOCOL, not per vendor. Pure encoding and decoding, no I/O.

What a provider can do is which codecs its protocol holds: `CODECS[protocol][capability]`. A new protocol is a
new module and one entry in `_PROTOCOLS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from routing.errors import ConfigurationError, ProviderError
from routing.providers import anthropic, openai_compatible
from routing.providers.wire import Codec, HttpRequest, HttpResponse
from routing.values import Capability, Provider, Route

__all__ = ["ALIASES", "CODECS", "PROTOCOLS", "Codec", "classify", "codec", "probe"]


@dataclass(frozen=True, slots=True)
class _WireProtocol:
    codecs: Mapping[Capability, Codec]
    classify: Callable[[HttpResponse], ProviderError]
    probe: Callable[[Provider, str | None], HttpRequest]


_PROTOCOLS: Mapping[str, _WireProtocol] = {
    "openai_compatible": _WireProtocol(
        codecs={
            Capability.TEXT: openai_compatible.Text(),
            Capability.SPEECH: openai_compatible.Speech(),
            Capability.MODERATION: openai_compatible.Moderation(),
            Capability.EMBEDDING: openai_compatible.Embedding(),
        },
        classify=openai_compatible.classify,
        probe=openai_compatible.probe,
    ),
    "anthropic": _WireProtocol(
        codecs={Capability.TEXT: anthropic.Text()},
        classify=anthropic.classify,
        probe=anthropic.probe,
    ),
}

PROTOCOLS: tuple[str, ...] = tuple(_PROTOCOLS)
ALIASES: Mapping[str, str] = {"openai": "openai_compatible", "claude": "anthropic", "google": "gemini"}
CODECS: Mapping[str, Mapping[Capability, Codec]] = {
    name: protocol.codecs for name, protocol in _PROTOCOLS.items()
}


def codec(route: Route, capability: Capability) -> Codec:
    """The codec for this route. Raises ConfigurationError where its protocol lacks the capability."""
    provider = route.provider
    codecs = _protocol(provider).codecs
    if capability not in codecs:
        raise ConfigurationError(
            f"Provider {provider.slug!r} speaks {provider.protocol}, which has no {capability} here (it has "
            f"{', '.join(codecs)}). Assign a model of another provider."
        )
    return codecs[capability]


def classify(provider: Provider, response: HttpResponse) -> ProviderError:
    """The error that an answer of status 4xx or 5xx stands for."""
    return _protocol(provider).classify(response)


def probe(provider: Provider, key: str | None) -> HttpRequest:
    """A request that costs nothing and fails for a bad key: what "test provider" sends."""
    return _protocol(provider).probe(provider, key)


def _protocol(provider: Provider) -> _WireProtocol:
    if provider.protocol not in _PROTOCOLS:
        raise ConfigurationError(
            f"Provider {provider.slug!r} has the type {provider.protocol!r}; known are "
            f"{', '.join(_PROTOCOLS)}."
        )
    return _PROTOCOLS[provider.protocol]
