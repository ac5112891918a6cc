"""Fields of a body → controls of a form: what kind each is, what it shows, and how what was typed is read."""

from __future__ import annotations

import json
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum, StrEnum
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen
from pydantic import AwareDatetime, BaseModel, SecretStr, StringConstraints
from pydantic.fields import FieldInfo

from admin_api.bodies import parse
from admin_api.pages.route import SentForm
from admin_api.refusals import FieldError, Invalid, Malformed

Choice = tuple[str, str]
"""A value and what it is called."""

_LONG = 2000  # characters: from more than this on, text has several lines


class Kind(StrEnum):
    """What a control is."""

    TEXT = "text"
    LONG = "long"
    WHOLE = "whole"
    WHOLES = "wholes"
    NUMBER = "number"
    DECIMAL = "decimal"
    FLAG = "flag"
    CHOICE = "choice"
    CHOICES = "choices"
    JSON = "json"
    SECRET = "secret"  # noqa: S105 - a kind, not a secret
    SECRETS = "secrets"  # by name, one a line
    DAY = "day"
    TIME = "time"


@dataclass(frozen=True, slots=True)
class Tweak:
    """What a form says otherwise than the body does; None = as the body has it."""

    label: str | None = None
    help: str | None = None
    kind: Kind | None = None
    choices: Sequence[Choice] | None = None
    placeholder: str | None = None
    autocomplete: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    """More of HTML's attributes."""


@dataclass(frozen=True, slots=True)
class Control:
    """One field of a body, as people see it."""

    name: str
    label: str
    help: str
    kind: Kind
    choices: Sequence[Choice]
    placeholder: str
    autocomplete: str
    """What a browser may fill in, in HTML's words."""
    is_nullable: bool
    is_required: bool
    default: Any
    limits: Mapping[str, Any]
    """HTML's attributes that keep the value within bounds (min, max, maxlength), and what a form adds."""

    @classmethod
    def of(cls, name: str, info: FieldInfo, tweak: Tweak) -> Control:
        """The control of a body's field. Raises TypeError where no kind suits it: name one by `tweak`."""
        kind, is_nullable, choices, marks = _examined(info)
        kind = tweak.kind or (Kind.CHOICE if tweak.choices and kind is Kind.TEXT else kind)
        if kind is None:
            raise TypeError(f"No control suits the field {name!r}. Give it a kind.")
        has_default = not info.is_required()
        return cls(
            name=name,
            label=tweak.label or _label(name),
            help=(info.description or "") if tweak.help is None else tweak.help,
            kind=kind,
            choices=tweak.choices or choices,
            placeholder=tweak.placeholder or "",
            autocomplete=tweak.autocomplete or ("new-password" if kind is Kind.SECRET else "off"),
            is_nullable=is_nullable,
            is_required=not has_default and kind is not Kind.FLAG,
            default=info.get_default(call_default_factory=True) if has_default else None,
            limits={**_limits(kind, marks), **tweak.attributes},
        )

    def shown(self, value: Any) -> str | list[str] | bool:
        """A stored value as the control shows it; of a secret nothing."""
        if self.kind in _HIDDEN:
            return ""
        if self.kind is Kind.FLAG:
            return bool(value)
        if self.kind is Kind.CHOICES:
            return [_plain(each) for each in value or ()]
        if self.kind is Kind.WHOLES:
            return ", ".join(map(str, value or ()))
        if self.kind is Kind.JSON:
            return "" if value is None else json.dumps(value, indent=2, ensure_ascii=False)
        if isinstance(value, datetime):
            return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M")
        return "" if value is None else _plain(value)

    def typed(self, sent: SentForm) -> str | list[str] | bool:
        """What was typed, as the control shows it again; of a secret nothing."""
        if self.kind in _HIDDEN:
            return ""
        if self.kind is Kind.FLAG:
            return self.name in sent
        return sent.all(self.name) if self.kind is Kind.CHOICES else sent.get(self.name)

    def read(self, sent: SentForm) -> dict[str, Any]:
        """What was typed as a member of a body; none where a secret stays as it is. Raises Invalid."""
        if self.kind is Kind.FLAG:
            return {self.name: self.name in sent}
        if self.kind is Kind.CHOICES:
            return {self.name: sent.all(self.name)}
        if self.kind in _HIDDEN:
            return self._secret(sent)
        text = sent.get(self.name)
        if text.strip():
            return {self.name: self._value(text)}
        if self.is_required:
            raise Invalid("This field is required.", field=self.name)
        return {self.name: None if self.is_nullable else self.default}

    def _secret(self, sent: SentForm) -> dict[str, Any]:
        if text := sent.get(self.name).strip():
            return {self.name: _by_line(text, self.name) if self.kind is Kind.SECRETS else text}
        if self.is_required:
            raise Invalid("This field is required.", field=self.name)
        return {self.name: None} if f"{self.name}.remove" in sent else {}

    def _value(self, text: str) -> Any:
        tidy = text.strip()
        try:
            if self.kind is Kind.WHOLE:
                return int(tidy)
            if self.kind is Kind.WHOLES:
                return [int(part) for part in tidy.replace(",", " ").split()]
            if self.kind is Kind.NUMBER:
                return float(tidy)
            if self.kind is Kind.JSON:
                return _object(text)
            if self.kind is Kind.TIME:
                return datetime.fromisoformat(tidy).replace(tzinfo=UTC).isoformat()
        except (ValueError, Malformed) as error:
            said = _WRONG.get(self.kind) or str(error).replace("The body", "This", 1)
            raise Invalid(said, field=self.name) from None
        return text if self.kind is Kind.LONG else tidy


