"""Which parameters of an assignment a protocol sends."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

from routing.errors import ConfigurationError
from routing.values import Call, Capability

_OF_TEXT = frozenset(
    {
        *("max_tokens", "temperature", "top_p", "top_k", "presence_penalty", "frequency_penalty", "seed"),
        *("stop", "response_format", "reasoning_effort", "verbosity", "service_tier", "image_detail"),
    }
)

# Known to one protocol or another. Where a protocol has no field for one of these it is left out, so that an
# assignment may have backups on other protocols; they steer style and cost, not what is asked.
PORTABLE: Mapping[Capability, Set[str]] = {
    Capability.TEXT: _OF_TEXT,
    Capability.VISION: _OF_TEXT,
    Capability.SPEECH: frozenset({"response_format", "speed", "instructions", "style", "language"}),
    Capability.TRANSCRIPTION: frozenset({"language", "temperature", "response_format", "diarize"}),
    Capability.IMAGE: frozenset({"size", "quality", "background", "output_format", "output_compression"}),
    Capability.EMBEDDING: frozenset({"dimensions", "encoding_format", "task_type"}),
}

# What a model may refuse and a call can do without (drop and retry once).
DROPPABLE = (_OF_TEXT - {"verbosity"}) | {"stream", "stream_options", "random_seed"}


def accepted(call: Call, known: Set[str]) -> dict[str, Any]:
    """The call's parameters that are in `known`.

    Raises ConfigurationError for a name that neither the protocol nor any other knows: it is a slip of the
    pen, and a provider might ignore it silently.
    """
    unknown = sorted(set(call.parameters) - known - PORTABLE.get(call.capability, frozenset()))
    if unknown:
        provider = call.route.provider
        raise ConfigurationError(
            f"Parameter {unknown[0]!r} is not known for {call.capability} on {provider.protocol} (provider "
            f"{provider.slug!r}, model {call.route.model.model_id!r}). Known: "
            f"{', '.join(sorted(known)) or 'none'}. Correct the assignment's "
            f"parameters or the model's default_parameters."
        )
    return {name: value for name, value in call.parameters.items() if name in known}


def member(parameters: Mapping[str, Any], name: str, key: str) -> Any:
    """`parameters[name][key]`, or None where there is no such thing."""
    value = parameters.get(name)
    return value.get(key) if isinstance(value, Mapping) else None


def wanted_schema(parameters: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The JSON Schema that `response_format` asks for, if it does."""
    described = member(parameters, "response_format", "json_schema")
    schema = described.get("schema") if isinstance(described, Mapping) else None
    return schema if isinstance(schema, Mapping) else None
