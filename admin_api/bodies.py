"""Request bodies: how large they may be, and JSON and forms read strictly.

Refused before any model sees them: NaN and Infinity (no JSON), numbers that overflow to infinity, members
that stand twice (readers differ in which one counts), documents nested deeper than `MAX_DEPTH`, and NUL or
lone surrogates, which PostgreSQL's text and jsonb cannot hold.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn, TypeAlias
from urllib.parse import parse_qsl

from fastapi.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from admin_api.refusals import Invalid, Malformed, TooLarge, TooSlow, WrongMediaType, pointer

MAX_DEPTH = 64
FORM = "application/x-www-form-urlencoded"

_MOST_FIELDS = 2000  # of a form: a selection of a page's rows, several times over

_Path: TypeAlias = "tuple[_Path, str | int] | None"  # linked, so that only a refused value costs a pointer


class JsonRequest(Request):
    """A request whose JSON is parsed strictly, and off the event loop: 40 MB take half a second."""

    async def load(self) -> None:
        """Read and parse the body, if there is one. Raises WrongMediaType, Malformed, Invalid or TooLarge.

        To be awaited before FastAPI asks for the document: it makes its own 400 of whatever `json()` raises.
        """
        body = await self.body()
        if body:
            declared = self.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
            if declared != "application/json" and not declared.endswith("+json"):
                raise WrongMediaType("Send the body as JSON, with Content-Type: application/json.")
            self._document = await run_in_threadpool(parse, body)

    def check_address(self) -> None:
        """Raise Invalid where the path or the query holds a NUL character."""
        for name, value in (*self.path_params.items(), *self.query_params.multi_items()):
            _check_text(value, (None, name))

    async def json(self) -> Any:
        """The document that `load` parsed."""
        return self._document


class FormRequest(JsonRequest):
    """A request of a browser: its body is a form."""

    async def fields(self) -> list[tuple[str, str]]:
        """The form's fields in order, a name that is sent often as often; none without a body.

        Raises WrongMediaType, Malformed, Invalid or TooLarge.
        """
        body = await self.body()
        if not body:
            return []
        declared = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if declared != FORM:
            raise WrongMediaType(f"Send the form as Content-Type: {FORM}.")
        return parse_form(body)


def parse_form(raw: bytes) -> list[tuple[str, str]]:
    """The fields in `raw`, each line end a line feed.

    Raises Malformed where it is no form in UTF-8; Invalid where a value cannot be stored.
    """
    try:
        found = parse_qsl(
            raw.decode("ascii"),
            keep_blank_values=True,
            encoding="utf-8",
            errors="strict",
            max_num_fields=_MOST_FIELDS,
        )
    except UnicodeDecodeError:  # lone surrogates are no UTF-8 either
        raise Malformed("The form is not UTF-8.") from None
    except ValueError:
        raise Malformed(f"The form has more than {_MOST_FIELDS} fields.") from None
    for name, value in found:
        _check_text(name, None)
        _check_text(value, (None, name))
    return [(name, value.replace("\r\n", "\n")) for name, value in found]


def document_of(request: Request) -> Any:
    """The document that was sent with a request that the guard let in; None where none was read."""
    return getattr(request, "_document", None)


def parse(raw: bytes) -> Any:
    """The document in `raw`. Raises Malformed where it is no JSON, Invalid where it cannot be stored."""
    try:
        document = _DECODER.decode(raw.decode())
    except UnicodeDecodeError:
        raise Malformed("The body is not UTF-8.") from None
    except RecursionError:
        raise Malformed("The body is nested too deeply.") from None
    except json.JSONDecodeError as error:
        raise Malformed(
            f"The body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}."
        ) from None
    except ValueError:
        raise Malformed("The body holds a number with too many digits.") from None
    _check(document)
    return document


def _no_constant(name: str) -> NoReturn:
    raise Malformed(f"The body is not JSON: {name} is no JSON number.")


class _Twice:
    """Stands for the value of a member that has two, until `_check`, which knows the way there, finds it."""


def _object(members: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(members)
    if len(made) < len(members):
        times = Counter(name for name, _ in members)
        made |= {name: _Twice() for name, count in times.items() if count > 1}
    return made


_DECODER = json.JSONDecoder(parse_constant=_no_constant, object_pairs_hook=_object)


def _check(document: Any) -> None:
    waiting: list[tuple[Any, _Path, int]] = [(document, None, 1)]
    while waiting:
        value, path, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise Invalid(f"The body is nested deeper than {MAX_DEPTH} levels.", field=_pointer(path))
        if isinstance(value, str):
            _check_text(value, path)
        elif isinstance(value, float):
            if not math.isfinite(value):
                raise Invalid("This number is too large.", field=_pointer(path))
        elif isinstance(value, dict):
            for key, member in value.items():
                _check_text(key, path)
                waiting.append((member, (path, key), depth + 1))
        elif isinstance(value, _Twice):
            raise Invalid("This member stands there twice. Send it once.", field=_pointer(path))
        elif isinstance(value, list):
            waiting.extend((member, (path, index), depth + 1) for index, member in enumerate(value))


def _check_text(text: str, path: _Path) -> None:
    if "\x00" in text:
        raise Invalid("A NUL character (\\u0000) cannot be stored. Remove it.", field=_pointer(path))
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Invalid(
            "A lone surrogate (\\ud800 to \\udfff) is no character. Remove it.", field=_pointer(path)
        ) from None


def _pointer(path: _Path) -> str:
    return pointer(list(_parts(path))[::-1])


def _parts(path: _Path) -> Iterator[str | int]:
    while path is not None:
        path, part = path
        yield part


class BodyLimit:
    """ASGI middleware that stops reading a body at its limit, whatever Content-Length said, and when nothing
    comes any more.

    FastAPI's own `max_body_size` counts as well, but answers a declared length in plain text, and before
    anybody was asked who they are.

    Args:
        limit: bytes, for every path that `larger` does not name.
        larger: limits of paths; None where the route counts by itself.
        pause_seconds: the longest pause inside of a body.
    """

    def __init__(
        self, app: ASGIApp, *, limit: int, larger: Mapping[str, int | None], pause_seconds: float
    ) -> None:
        self._app = app
        self._limit = limit
        self._larger = larger
        self._pause_seconds = pause_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with a counting, impatient `receive`."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._larger.get(scope["path"], self._limit)
        refused = TooLarge(f"The body exceeds {limit or 0:,} bytes, the most that is read here.")
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if limit is None or not declared.isdigit():
            declared = b"0"
        seen = 0
        is_whole = False

        async def counted() -> Message:
            nonlocal seen, is_whole
            if is_whole:
                return await receive()  # that the client is gone, which may take as long as it likes
            if limit is not None and int(declared) > limit:
                raise refused
            message = await self._next(receive)
            is_whole = not message.get("more_body", False)
            seen += len(message.get("body", b""))
            if limit is not None and seen > limit:
                raise refused
            return message

        await self._app(scope, counted, send)

    async def _next(self, receive: Receive) -> Message:
        try:
            async with asyncio.timeout(self._pause_seconds):
                return await receive()
        except TimeoutError:
            raise TooSlow(f"The body stopped: nothing came for {self._pause_seconds:g} s.") from None