@dataclass(frozen=True, slots=True)
class Filled:
    """A control with what it shows, and what is wrong with that."""

    control: Control
    value: str | list[str] | bool
    error: str = ""
    stored: str = ""
    """What is stored now, where somebody else changed it meanwhile."""
    hint: str = ""
    """Of a secret: how the stored one ends."""
    choices: Sequence[Choice] = field(default_factory=tuple)

    @property
    def id(self) -> str:
        """The element's id."""
        return f"field-{self.control.name}"

    @property
    def described_by(self) -> str:
        """Ids of what tells more about it."""
        told = {"help": self.control.help, "error": self.error, "stored": self.stored, "hint": self.hint}
        return " ".join(f"{self.id}-{what}" for what, text in told.items() if text)


_HIDDEN = frozenset({Kind.SECRET, Kind.SECRETS})
"""Shown to nobody, not even to who has just typed it."""

_WRONG = {
    Kind.WHOLE: "This must be a whole number.",
    Kind.WHOLES: "These must be whole numbers with commas between them.",
    Kind.NUMBER: "This must be a number.",
    Kind.TIME: "This must be a date and a time.",
}

_ACRONYMS = {"api": "API", "id": "ID", "url": "URL", "json": "JSON", "usd": "USD", "1k": "1,000"}


def _label(name: str) -> str:
    first, *rest = name.removeprefix("is_").split("_")
    return " ".join([_ACRONYMS.get(first, first.capitalize()), *(_ACRONYMS.get(word, word) for word in rest)])


def _examined(info: FieldInfo) -> tuple[Kind | None, bool, Sequence[Choice], list[Any]]:
    """A field's kind (None: unknown), whether it may be null, its choices, and its constraints."""
    kind, is_nullable, marks = info.annotation, False, list(info.metadata)
    while True:
        origin = get_origin(kind)
        if origin is Annotated:
            kind, *more = get_args(kind)
            for mark in more:
                marks += mark.metadata if isinstance(mark, FieldInfo) else [mark]
        elif origin in (Union, types.UnionType):
            parts = [part for part in get_args(kind) if part is not type(None)]
            is_nullable = is_nullable or len(parts) < len(get_args(kind))
            if len(parts) != 1:
                return None, is_nullable, (), marks
            kind = parts[0]
        else:
            break
    found, choices = _kind(kind, marks)
    return found, is_nullable, choices, marks


