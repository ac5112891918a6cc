"""From a job and its assignment to one call: prompt rendered, parameters merged, input picked apart."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from routing.errors import InputRejected
from routing.templates import check, render
from routing.values import Assignment, Call, Capability, Feature, Prompt, Request, Route, Turn

__all__ = ["check", "compose", "default_user", "render", "system_text", "user_text"]

_WHOLE_INPUT = "{{ input | tojson }}"
_DEFAULT_USER = {
    Capability.IMAGE: "{{ prompt }}",
    Capability.VISION: "{{ text | default('') }}",  # the picture may speak for itself
    Capability.TRANSCRIPTION: "{{ text | default('') }}",
}
_NEEDS_TEXT = {Capability.SPEECH, Capability.MODERATION, Capability.EMBEDDING, Capability.IMAGE}


def compose(feature: Feature, assignment: Assignment, route: Route, request: Request) -> Call:
    """What to send along `route` for `request`.

    Templates see every member of the input by name, the properties its schema names but the job left out as
    None, and the whole as `input`. Raises ConfigurationError for a prompt that cannot be rendered and
    InputRejected for an input that no call can be made of.
    """
    texts = _texts(request.input) if feature.capability is Capability.EMBEDDING else ()
    system = system_text(feature, assignment.prompt, request.input)
    user = "" if texts else user_text(feature, assignment.prompt, request.input)
    if feature.capability in _NEEDS_TEXT and not texts and not user.strip():
        raise InputRejected(f"There is nothing to send: the {feature.capability} text is empty.", field="")
    parameters = _parameters(assignment, route)
    return Call(
        capability=feature.capability,
        route=route,
        system=system,
        user=user,
        history=_history(request.input),
        texts=texts,
        voice=_voice(feature, request.input, parameters),
        parameters=parameters,
        end_user=_pseudonym(request.user_id),
    )


def system_text(feature: Feature, prompt: Prompt | None, values: Mapping[str, Any]) -> str | None:
    """The system template, filled in; None where it comes to nothing. Raises ConfigurationError."""
    if prompt is None or not prompt.system:
        return None
    text = render(prompt.system, _variables(feature, values))
    return text if text.strip() else None


def user_text(feature: Feature, prompt: Prompt | None, values: Mapping[str, Any]) -> str:
    """The user template, or the capability's default, filled in. Raises ConfigurationError."""
    template = prompt.user if prompt and prompt.user else default_user(feature, values)
    return render(template, _variables(feature, values))


def _variables(feature: Feature, values: Mapping[str, Any]) -> dict[str, Any]:
    properties = feature.input_schema.get("properties")
    absent = dict.fromkeys(properties) if isinstance(properties, Mapping) else {}
    return {**absent, **values, "input": values}


def default_user(feature: Feature, values: Mapping[str, Any]) -> str:
    """The user template where the prompt has none."""
    if feature.capability is Capability.TEXT:
        return "{{ message }}" if "message" in values else _WHOLE_INPUT
    return _DEFAULT_USER.get(feature.capability, "{{ text }}")


def _parameters(assignment: Assignment, route: Route) -> dict[str, Any]:
    """Model defaults under the assignment's; None unsets one, and what the model is known to refuse goes."""
    refused = route.model.constraints.get("unsupported_params")
    unsupported = set(refused) if isinstance(refused, list | tuple) else set()
    merged = {**route.model.default_parameters, **assignment.parameters}
    return {name: value for name, value in merged.items() if value is not None and name not in unsupported}


def _voice(feature: Feature, values: Mapping[str, Any], parameters: dict[str, Any]) -> str | None:
    """The job's voice, else the configured one, which is thereby no parameter any more."""
    if feature.capability is not Capability.SPEECH:
        return None
    configured = parameters.pop("voice", None)
    voice = values.get("voice") or configured
    return None if voice is None else str(voice)


def _history(values: Mapping[str, Any]) -> tuple[Turn, ...]:
    history = values.get("history")
    if not isinstance(history, list):
        return ()
    return tuple(_turn(entry, f"/history/{index}") for index, entry in enumerate(history))


def _turn(entry: Any, field: str) -> Turn:
    if isinstance(entry, Mapping):
        role, content = entry.get("role"), entry.get("content")
        if role in ("user", "assistant") and isinstance(content, str):
            return Turn(role, content)
    raise InputRejected(
        "A message of `history` needs a `role` (user or assistant) and a text `content`.", field=field
    )


def _texts(values: Mapping[str, Any]) -> tuple[str, ...]:
    texts = values.get("texts")
    if texts is None:
        return ()
    if not isinstance(texts, list) or not texts or not all(isinstance(t, str) and t for t in texts):
        raise InputRejected("`texts` must be a list of non-empty texts.", field="/texts")
    return tuple(texts)


def _pseudonym(user_id: str | None) -> str | None:
    """What a provider may know of an end user: stable, and not who it is."""
    return None if user_id is None else hashlib.sha256(user_id.encode()).hexdigest()[:32]
