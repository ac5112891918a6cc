"""What the bodies of all nouns have in common: field types that fit their columns, merging, and stamps."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, TypeVar
from uuid import UUID

from fastapi.exceptions import RequestValidationError
from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_core import CoreSchema

from routing.values import Capability

# A pattern tells programs what is taken, and people nothing: they read what it is mapped to.
SLUG, WORD = r"^[a-z0-9][a-z0-9_-]*$", r"^[a-z][a-z0-9_]*$"
PATTERNS: Mapping[str, str] = {
    SLUG: "Take small letters, digits, hyphens and underscores, beginning with a letter or a digit.",
    WORD: "Take small letters, digits and underscores, beginning with a letter.",
}

Label = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
Prose = Annotated[str, StringConstraints(max_length=10_000)]
JsonObject = dict[str, Any]
Capabilities = Annotated[list[Capability], Field(max_length=len(Capability))]
Whole32 = Annotated[int, Field(ge=-(2**31), lt=2**31)]
Positive32 = Annotated[int, Field(ge=1, lt=2**31)]
KeepDays = Annotated[int, Field(ge=1, le=36_500)]
Positive64 = Annotated[int, Field(ge=1, lt=2**63)]
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
Tag = Annotated[str, StringConstraints(min_length=1, max_length=200)]
# Years that every part of the way can hold, whatever the time zone.
Time = Annotated[
    AwareDatetime, Field(ge=datetime(2000, 1, 1, tzinfo=UTC), lt=datetime(3000, 1, 1, tzinfo=UTC))
]


def _be_strict(schema: Any) -> None:
    """Only there: ids, times and money come as JSON strings, which a strict model would refuse."""
    if isinstance(schema, dict):
        if schema.get("type") in ("bool", "int"):
            schema["strict"] = True
        schema = list(schema.values())
    if isinstance(schema, list | tuple):
        for part in schema:
            _be_strict(part)


class Body(BaseModel):
    """A noun as clients send it. Unknown members are refused, and so is `0` or `"no"` for a boolean, `"7"` or
    `true` for a number: what the document calls another type is another type.

    What only the API sets may be sent back as it was read, and is ignored (AIP-203 calls it output only).
    `ALIASES` are other names that a member is known by.
    """

    model_config = ConfigDict(extra="forbid")

    READ_ONLY: ClassVar[frozenset[str]] = frozenset(
        {"id", "created_at", "updated_at", "created_by", "updated_by"}
    )
    ALIASES: ClassVar[Mapping[str, str]] = {}

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """As pydantic makes it, but strict where leniency would change the type."""
        schema = handler(source)
        _be_strict(schema)
        return schema

    @model_validator(mode="before")
    @classmethod
    def _tidy(cls, sent: Any) -> Any:
        return cls.tidied(sent) if isinstance(sent, dict) else sent

    @classmethod
    def tidied(cls, sent: Mapping[str, Any]) -> dict[str, Any]:
        """What was sent, by its own names and without what only the API sets."""
        kept = {name: value for name, value in sent.items() if name not in cls.READ_ONLY}
        for alias, name in cls.ALIASES.items():
            if alias in kept and kept.setdefault(name, kept[alias]) == kept[alias]:
                del kept[alias]
        return kept


B = TypeVar("B", bound=Body)
M = TypeVar("M", bound=BaseModel)


def stored(kind: type[M], row: object) -> M:
    """The body that would make `row`, as far as its columns are members."""
    values: dict[str, Any] = {name: getattr(row, name) for name in kind.model_fields if hasattr(row, name)}
    return kind.model_construct(None, **values)


def merged(current: B, changes: Mapping[str, Any]) -> B:
    """`current` with the members that `changes` names replaced, each as a whole.

    Raises RequestValidationError where the result is not valid.
    """
    kind = type(current)
    document = {name: getattr(current, name) for name in current.model_fields_set}
    try:
        return kind.model_validate({**document, **kind.tidied(changes)})
    except ValidationError as error:
        located = [{**found, "loc": ("body", *found["loc"])} for found in error.errors()]
        raise RequestValidationError(located) from None


def patch_of(kind: type[Body]) -> dict[str, Any]:
    """The OpenAPI request body of a PATCH: `kind` with every member optional."""
    schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
    shown = {name: schema[name] for name in ("type", "properties", "additionalProperties")}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": shown}}}}


class Stamps(BaseModel):
    """Who made and last changed a row, and when."""

    id: UUID
    created_at: datetime
    updated_at: datetime
    created_by: UUID | None
    updated_by: UUID | None


def shown(kind: type[M], row: object, **members: object) -> M:
    """`kind` filled from the attributes of `row`, and from `members`.

    Not validated: a row that was made under other rules can still be read, and mended.
    """
    values: dict[str, Any] = {name: getattr(row, name) for name in kind.model_fields if name not in members}
    return kind.model_construct(None, **values, **members)
