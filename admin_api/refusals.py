"""What the API says no to. Facts only: `errors.py` decides which HTTP answer each becomes.

Refused
├── Unauthenticated   nobody we know
│   ├── WrongCredentials   e-mail address or password
│   ├── CodeRequired       the password is right, the second factor's code is missing
│   └── CodeWrong          ... or wrong, or used before
├── Forbidden         somebody we know, who may not
│   └── SecondFactorMissing   ... before they have enrolled one
├── NotFound          no such row, or none the caller may see
├── Conflict          the row clashes with another, or is in use
│   └── InUse         assignments need the row
├── Stale             the row is not what If-Match expects
├── Invalid           a field cannot hold this value
│   ├── RowsRefused   rows of a bulk are not valid
│   └── FieldsRefused fields of a form are not right
├── Malformed         the body is no JSON document
├── WrongMediaType    the body is not declared as JSON
├── TooLarge          the body exceeds its limit
├── TooSlow           the body stopped coming
└── TooOften          attempts to log in
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar
from uuid import UUID


@dataclass(frozen=True, slots=True)
class FieldError:
    """A field, as a JSON pointer without its leading slash, and what to do about it; `hint` as of Refused."""

    field: str
    message: str
    hint: str = ""


class Refused(Exception):
    """Base of the tree. The message is a sentence for people; `field` names what it is about, if anything.

    `hint` tells programs what to send instead; pages, where that is a button or a box, leave it out.
    `kind` ends the problem's type where that is not just the status.
    """

    kind: ClassVar[str | None] = None

    def __init__(self, message: str, *, field: str | None = None, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.errors: tuple[FieldError, ...] = () if field is None else (FieldError(field, message, hint),)


class Unauthenticated(Refused):
    """`presented` tells whether there was a credential at all."""

    def __init__(self, message: str, *, presented: bool = True, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.presented = presented


class WrongCredentials(Unauthenticated):
    kind = "wrong-credentials"

    def __init__(self) -> None:
        super().__init__("The e-mail address or the password is wrong.", presented=False)


class CodeRequired(Unauthenticated):
    kind = "otp-required"

    def __init__(self) -> None:
        super().__init__(
            "A code is needed, too: that of your authenticator, or a recovery code.",
            presented=False,
            hint="Send it as otp.",
        )


class CodeWrong(Unauthenticated):
    kind = "otp-wrong"

    def __init__(self) -> None:
        super().__init__(
            "The code is wrong, or was used before. Wait for the next one, or use a recovery code.",
            presented=False,
        )


class Forbidden(Refused):
    pass


class SecondFactorMissing(Forbidden):
    kind = "second-factor-missing"


class NotFound(Refused):
    pass


class Conflict(Refused):
    pass


@dataclass(frozen=True, slots=True)
class User:
    """An assignment that needs what was to be removed."""

    id: UUID
    feature_name: str


class InUse(Conflict):
    kind = "in-use"

    def __init__(self, message: str, assignments: Sequence[User], *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.assignments = tuple(assignments)
        self.errors = tuple(
            FieldError(f"feature-assignments/{user.id}", f"Serves {user.feature_name} with it.")
            for user in assignments
        )


class Stale(Refused):
    def __init__(self, message: str) -> None:
        super().__init__(message, field="If-Match")


class Invalid(Refused):
    pass


class RowsRefused(Invalid):
    """`errors` name the rows."""

    def __init__(self, message: str, errors: Sequence[FieldError]) -> None:
        super().__init__(message)
        self.errors = tuple(errors)


class FieldsRefused(Invalid):
    """`errors` name the fields."""

    def __init__(self, errors: Sequence[FieldError]) -> None:
        super().__init__("Some fields are not right yet. They are marked.")
        self.errors = tuple(errors)


class Malformed(Refused):
    pass


class WrongMediaType(Refused):
    pass


class TooLarge(Refused):
    pass


class TooSlow(Refused):
    pass


class TooOften(Refused):
    """`retry_after` in seconds."""

    kind = "too-many-attempts"

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"Too many attempts failed. Try again in {retry_after} seconds.")
        self.retry_after = retry_after


def pointer(parts: Sequence[object]) -> str:
    """A JSON pointer (RFC 6901) without its leading slash."""
    return "/".join(str(part).replace("~", "~0").replace("/", "~1") for part in parts)
