"""The inputs of a schedule in its form: of each member of the feature's input its values, one a line."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from admin_api.bodies import parse
from admin_api.errors import FieldProblem
from admin_api.pages.controls import Control, Filled, Kind
from admin_api.pages.route import SentForm
from admin_api.refusals import FieldError, Invalid, Malformed

FIELD = "inputs_matrix"

_MEMBER = "member"  # names each field that the form had: one without a tick is not sent
_LINES, _JSON, _REST = "lines.", "json.", "rest"
_SCALARS = ("string", "integer", "number", "boolean")
_COUNTED = {"data-soon": "count"}
_TEXT: Mapping[str, Any] = {"type": "string"}
_UNREADABLE = (Malformed, Invalid)


@dataclass(frozen=True, slots=True)
class Inputs:
    """The fields of the matrix by the members they are for, and what is wrong with all of it."""

    fields: Mapping[str, Filled]
    rest: Filled | None
    error: str


def filled(
    schema: Mapping[str, Any],
    stored: Mapping[str, Any],
    typed: SentForm | None,
    errors: Sequence[FieldProblem],
) -> Inputs:
    """The fields with what is stored, or with what was typed, and what was refused of it."""
    members = _members(schema)
    shown = set() if typed is None else set(typed.all(_MEMBER))
    fields = {
        name: _typed(name, member, typed, errors)
        if typed is not None and name in shown
        else _field(name, member, _listed(stored[name]) if name in stored else [], errors)
        for name, member in members.items()
    }
    others = {name: values for name, values in stored.items() if name not in members}
    rest = None
    if others or schema.get("additionalProperties") is not False:
        rest = _rest(others, typed, [each for each in errors if _member_of(each) not in members])
    elsewhere = [each.message for each in errors if rest is None and _member_of(each) not in members]
    return Inputs(fields, rest, " ".join(elsewhere))


def read(schema: Mapping[str, Any], sent: SentForm) -> tuple[dict[str, Any], list[FieldError]]:
    """The matrix that was typed, and what of it cannot be read. A member without values is left out."""
    members = _members(schema)
    matrix: dict[str, Any] = {}
    unread: list[FieldError] = []
    for name in sent.all(_MEMBER):
        try:
            values = _values(name, members.get(name, _TEXT), sent)
        except _UNREADABLE as error:
            unread.append(_unreadable(f"{FIELD}/{name}", error))
            continue
        if values:
            matrix[name] = values
    try:
        rest = parse(sent.get(_REST).encode()) if sent.get(_REST).strip() else {}
    except _UNREADABLE as error:
        return matrix, [*unread, _unreadable(FIELD, error)]
    if not isinstance(rest, dict):
        unread.append(FieldError(FIELD, 'Other members are a JSON object: {"name": ["value"]}.'))
        return matrix, unread
    return rest | matrix, unread


def usual(schema: Mapping[str, Any]) -> dict[str, Any]:
    """What a new schedule begins with: values that are listed, the date that it fires on, and the example."""
    example = schema.get("example")
    known = example if isinstance(example, Mapping) else {}
    required = schema.get("required", ())
    found: dict[str, Any] = {}
    for name, member in _members(schema).items():
        if name in required and _options(member):
            found[name] = list(_options(member))
        elif member.get("format") == "date":
            found[name] = ["{{ date }}"]
        elif name in known:
            found[name] = [known[name]]
    return found


def jobs(matrix: Mapping[str, Any]) -> int:
    """How many jobs each firing makes."""
    return math.prod(len(_listed(values)) for values in matrix.values())


def _members(schema: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    """Those that the schema names, the required ones first."""
    found = schema.get("properties")
    if not isinstance(found, Mapping):
        return {}
    required = schema.get("required", ())
    names = sorted(found, key=lambda name: name not in required)  # the database keeps no order
    return {name: found[name] if isinstance(found[name], Mapping) else {} for name in names}


def _field(name: str, schema: Mapping[str, Any], values: list[Any], errors: Sequence[FieldProblem]) -> Filled:
    options = _options(schema)
    if options and all(value in options for value in values):
        return _filled(name, schema, Kind.CHOICES, values, errors)
    kind = _type(schema)
    if kind in _SCALARS and all(_fits(value, kind) for value in values):
        return _filled(name, schema, Kind.LONG, "\n".join(map(_line, values)), errors)
    shown = json.dumps(values, indent=2, ensure_ascii=False) if values else ""
    return _filled(name, schema, Kind.JSON, shown, errors)


def _typed(name: str, schema: Mapping[str, Any], typed: SentForm, errors: Sequence[FieldProblem]) -> Filled:
    if _JSON + name in typed:
        return _filled(name, schema, Kind.JSON, typed.get(_JSON + name), errors)
    values = typed.all(_LINES + name)
    options = _options(schema)
    if options and all(value in options for value in values):
        return _filled(name, schema, Kind.CHOICES, values, errors)
    return _filled(name, schema, Kind.LONG, "\n".join(values), errors)


def _filled(
    name: str,
    schema: Mapping[str, Any],
    kind: Kind,
    value: str | list[str],
    errors: Sequence[FieldProblem],
) -> Filled:
    told = str(schema.get("description", ""))
    control = _control(
        (_JSON if kind is Kind.JSON else _LINES) + name,
        name.replace("_", " ").capitalize(),
        f"{told} A JSON list of values.".strip() if kind is Kind.JSON else told,
        kind,
        _options(schema) if kind is Kind.CHOICES else (),
    )
    said = " ".join(each.message for each in errors if _member_of(each) == name)
    return Filled(control, value, error=said, choices=control.choices)


def _rest(others: Mapping[str, Any], typed: SentForm | None, errors: Sequence[FieldProblem]) -> Filled:
    shown = json.dumps(others, indent=2, ensure_ascii=False) if others else ""
    control = _control(_REST, "Other members", "A JSON object: of each member its values.", Kind.JSON)
    value = shown if typed is None or _REST not in typed else typed.get(_REST)
    return Filled(control, value, error=" ".join(each.message for each in errors))


def _control(name: str, label: str, told: str, kind: Kind, options: Sequence[str] = ()) -> Control:
    return Control(
        name=name,
        label=label,
        help=told,
        kind=kind,
        choices=[(each, each.replace("_", " ")) for each in options],
        placeholder="",
        autocomplete="off",
        is_nullable=True,
        is_required=False,
        default=None,
        limits=_COUNTED,
    )


def _values(name: str, schema: Mapping[str, Any], sent: SentForm) -> list[Any]:
    """What was typed for a member. Raises Malformed; Invalid."""
    if _JSON + name in sent:
        text = sent.get(_JSON + name)
        return _listed(parse(text.encode())) if text.strip() else []
    lines = [line.strip() for text in sent.all(_LINES + name) for line in text.splitlines()]
    return [_value(line, _type(schema)) for line in lines if line]


def _value(line: str, kind: str) -> Any:
    """A line as a value of this type; where it is none, as text, which may have variables in it."""
    if kind == "string":
        return line
    try:
        found = parse(line.encode())
    except _UNREADABLE:
        return line
    return found if isinstance(found, int | float) else line


def _line(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _fits(value: Any, kind: str) -> bool:
    """Whether a value is the same again once it was shown as a line."""
    if not isinstance(value, str | int | float):
        return False
    line = _line(value)
    again = _value(line, kind)
    return line.splitlines() == [line.strip()] and type(again) is type(value) and again == value


def _type(schema: Mapping[str, Any]) -> str:
    """The member's type; "" where it has several, or is made of others."""
    kind = schema.get("type", "string" if _options(schema) else "")
    return kind if isinstance(kind, str) else ""


def _options(schema: Mapping[str, Any]) -> Sequence[str]:
    options = schema.get("enum")
    return options if isinstance(options, list) and all(isinstance(each, str) for each in options) else ()


def _listed(values: Any) -> list[Any]:
    return values if isinstance(values, list) else [values]


def _member_of(error: FieldProblem) -> str:
    field, _, member = error.field.partition("/")
    return member.partition("/")[0] if field == FIELD else ""


def _unreadable(field: str, error: Malformed | Invalid) -> FieldError:
    return FieldError(field, str(error).replace("The body", "This", 1))
