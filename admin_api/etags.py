"""ETag, If-Match and If-None-Match (RFC 9110, 13) of every noun that has an address of its own.

    @router.get("/{provider_id}")
    @allow_reading
    @tagged                                        the one line a new noun needs
    def get_provider(provider_id: UUID, session: Reading) -> Provider:

From then on every answer that is a `Provider` carries its ETag, that GET answers 304 to If-None-Match, and
PUT, PATCH and DELETE of the same address compare If-Match under the writers' lock, before they do anything.

The tag is a hash of what the GET shows, not of one column: it changes with a target of an assignment or a
price that came into force as surely as with a name. Where a noun shows what changes by itself (its `MOVES`),
that has a hash of its own behind a dot, which If-None-Match looks at and If-Match does not: nobody's change
is lost because a schedule has fired meanwhile.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import re
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeVar, get_type_hints

from fastapi import Request, Response
from pydantic import BaseModel, TypeAdapter, ValidationError
from sqlalchemy.orm import Session

from admin_api.refusals import Malformed, Stale

_OPAQUE = r'"[\x21\x23-\x7e\x80-\xff]*"'
_LIST = re.compile(rf"[ \t,]*(?:W/)?{_OPAQUE}(?:[ \t]*,[ \t,]*(?:W/)?{_OPAQUE})*[ \t,]*")
_TAG = re.compile(rf"(?:W/)?{_OPAQUE}")
_CONDITIONAL = frozenset({"PUT", "PATCH", "DELETE"})

_Endpoint = TypeVar("_Endpoint", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class _Reader:
    """A GET of one noun: what it answers, and how a write asks it what there is."""

    read: Callable[..., BaseModel]
    shown: type[BaseModel]
    keys: Mapping[str, TypeAdapter[Any]]
    asks_caller: bool

    def find(self, request: Request, session: Session) -> BaseModel | None:
        """What the GET would answer now; None where the address is none, which FastAPI will say itself."""
        try:
            keys = {name: kind.validate_python(request.path_params[name]) for name, kind in self.keys.items()}
        except ValidationError:
            return None
        if self.asks_caller:
            keys["caller"] = request.state.principal
        return self.read(session=session, **keys)


@dataclass(frozen=True, slots=True)
class _Expected:
    tags: tuple[str, ...]
    reader: _Reader


_TAGGED: dict[Callable[..., Any], _Reader] = {}
_READERS: dict[str, _Reader] = {}
_SHOWN: set[type[BaseModel]] = set()


def tagged(endpoint: _Endpoint) -> _Endpoint:
    """Declare that the endpoint shows one noun, whose address may be written to; below `@allow`.

    It takes the address's keys and `session`, a Reading; `caller` too, if it must.
    """
    hints = get_type_hints(endpoint, include_extras=True)
    taken = inspect.signature(endpoint).parameters.keys()
    keys = {name: TypeAdapter(hints[name]) for name in taken - {"session", "caller"}}
    _TAGGED[endpoint] = _Reader(endpoint, hints["return"], keys, "caller" in taken)
    return endpoint


def enter(path: str, endpoint: Callable[..., Any]) -> None:
    """Take note of a route that is made."""
    reader = _TAGGED.get(endpoint)
    if reader is not None:
        _READERS[path] = reader
        _SHOWN.add(reader.shown)


def expect(request: Request, path: str) -> None:
    """Take note of what a write's If-Match expects; `path` is its route's.

    Raises: Malformed; Stale where the address has no ETag to compare with.
    """
    header = _header(request, "if-match")
    if header is None or request.method not in _CONDITIONAL:
        return
    expected = _parsed(header)
    if expected is None:
        raise Malformed('If-Match must be an ETag as it was answered, in its quotes: If-Match: "...".')
    reader = _READERS.get(path)
    if reader is None:
        raise Stale("What is at this address has no ETag. Send the request without If-Match.")
    request.state.expected = _Expected(expected, reader)


def expect_tag(request: Request, endpoint: Callable[..., Any], tag: str) -> None:
    """Take note of the tag that a form was made of: what the tagged `endpoint` shows under the same keys must
    still have it when the form is written."""
    request.state.expected = _Expected((tag,), _TAGGED[endpoint])


def tag_of(shown: BaseModel) -> str:
    """The ETag of a noun."""
    return _tag(type(shown), json.loads(shown.model_dump_json(by_alias=True)))


def compare(request: Request, session: Session) -> None:
    """Check the expectation, if there is one, against what `session` sees. Raises Stale; NotFound."""
    expected: _Expected | None = getattr(request.state, "expected", None)
    if expected is None:
        return
    found = expected.reader.find(request, session)
    if found is None or expected.tags == ("*",):
        return
    if _settings(tag_of(found)) not in map(_settings, expected.tags):
        raise Stale("It was changed since you read it. Load it again, and repeat your change on that.")


def mark(request: Request, shown: type | None, response: Response) -> Response:
    """The response with its ETag, where it shows a tagged noun; 304 where the client has that already."""
    if shown not in _SHOWN or response.status_code not in (HTTPStatus.OK, HTTPStatus.CREATED):
        return response
    tag = _tag(shown, json.loads(bytes(response.body)))
    response.headers["ETag"] = tag
    known = _header(request, "if-none-match")
    if request.method != "GET" or known is None:
        return response
    tags = _parsed(known) or ()
    if tags == ("*",) or tag in [each.removeprefix("W/") for each in tags]:
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers={"ETag": tag})
    return response


def documented(document: dict[str, Any], prefix: str) -> dict[str, Any]:
    """The OpenAPI document with headers and answers where they are; `prefix` is before the routes' paths."""
    shown = {f"#/components/schemas/{kind.__name__}" for kind in _SHOWN}
    for path, operations in document["paths"].items():
        has_tag = path.removeprefix(prefix) in _READERS or path in _READERS
        for method, operation in operations.items():
            _document(operation, method.upper(), has_tag, shown)
    return document


