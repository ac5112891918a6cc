"""Whether a job may enter the queue: what can be known before it runs is refused at the door."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match

from routing.errors import ConfigurationError, InputRejected, NoAccess
from routing.resolver import resolve
from routing.snapshot import Snapshot
from routing.values import Plan, Request


def admit(snapshot: Snapshot, request: Request, *, now: datetime) -> Plan:
    """The plan that would serve `request` now.

    Raises:
        UnknownFeature: no feature has this name.
        InputRejected: the input breaks the feature's schema.
        ConfigurationError, NoAccess: no route would serve it; the message names the row to mend.
    """
    plan = resolve(snapshot, request, now=now)
    check_input(plan.feature.input_schema, request.input)
    if not plan.routes:
        reasons = " ".join(passed.reason for passed in plan.passed_over) or "Its assignment has no targets."
        denied = any(passed.error_class == NoAccess.error_class for passed in plan.passed_over)
        raise (NoAccess if denied else ConfigurationError)(
            f"Nothing can serve feature {request.feature!r} now. {reasons}"
        )
    return plan


def check_input(schema: Mapping[str, Any], value: object) -> None:
    """Raise InputRejected, naming the first offending field, where `value` breaks the JSON Schema."""
    validator = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
    error = best_match(validator.iter_errors(value))
    if error is not None:
        raise InputRejected(_sentence(error), field="/".join(["input", *_path(error)]))


def _path(error: ValidationError) -> Iterable[str]:
    path = [str(part) for part in error.absolute_path]
    names = error.validator_value
    if error.validator == "required" and isinstance(error.instance, dict) and isinstance(names, list):
        missing = next((name for name in names if name not in error.instance), None)
        return path if missing is None else [*path, missing]
    return path


def _sentence(error: ValidationError) -> str:
    """jsonschema's message, bounded: it quotes the whole offending value, which may be megabytes."""
    message = error.message if len(error.message) <= 300 else f"{error.message[:300]}…"
    expected = error.schema.get("description") if isinstance(error.schema, dict) else None
    return f"{message} ({expected})" if expected else message
