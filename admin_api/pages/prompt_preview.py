"""What a prompt says to a sample of a feature's input, before it is saved."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from admin_api.bodies import parse
from admin_api.features import Feature
from admin_api.refusals import Invalid, Malformed
from routing import prompts, values
from routing.admission import check_input
from routing.errors import ConfigurationError, RoutingError
from routing.values import Capability, Prompt

_MEMBERS = 40


@dataclass(frozen=True, slots=True)
class Preview:
    """The templates, filled in. `errors`: by `system`, `user` and `sample`, with the line it is about."""

    system: str | None
    user: str | None
    errors: Mapping[str, str]


def sample_of(feature: Feature) -> str:
    """The example of the feature's schema, as people edit it."""
    return json.dumps(_example(feature), indent=2, ensure_ascii=False)


def members_of(feature: Feature) -> list[str]:
    """What templates can name: the first members of the feature's input."""
    members = feature.input_schema.get("properties")
    return list(members)[:_MEMBERS] if isinstance(members, dict) else []


def default_user(feature: Feature) -> str:
    """The user template that counts where the prompt has none."""
    return prompts.default_user(_routed(feature), _example(feature))


def previewed(feature: Feature, system: str, user: str, sample: str) -> Preview:
    """What workers would send, were this the prompt and that a job's input. Nothing is called."""
    errors: dict[str, str] = {}
    given = _read(feature, sample, errors)
    routed = _routed(feature)
    prompt = Prompt(feature.id, 0, system or None, user or None)
    filled: dict[str, str | None] = {}
    for name, fill in (("system", prompts.system_text), ("user", prompts.user_text)):
        try:
            filled[name] = fill(routed, prompt, given)
        except ConfigurationError as error:
            filled[name], errors[name] = None, error.message
    return Preview(filled["system"], filled["user"], errors)


def _read(feature: Feature, sample: str, errors: dict[str, str]) -> Mapping[str, Any]:
    try:
        given = parse(sample.encode()) if sample.strip() else {}
        check_input(feature.input_schema, given)
    except (Malformed, Invalid) as error:
        errors["sample"] = error.message.replace("The body", "The sample", 1)
        return {}
    except RoutingError as error:
        errors["sample"] = error.message
    return given if isinstance(given, dict) else {}


def _example(feature: Feature) -> Mapping[str, Any]:
    example = feature.input_schema.get("example")
    return example if isinstance(example, dict) else {}


def _routed(feature: Feature) -> values.Feature:
    return values.Feature(
        id=feature.id,
        name=feature.name,
        capability=Capability(feature.capability),
        lane=feature.lane,
        input_schema=feature.input_schema,
        is_active=feature.is_active,
    )
