"""Whether a job may enter the queue: what can be known before it runs is refused at the door."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from itertools import islice
from math import isfinite, log10
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match
from referencing.exceptions import Unresolvable

from routing.errors import ConfigurationError, InputRejected, NoAccess
from routing.resolver import resolve
from routing.snapshot import Snapshot
from routing.values import Plan, Request

_MOST_ERRORS = 100
_MOST_DIGITS = 20_000_000  # some megabytes more than the largest body


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
    check_storable(value, "input")
    validator = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
    try:
        # Of millions of errors a hundred tell enough: finding them all took 29 s of CPU.
        error = best_match(islice(validator.iter_errors(value), _MOST_ERRORS))
    except (RecursionError, OverflowError, Unresolvable) as failure:
        raise ConfigurationError(
            f"The input cannot be checked against the feature's input_schema ({type(failure).__name__}). "
            "Correct the schema's references and bounds, or send smaller numbers."
        ) from None
    if error is not None:
        raise InputRejected(_sentence(error), field="/".join(["input", *_path(error)]))


def check_storable(value: object, field: str) -> None:
    """Raise InputRejected where PostgreSQL could not keep the JSON value: NUL characters, lone surrogates,
    NaN, or numbers that would fill the database (jsonb writes 1e308 with 309 digits)."""
    digits = 0
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            if not _is_text(item):
                raise InputRejected("NUL characters and lone surrogates cannot be stored.", field=field)
        elif isinstance(item, float):
            if not isfinite(item):
                raise InputRejected("NaN and Infinity are no JSON numbers.", field=field)
            digits += int(abs(log10(abs(item)))) if item else 0
        elif isinstance(item, int) and not isinstance(item, bool):
            digits += item.bit_length() // 3
        elif isinstance(item, Mapping):
            waiting.extend(item)
            waiting.extend(item.values())
        elif isinstance(item, list | tuple):
            waiting.extend(item)
        if digits > _MOST_DIGITS:
            raise InputRejected(
                f"The numbers have more than {_MOST_DIGITS:,} digits written out. Send smaller ones.",
                field=field,
            )


def _is_text(text: str) -> bool:
    if "\x00" in text:
        return False
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


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
