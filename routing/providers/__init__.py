"""One module per WIRE PROTOCOL, not per vendor. Pure encoding and decoding, no I/O.

What a provider can do is which codecs its protocol holds: `CODECS[protocol][capability]`. A new protocol is a
new module and one entry in `_PROTOCOLS`. Where a protocol has two ways to say the same, a model's `api_style`
chooses. Its batch API, if it has one, takes the bodies of those codecs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from routing.errors import ConfigurationError, ProviderError
from routing.providers import (
    anthropic,
    anthropic_batches,
    elevenlabs,
    gemini,
    gemini_batches,
    gemini_media,
    openai_batches,
    openai_compatible,
    openai_media,
    openai_responses,
)
from routing.providers.batches import BatchCodec
from routing.providers.wire import Codec, HttpRequest, HttpResponse
from routing.values import Capability, Provider, Route

__all__ = [
    "ALIASES",
    "CODECS",
    "PROTOCOLS",
    "Codec",
    "batch_codec",
    "classify",
    "codec",
    "probe",
    "second_probe",
]


_Probe: TypeAlias = Callable[[Provider, str | None], HttpRequest]
_Codecs: TypeAlias = Mapping[Capability, Codec]


@dataclass(frozen=True, slots=True)
class _WireProtocol:
    codecs: _Codecs
    classify: Callable[[HttpResponse], ProviderError]
    probe: _Probe
    second_probe: _Probe | None = None
    styles: Mapping[str, _Codecs] = field(default_factory=dict)
    batches: BatchCodec | None = None


_PROTOCOLS: Mapping[str, _WireProtocol] = {
    "openai_compatible": _WireProtocol(
        codecs={
            Capability.TEXT: openai_compatible.Text(),
            Capability.VISION: openai_compatible.Text(),
            Capability.SPEECH: openai_media.Speech(),
            Capability.TRANSCRIPTION: openai_media.Transcription(),
            Capability.MODERATION: openai_media.Moderation(),
            Capability.EMBEDDING: openai_media.Embedding(),
            Capability.IMAGE: openai_media.Image(),
        },
        styles={
            "responses": {
                Capability.TEXT: openai_responses.Text(),
                Capability.VISION: openai_responses.Text(),
            }
        },
        classify=openai_compatible.classify,
        probe=openai_compatible.probe,
        batches=openai_batches.Batches(),
    ),
    "anthropic": _WireProtocol(
        codecs={Capability.TEXT: anthropic.Text(), Capability.VISION: anthropic.Text()},
        classify=anthropic.classify,
        probe=anthropic.probe,
        batches=anthropic_batches.Batches(),
    ),
    "gemini": _WireProtocol(
        codecs={
            Capability.TEXT: gemini.Text(),
            Capability.VISION: gemini.Text(),
            Capability.SPEECH: gemini_media.Speech(),
            Capability.TRANSCRIPTION: gemini_media.Transcription(),
            Capability.EMBEDDING: gemini_media.Embedding(),
            Capability.IMAGE: gemini_media.Image(),
        },
        classify=gemini.classify,
        probe=gemini.probe,
        batches=gemini_batches.Batches(),
    ),
    "elevenlabs": _WireProtocol(
        codecs={
            Capability.SPEECH: elevenlabs.Speech(),
            Capability.TRANSCRIPTION: elevenlabs.Transcription(),
        },
        classify=elevenlabs.classify,
        probe=elevenlabs.probe,
        second_probe=elevenlabs.second_probe,
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
    protocol = _protocol(provider)
    codecs = protocol.codecs
    styled = protocol.styles.get(route.model.api_style, {})
    if capability in styled:
        return styled[capability]
    if capability not in codecs:
        raise ConfigurationError(
            f"Provider {provider.slug!r} speaks {provider.protocol}, which has no {capability} here (it has "
            f"{', '.join(codecs)}). Assign a model of another provider."
        )
    return codecs[capability]


def batch_codec(provider: Provider) -> BatchCodec:
    """What speaks the provider's batch API. Raises ConfigurationError where it has none."""
    batches = _protocol(provider).batches
    if batches is None or provider.settings.get("batches", True) is False:
        raise ConfigurationError(f"Provider {provider.slug!r} has no batch API.")
    return batches


def classify(provider: Provider, response: HttpResponse) -> ProviderError:
    """The error that an answer of status 4xx or 5xx stands for."""
    return _protocol(provider).classify(response)


def probe(provider: Provider, key: str | None) -> HttpRequest:
    """A request that costs nothing and fails for a bad key: what "test provider" sends."""
    return _protocol(provider).probe(provider, key)


def second_probe(provider: Provider, key: str | None) -> HttpRequest | None:
    """What to send where the first was refused: some keys may do less than that asks for. None = nothing."""
    ask = _protocol(provider).second_probe
    return None if ask is None else ask(provider, key)


def _protocol(provider: Provider) -> _WireProtocol:
    if provider.protocol not in _PROTOCOLS:
        raise ConfigurationError(
            f"Provider {provider.slug!r} has the type {provider.protocol!r}; known are "
            f"{', '.join(_PROTOCOLS)}."
        )
    return _PROTOCOLS[provider.protocol]
