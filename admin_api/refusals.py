"""What the API says no to. Facts only: `errors.py` decides which HTTP answer each becomes.

Refused
├── Unauthenticated   nobody we know
├── Forbidden         somebody we know, who may not
├── NotFound          no such row, or none the caller may see
├── Conflict          the row clashes with another, or is in use
├── Invalid           a field cannot hold this value
│   └── RowsRefused   rows of a bulk are not valid
├── Malformed         the body is no JSON document
├── WrongMediaType    the body is not declared as JSON
├── TooLarge          the body exceeds its limit
└── TooSlow           the body stopped coming
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FieldError:
    """A field, as a JSON pointer without its leading slash, and what to do about it."""

    field: str
    message: str


class Refused(Exception):
    """Base of the tree. The message is a sentence for people; `field` names what it is about, if anything."""

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.errors: tuple[FieldError, ...] = () if field is None else (FieldError(field, message),)


class Unauthenticated(Refused):
    """`presented` tells whether there was a credential at all."""

    def __init__(self, message: str, *, presented: bool = True) -> None:
        super().__init__(message)
        self.presented = presented


class Forbidden(Refused):
    pass


class NotFound(Refused):
    pass


class Conflict(Refused):
    pass


class Invalid(Refused):
    pass


class RowsRefused(Invalid):
    """`errors` name the rows."""

    def __init__(self, message: str, errors: Sequence[FieldError]) -> None:
        super().__init__(message)
        self.errors = tuple(errors)


class Malformed(Refused):
    pass


class WrongMediaType(Refused):
    pass


class TooLarge(Refused):
    pass


class TooSlow(Refused):
    pass


def pointer(parts: Sequence[object]) -> str:
    """A JSON pointer (RFC 6901) without its leading slash."""
    return "/".join(str(part).replace("~", "~0").replace("/", "~1") for part in parts)