def _document(operation: dict[str, Any], method: str, has_tag: bool, shown: set[str]) -> None:
    responses = operation["responses"]
    for status in ("200", "201"):
        schema = responses.get(status, {}).get("content", {}).get("application/json", {}).get("schema", {})
        if schema.get("$ref") in shown:
            responses[status].setdefault("headers", {})["ETag"] = _ETAG
    if not has_tag:
        return
    if method == "GET":
        responses["304"] = {"description": "It is what you have.", "headers": {"ETag": _ETAG}}
        # Any text, for what is no ETag is no reason to refuse a GET.
        description = "ETags that you have, or `*`: answers 304 where one is in force."
        _take(operation, "If-None-Match", description, {})
    elif method in _CONDITIONAL:
        _take(
            operation,
            "If-Match",
            "The ETag that you read: answers 412 where it was changed since.",
            {"pattern": _IF_MATCH},
        )


_ETAG = {
    "description": "Changes with what the noun shows. Send it as If-Match with a change of it.",
    "schema": {"type": "string"},
}


_IF_MATCH = r'^"[!#-~]{1,200}"$'  # what this API answers as ETag; lists and `*` are taken, too


def _take(operation: dict[str, Any], header: str, description: str, schema: Mapping[str, Any]) -> None:
    taken = operation.setdefault("parameters", [])
    if not any(parameter["name"] == header for parameter in taken):
        taken.append(
            {
                "name": header,
                "in": "header",
                "required": False,
                "schema": {"type": "string", **schema, "example": '"Zm9vYmFyYmF6"'},
                "description": description,
            }
        )


def _header(request: Request, name: str) -> str | None:
    sent = request.headers.getlist(name)
    return ", ".join(sent) if sent else None


def _parsed(header: str) -> tuple[str, ...] | None:
    """The tags of a header, `("*",)` for any; None where it is malformed."""
    if header.strip() == "*":
        return ("*",)
    return tuple(_TAG.findall(header)) if _LIST.fullmatch(header) else None


def _tag(kind: type, document: Any) -> str:
    moves: frozenset[str] = getattr(kind, "MOVES", frozenset())
    moving = {name: value for name, value in document.items() if name in moves}
    settings = {name: value for name, value in document.items() if name not in moves}
    return f'"{_hash(settings)}.{_hash(moving)}"' if moves else f'"{_hash(settings)}"'


def _settings(tag: str) -> str:
    """The tag without what changes by itself."""
    return tag.strip('"').partition(".")[0]


def _hash(document: Any) -> str:
    canonical = json.dumps(_plain(document), sort_keys=True, separators=(",", ":"))
    return urlsafe_b64encode(hashlib.sha256(canonical.encode()).digest()[:18]).decode()


def _plain(value: Any) -> Any:
    """The document with each number as jsonb will return it: sent as 1e22, it is read as an integer."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {name: _plain(member) for name, member in value.items()}
    return [_plain(member) for member in value] if isinstance(value, list) else value
