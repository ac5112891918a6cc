"""Request bodies: how large they may be, and JSON read strictly.

Refused before any model sees them: NaN and Infinity (no JSON), numbers that overflow to infinity, documents
nested deeper than `MAX_DEPTH`, and NUL or lone surrogates, which PostgreSQL's text and jsonb cannot hold.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn, TypeAlias

from fastapi.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from admin_api.refusals import Invalid, Malformed, TooLarge, WrongMediaType, pointer

MAX_DEPTH = 64

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


def parse(raw: bytes) -> Any:
    """The document in `raw`. Raises Malformed where it is no JSON, Invalid where it cannot be stored."""
    try:
        document = json.loads(raw.decode(), parse_constant=_no_constant)
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
    """ASGI middleware that stops reading a body at its limit, whatever Content-Length said.

    FastAPI's own `max_body_size` counts as well, but answers a declared length in plain text, and before
    anybody was asked who they are.

    Args:
        limit: bytes, for every path that `larger` does not name.
        larger: limits of paths; None where the route counts by itself.
    """

    def __init__(self, app: ASGIApp, *, limit: int, larger: Mapping[str, int | None]) -> None:
        self._app = app
        self._limit = limit
        self._larger = larger

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with a counting `receive`."""
        limit = self._larger.get(scope.get("path", ""), self._limit)
        if scope["type"] != "http" or limit is None:
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        refused = TooLarge(f"The body exceeds {limit:,} bytes, the most that is read here.")
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            if declared.isdigit() and int(declared) > limit:
                raise refused
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > limit:
                raise refused
            return message

        await self._app(scope, counted, send)
