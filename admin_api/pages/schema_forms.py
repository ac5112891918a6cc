"""A form for the input of a feature, made of its JSON Schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from admin_api.errors import FieldProblem
from admin_api.pages.controls import Choice, Control, Filled, Kind
from admin_api.pages.route import SentForm
from admin_api.refusals import FieldError, Invalid

WHOLE = "input"
"""The field for all of an input whose schema tells no members."""

_LINE = 120  # characters: longer text has several lines
_SCALARS: Mapping[str, Kind] = {
    "integer": Kind.WHOLE,
    "number": Kind.NUMBER,
    "boolean": Kind.FLAG,
    "string": Kind.LONG,
}


@dataclass(frozen=True, slots=True)
class SchemaForm:
    """The controls by the members of the input; the whole of it where the schema names none."""

    controls: Mapping[str, Control]

    @classmethod
    def of(cls, schema: Mapping[str, Any]) -> SchemaForm:
        """The form of a schema. Members that it does not name cannot be sent by it."""
        members = schema.get("properties")
        if not isinstance(members, Mapping) or not members:
            return cls({WHOLE: _whole(schema)})
        required = schema.get("required", ())
        names = sorted(members, key=lambda name: name not in required)  # the database keeps no order
        return cls({name: _control(name, members[name], name in required) for name in names})

    @property
    def is_whole(self) -> bool:
        """Whether the input is one field, as JSON."""
        return WHOLE in self.controls and self.controls[WHOLE].name == WHOLE

    def filled(
        self, values: Mapping[str, Any], typed: SentForm | None, errors: Sequence[FieldProblem]
    ) -> list[Filled]:
        """The controls with `values`, or with what was typed, and with what was refused of it."""
        said = {name: _said(name, errors, is_whole=self.is_whole) for name in self.controls}
        return [
            Filled(
                control=control,
                value=_shown(control, values if self.is_whole else values.get(name))
                if typed is None
                else control.typed(typed),
                error=said[name],
                choices=control.choices,
            )
            for name, control in self.controls.items()
        ]

    def read(self, sent: SentForm) -> tuple[dict[str, Any], list[FieldError]]:
        """The input that was typed, and what of it cannot be read. An empty field is left out."""
        document: dict[str, Any] = {}
        unread: list[FieldError] = []
        for name, control in self.controls.items():
            try:
                (value,) = control.read(sent).values()
            except Invalid as refused:
                unread += refused.errors
                continue
            if self.is_whole:
                return value or {}, unread
            if value is not None:
                document[name] = value
        return document, unread


def _whole(schema: Mapping[str, Any]) -> Control:
    return _made(WHOLE, "Input", str(schema.get("description", "")), Kind.JSON, is_required=False)


def _control(name: str, schema: Any, is_required: bool) -> Control:
    known = schema if isinstance(schema, Mapping) else {}
    kind, choices = _kind(known)
    limits = {
        html: known[word]
        for word, html in (("minimum", "min"), ("maximum", "max"), ("maxLength", "maxlength"))
        if isinstance(known.get(word), int | float) and not isinstance(known.get(word), bool)
    }
    if kind in (Kind.NUMBER, Kind.WHOLE):
        limits["step"] = "any" if kind is Kind.NUMBER else 1
    return _made(
        f"{WHOLE}.{name}",
        name.replace("_", " ").capitalize(),
        str(known.get("description", "")),
        kind,
        is_required=is_required and kind is not Kind.FLAG,
        choices=choices,
        default=known.get("default"),
        limits=limits if kind not in (Kind.JSON, Kind.FLAG, Kind.CHOICE) else {},
    )


def _kind(schema: Mapping[str, Any]) -> tuple[Kind, Sequence[Choice]]:
    options = schema.get("enum")
    if isinstance(options, list) and all(isinstance(each, str) for each in options):
        return Kind.CHOICE, [(each, each.replace("_", " ")) for each in options]
    kind = schema.get("type")
    found = _SCALARS.get(kind, Kind.JSON) if isinstance(kind, str) else Kind.JSON
    if found is not Kind.LONG:
        return found, ()
    if schema.get("format") == "date":
        return Kind.DAY, ()
    longest = schema.get("maxLength")
    return (Kind.TEXT if isinstance(longest, int) and longest <= _LINE else Kind.LONG), ()


def _made(
    name: str,
    label: str,
    told: str,
    kind: Kind,
    *,
    is_required: bool,
    choices: Sequence[Choice] = (),
    default: Any = None,
    limits: Mapping[str, Any] | None = None,
) -> Control:
    return Control(
        name=name,
        label=label,
        help=told,
        kind=kind,
        choices=choices,
        placeholder="",
        autocomplete="off",
        is_nullable=not is_required,
        is_required=is_required,
        default=default,
        limits=limits or {},
    )


def _shown(control: Control, value: Any) -> str | list[str] | bool:
    return control.shown(control.default if value is None else value)


def _said(name: str, errors: Sequence[FieldProblem], *, is_whole: bool) -> str:
    place = WHOLE if is_whole else f"{WHOLE}/{name}"
    own = [each.message for each in errors if _is_in(each.field.replace(f"{WHOLE}.", f"{WHOLE}/"), place)]
    return " ".join(own)


def _is_in(field: str, place: str) -> bool:
    return field == place or field.startswith(f"{place}/")
