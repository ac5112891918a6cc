"""From a job and its assignment to one call: prompt rendered, parameters merged, input picked apart."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from routing.errors import InputRejected
from routing.media import AUDIO_INPUTS, IMAGE_INPUTS
from routing.schemas import is_strict
from routing.templates import check, render
from routing.values import Assignment, Attachments, Call, Capability, Feature, Prompt, Request, Route, Turn

__all__ = ["check", "compose", "default_user", "output_schema", "render", "system_text", "user_text"]

_WHOLE_INPUT = "{{ input | tojson }}"
_DEFAULT_USER = {
    Capability.IMAGE: "{{ prompt }}",
    Capability.VISION: "{{ text | default('') }}",  # the picture may speak for itself
    Capability.TRANSCRIPTION: "{{ text | default('') }}",
}
_ATTACHED = {*IMAGE_INPUTS, *AUDIO_INPUTS}
_NOTHING_ATTACHED = Attachments()
_WITH_SCHEMA = {Capability.TEXT, Capability.VISION}
_NEEDS_TEXT = {Capability.SPEECH, Capability.MODERATION, Capability.EMBEDDING, Capability.IMAGE}


def compose(
    feature: Feature,
    assignment: Assignment,
    route: Route,
    request: Request,
    attached: Attachments = _NOTHING_ATTACHED,
) -> Call:
    """What to send along `route` for `request`.

    Templates see every member of the input by name, the properties its schema names but the job left out as
    None, and the whole as `input`; the text of an attached page as `text`, and of pictures and recordings
    nothing. Raises ConfigurationError for a prompt that cannot be rendered and InputRejected for an input
    that no call can be made of.
    """
    values = _readable(request.input, attached)
    texts = _texts(values) if feature.capability is Capability.EMBEDDING else ()
    system = system_text(feature, assignment.prompt, values)
    user = "" if texts else user_text(feature, assignment.prompt, values)
    if feature.capability in _NEEDS_TEXT and not texts and not user.strip():
        raise InputRejected(f"There is nothing to send: the {feature.capability} text is empty.", field="")
    parameters = _parameters(feature, assignment, route, values)
    return Call(
        capability=Capability.VISION if attached.images else feature.capability,
        route=route,
        system=system,
        user=user,
        history=_history(values),
        texts=texts,
        voice=_voice(feature, values, parameters),
        parameters=parameters,
        end_user=_pseudonym(request.user_id),
        images=attached.images,
        audio=attached.audio,
    )


def output_schema(feature: Feature) -> Mapping[str, Any] | None:
    """What the feature's answers must fit; None where they are no text, or any will do."""
    return feature.output_schema if feature.capability in _WITH_SCHEMA else None


def _readable(values: Mapping[str, Any], attached: Attachments) -> Mapping[str, Any]:
    """The input as prompts see it."""
    if attached.page is not None:
        values = {**values, "text": attached.page}
    if values.keys() & _ATTACHED:
        values = {name: value for name, value in values.items() if name not in _ATTACHED}
    return values


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


def _parameters(
    feature: Feature, assignment: Assignment, route: Route, values: Mapping[str, Any]
) -> dict[str, Any]:
    """Model defaults under the assignment's; None unsets one, and what the model is known to refuse goes.

    What the feature's output_schema asks for stands below both, the size that a job wants for its picture
    above them.
    """
    refused = route.model.constraints.get("unsupported_params")
    unsupported = set(refused) if isinstance(refused, list | tuple) else set()
    merged = {**_expected(feature), **route.model.default_parameters, **assignment.parameters}
    if feature.capability is Capability.IMAGE and values.get("size"):
        merged["size"] = values["size"]
    return {name: value for name, value in merged.items() if value is not None and name not in unsupported}


def _expected(feature: Feature) -> dict[str, Any]:
    """The parameter that has a model answer by the feature's schema, in the form most protocols know."""
    schema = output_schema(feature)
    if schema is None:
        return {}
    described = {"name": feature.name[:64], "schema": schema, "strict": is_strict(schema)}
    return {"response_format": {"type": "json_schema", "json_schema": described}}


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
