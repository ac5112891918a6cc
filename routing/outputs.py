"""Answers that must fit a schema: checked always, whatever the provider promised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from routing.errors import ConfigurationError, OutputRejected
from routing.providers.replies import json_value
from routing.schemas import flaw
from routing.values import Call, FinishReason, Reply, Turn


def checked(reply: Reply, schema: Mapping[str, Any]) -> Reply:
    """`reply` with the value that its text states as `data`. Raises OutputRejected where it does not fit."""
    text = reply.text or ""
    value = json_value(text)
    problem = "it is no JSON." if value is None else _problem(schema, value)
    if problem is None:
        return replace(reply, data=value)
    raise OutputRejected(
        problem,
        text=text,
        was_cut=reply.finish_reason is FinishReason.LENGTH,
        usage=reply.usage,
        request_id=reply.request_id,
    )


def repaired(call: Call, error: OutputRejected) -> Call:
    """The call that shows the model its answer and what is wrong with it."""
    if not call.user.strip():  # a picture alone: no provider takes an empty message into a conversation
        return replace(call, user=f"{error.text}\n\n{error.message}")
    history = (*call.history, Turn("user", call.user), Turn("assistant", error.text))
    return replace(call, history=history, user=error.message)


def _problem(schema: Mapping[str, Any], value: Any) -> str | None:
    try:
        found = flaw(schema, value, field="output_schema")
    except ConfigurationError as error:
        return error.message
    return None if found is None else f"{'/'.join(found.path) or 'the whole'}: {found.sentence}"