def _kind(kind: Any, marks: Sequence[Any]) -> tuple[Kind | None, Sequence[Choice]]:
    origin = get_origin(kind)
    if origin is Literal:
        return Kind.CHOICE, [(str(each), _called(each)) for each in get_args(kind)]
    if origin is list:
        member = get_args(kind)[0]
        if (get_args(member)[0] if get_origin(member) is Annotated else member) is int:
            return Kind.WHOLES, ()
        _, choices = _kind(member, ())
        return (Kind.CHOICES, choices) if choices else (Kind.JSON, ())
    if origin is dict:
        return (Kind.SECRETS if "SecretStr" in repr(get_args(kind)) else Kind.JSON), ()
    if not isinstance(kind, type):
        return None, ()
    if issubclass(kind, Enum):
        return Kind.CHOICE, [(str(each.value), _called(each.value)) for each in kind]
    if kind is str:
        longest = _longest(marks)
        return (Kind.LONG if longest and longest > _LONG else Kind.TEXT), ()
    if kind is AwareDatetime:  # pydantic's, no datetime by its type
        return Kind.TIME, ()
    for plain, found in _PLAIN.items():
        if issubclass(kind, plain):
            return found, ()
    return (Kind.JSON if issubclass(kind, BaseModel) else Kind.TEXT), ()


_PLAIN: Mapping[type, Kind] = {  # the first that fits: a bool is an int, and a datetime a date
    bool: Kind.FLAG,
    int: Kind.WHOLE,
    float: Kind.NUMBER,
    Decimal: Kind.DECIMAL,
    datetime: Kind.TIME,
    date: Kind.DAY,
    SecretStr: Kind.SECRET,
}


def _longest(marks: Sequence[Any]) -> int | None:
    found = [
        mark.max_length
        for mark in marks
        if isinstance(mark, MaxLen | StringConstraints) and mark.max_length is not None
    ]
    return min(found, default=None)


def _limits(kind: Kind, marks: Sequence[Any]) -> dict[str, Any]:
    if kind in (Kind.TEXT, Kind.LONG):
        longest = _longest(marks)
        return {} if longest is None else {"maxlength": longest}
    if kind not in (Kind.WHOLE, Kind.NUMBER):
        return {}
    limits: dict[str, Any] = {"step": "1" if kind is Kind.WHOLE else "any"}
    for mark in marks:
        if isinstance(mark, Ge):
            limits["min"] = mark.ge
        elif isinstance(mark, Le):
            limits["max"] = mark.le
        elif isinstance(mark, Lt) and kind is Kind.WHOLE:
            limits["max"] = mark.lt - 1  # type: ignore[operator]
        elif isinstance(mark, Gt) and kind is Kind.WHOLE:
            limits["min"] = mark.gt + 1  # type: ignore[operator]
    return limits


def _called(value: Any) -> str:
    return str(value).replace("_", " ")


def _plain(value: Any) -> str:
    return str(value.value) if isinstance(value, Enum) else str(value)


def _object(text: str) -> Any:
    found = parse(text.encode())
    if not isinstance(found, dict | list):
        raise Malformed('This must be a JSON object: {"name": "value"}.')
    return found


def _by_line(text: str, name: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        key, equals, value = (part.strip() for part in line.partition("="))
        if not key or not equals:
            raise Invalid("Write one `name = value` a line.", field=name)
        found[key] = value
    return found


def flattened(errors: Sequence[FieldError]) -> dict[str, str]:
    """Messages by the field that they stand at; what is inside of a field is told by its way there."""
    found: dict[str, str] = {}
    for error in errors:
        name, _, inside = error.field.partition("/")
        said = f"{inside.replace('/', ' → ')}: {error.message}" if inside else error.message
        found[name] = f"{found[name]} {said}" if name in found else said
    return found
