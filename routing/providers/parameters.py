"""Which parameters of an assignment a protocol sends."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

from routing.errors import ConfigurationError
from routing.values import Call

# Known to one text protocol or another. Where a protocol has no field for one of these it is left out, so
# that an assignment may have backups on other protocols; they steer style and cost, not what is asked.
PORTABLE = frozenset(
    {
        *("max_tokens", "temperature", "top_p", "top_k", "presence_penalty", "frequency_penalty", "seed"),
        *("stop", "response_format", "reasoning_effort", "verbosity", "service_tier"),
    }
)

# What a model may refuse and a call can do without (drop and retry once).
DROPPABLE = (PORTABLE - {"verbosity"}) | {"stream_options", "random_seed"}


def accepted(call: Call, known: Set[str], *, portable: Set[str] = PORTABLE) -> dict[str, Any]:
    """The call's parameters that are in `known`.

    Raises ConfigurationError for a name that neither the protocol nor any other knows: it is a slip of the
    pen, and a provider might ignore it silently.
    """
    unknown = sorted(set(call.parameters) - known - portable)
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
