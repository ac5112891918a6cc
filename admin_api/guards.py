"""What every answer carries: headers that keep browsers out of trouble, and the request's id.

The id is the client's `X-Request-ID` where that is a plain word, else a new one. Audit rows hold it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from store.audit import request_id
from store.ids import new_id

REQUEST_ID = "X-Request-ID"

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+=@-]{0,127}")

# Each is a default: a route that serves something else says so itself.
_EVERYWHERE = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_PRIVATE = {"Cache-Control": "no-store"}
_ENCRYPTED = {"Strict-Transport-Security": "max-age=31536000"}


class Guards:
    """ASGI middleware, the outermost. `private`: where the paths begin whose answers no cache may keep."""

    def __init__(self, app: ASGIApp, *, private: Sequence[str]) -> None:
        self._app = app
        self._private = tuple(private)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on under its id, and its answer with the headers it lacks."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        word = _id(Headers(scope=scope).getlist(REQUEST_ID))
        added = {**_EVERYWHERE, REQUEST_ID: word}
        if scope["path"].startswith(self._private):
            added |= _PRIVATE
        if scope["scheme"] == "https":
            added |= _ENCRYPTED

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in added.items():
                    headers.setdefault(name, value)
            await send(message)

        token = request_id.set(word)
        try:
            await self._app(scope, receive, guarded)
        finally:
            request_id.reset(token)


def _id(sent: Sequence[str]) -> str:
    return sent[0] if len(sent) == 1 and _WORD.fullmatch(sent[0]) else str(new_id())
