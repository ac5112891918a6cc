"""Serve the sandbox with uvicorn until a signal ends it."""

import asyncio
import socket
from collections.abc import Callable

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from standalone.sandbox.app import create_app
from standalone.sandbox.exchange import TRANSPORT
from standalone.signals import end_quietly

_BACKLOG = 2048
_KEEP_ALIVE_SECONDS = 75
_GRACE_SECONDS = 0.5
"""How long calls may go on after a signal; then their connections are cut, however slow a fault made them."""
_GIVE_UP_SECONDS = 5


class _Connection(HttpToolsProtocol):
    """Hands the transport to the application: ASGI itself has no way to break a connection."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {TRANSPORT: {"transport": self.transport}}


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._announce()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().call_later(_GRACE_SECONDS, self._hang_up)
        await super().shutdown(sockets)

    def _hang_up(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()


def serve(host: str = "127.0.0.1", port: int = 0, *, on_ready: Callable[[str], None] | None = None) -> None:
    """Serve until SIGTERM or SIGINT, then return.

    ``port`` 0 takes a free one. ``on_ready`` is called once, with the base URL (``http://127.0.0.1:40123``),
    when connections are accepted. Raises OSError when the address is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    name = f"[{host}]" if family == socket.AF_INET6 else host
    url = f"http://{name}:{listener.getsockname()[1]}"
    config = uvicorn.Config(
        create_app(),
        loop="uvloop",
        http=_Connection,
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_GIVE_UP_SECONDS,
    )
    end_quietly()
    with listener:
        _Server(config, lambda: on_ready(url) if on_ready else None).run(sockets=[listener])
