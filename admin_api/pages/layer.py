"""Refusals, as people at a browser see them.

The API's own handlers answer every error with a problem (`admin_api/errors.py`). On its way to a browser this
layer turns that answer into

* the page that the form stands on, shown again with what was typed and what is wrong with it;
* for a button that stands on another page: that page, which tells;
* else an error page in the same look.

It stands outside of the transaction of the request: what was refused is rolled back before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

from fastapi import Request, Response
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from admin_api.errors import Problem, is_for_people
from admin_api.pages import flashes
from admin_api.pages.again import Again
from admin_api.pages.flashes import Flash
from admin_api.pages.render import page
from admin_api.pages.route import done, safe_path, sent

_PROBLEM = "application/problem+json"
_MENDABLE = frozenset(
    {
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.CONFLICT,
        HTTPStatus.PRECONDITION_FAILED,
        HTTPStatus.UNPROCESSABLE_ENTITY,
        HTTPStatus.TOO_MANY_REQUESTS,
    }
)
"""Whoever sent the form can do something about it, there."""


class Layer:
    """ASGI middleware around all of the application, inside of the guards."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and its answer, unless that is a problem for a browser."""
        if scope["type"] != "http" or scope["path"].startswith("/api/"):
            await self._app(scope, receive, send)
            return
        inner = {**scope, "state": dict(scope.get("state", {}))}
        request = Request(inner, receive)
        held = _Held(send, request)
        await self._app(inner, receive, held.take)
        if not held.is_problem:
            return
        problem = Problem.model_validate_json(bytes(held.body))
        again = _again(request, problem)
        if again is None:
            answer = _answer(request, problem)
            answer.headers.update(held.kept)
            await answer(scope, receive, send)
        else:
            path, state = again
            restated = _Restated(send, problem.status, held.kept)
            await self._app(_get(scope, path, state), _nothing, restated.take)


@dataclass(slots=True)
class _Held:
    """Passes an answer on, but holds a problem for a browser back."""

    send: Send
    request: Request
    is_problem: bool = False
    kept: dict[str, str] = field(default_factory=dict)  # headers that are true of the page, too
    body: bytearray = field(default_factory=bytearray)

    async def take(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = Headers(raw=message["headers"])
            is_problem = headers.get("content-type", "").startswith(_PROBLEM)
            self.is_problem = is_problem and is_for_people(self.request)
            self.kept = {name: headers[name] for name in ("retry-after", "allow") if name in headers}
        if not self.is_problem:
            await self.send(message)
        elif message["type"] == "http.response.body":
            self.body += message.get("body", b"")


@dataclass(frozen=True, slots=True)
class _Restated:
    """Passes a page on under the status of what was refused."""

    send: Send
    status: int
    kept: Mapping[str, str]

    async def take(self, message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] == HTTPStatus.OK:
            message = {**message, "status": self.status}
            MutableHeaders(scope=message).update(self.kept)
        await self.send(message)


def _again(request: Request, problem: Problem) -> tuple[str, Again] | None:
    path = getattr(request.state, "shown_at", None)
    if path is None or problem.status not in _MENDABLE:
        return None
    return path, Again(request.url.path, sent(request), problem)


def _get(scope: Scope, path: str, again: Again) -> Scope:
    """The request for the page that the form stands on."""
    query = scope["query_string"] if path == scope["path"] else b""  # another page's is another
    skipped = (b"content-length", b"content-type", b"transfer-encoding", b"idempotency-key")
    return {
        **scope,
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query,
        "headers": [pair for pair in scope["headers"] if pair[0] not in skipped],
        "state": {**scope.get("state", {}), "again": again},
    }


async def _nothing() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


def _answer(request: Request, problem: Problem) -> Response:
    back = sent(request).get("back") if hasattr(request.state, "sent") else ""
    path = safe_path(back, otherwise="")
    if path and problem.status in _MENDABLE:
        response: Response = done(path)
        flashes.put(response, request, Flash("bad", problem.detail))
        return response
    return page(request, "error.html", status=problem.status, error=problem)
