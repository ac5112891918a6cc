"""Whether a job may enter the queue: what can be known before it runs is refused at the door."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from math import isfinite, log10
from typing import Any

from routing.errors import ConfigurationError, InputRejected, NoAccess
from routing.resolver import resolve
from routing.schemas import flaw, plainly_fits
from routing.snapshot import Snapshot
from routing.values import Plan, Request

MOST_LEVELS = 200  # of a value; checks of schemas recurse
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
        said = f"Nothing can serve feature {request.feature!r} now. {reasons}"
        denied = any(passed.error_class == NoAccess.error_class for passed in plan.passed_over)
        if denied:
            raise NoAccess(said, hint="PUT /personal-keys/{provider_id} stores a key of your own.")
        raise ConfigurationError(said)
    return plan


def check_input(schema: Mapping[str, Any], value: object) -> None:
    """Raise InputRejected, naming the first offending field, where `value` breaks the JSON Schema."""
    check_storable(value, "input")
    if plainly_fits(schema, value):
        return
    found = flaw(schema, value, field="input_schema")
    if found is not None:
        raise InputRejected(found.sentence, field="/".join(["input", *found.path]))


def check_storable(value: object, field: str) -> None:
    """Raise InputRejected where PostgreSQL could not keep the JSON value: NUL characters, lone surrogates,
    NaN, numbers that would fill the database (jsonb writes 1e308 with 309 digits), or endless nesting."""
    digits = 0
    level: list[Any] = [value]
    for _ in range(MOST_LEVELS):
        deeper: list[Any] = []
        for item in level:
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
                deeper.extend(item)
                deeper.extend(item.values())
            elif isinstance(item, list | tuple):
                deeper.extend(item)
            if digits > _MOST_DIGITS:
                raise InputRejected(
                    f"The numbers have more than {_MOST_DIGITS:,} digits written out. Send smaller ones.",
                    field=field,
                )
        if not deeper:
            return
        level = deeper
    raise InputRejected(f"It is nested deeper than {MOST_LEVELS} levels. Send a flatter one.", field=field)


def _is_text(text: str) -> bool:
    if "\x00" in text:
        return False
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False
