"""One HTTP exchange over ASGI, with the ways to spoil it that a fault may ask for."""

import asyncio
import os
import socket
import struct
from typing import Any

from starlette.types import Receive, Scope, Send

from standalone.sandbox.values import Answer

TRANSPORT = "orrery.transport"
"""Name of the ASGI scope extension in which ``server`` passes the connection's transport."""

MAX_BODY_BYTES = 32 * 1024 * 1024
MAX_BATCH_BYTES = 256 * 1024 * 1024
_HUGE = 1_000_000_000
_PIECE = b" " * 262_144
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class ClientGone(Exception):
    """The client closed the connection before the answer was complete."""


class Exchange:
    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send

    async def body(self, most: int = MAX_BODY_BYTES) -> tuple[bytes, bool]:
        """The request body, and whether it was over the limit of ``most`` bytes.

        A body over the limit is read to its end all the same: an answer sent before that could be lost,
        because closing a socket with unread bytes resets the connection.
        """
        message = await self._receive()
        body: bytes = message.get("body", b"")
        if not message.get("more_body", False):
            return body, len(body) > most
        parts, size = [body], len(body)
        while message.get("more_body", False):
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            size += len(message["body"])
            if size <= most:
                parts.append(message["body"])
        return b"".join(parts), size > most

    async def send(self, answer: Answer) -> None:
        await self._start(answer)
        if not answer.streamed:
            await self._send({"type": "http.response.body", "body": answer.chunks[0]})
            return
        for chunk in answer.chunks:
            await self._send({"type": "http.response.body", "body": chunk, "more_body": True})
        await self._send({"type": "http.response.body"})

    async def pause(self, seconds: float) -> None:
        """Wait. Raises ClientGone as soon as the client hangs up."""
        try:
            async with asyncio.timeout(seconds):
                await self._disconnected()
        except TimeoutError:
            return
        raise ClientGone

    async def reset(self) -> None:
        """Break the connection with a TCP RST; nothing of an answer is sent."""
        transport = self._transport()
        # The option belongs to the open socket, not to the descriptor: a duplicate reaches it under any
        # event loop.
        with socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as duplicate:
            duplicate.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        transport.abort()
        await self._disconnected()

    async def truncate(self, answer: Answer) -> None:
        """Full headers, half of the body, then close."""
        await self._start(answer)
        body = answer.body
        await self._send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
        self._transport().close()
        await self._disconnected()

    async def mislabel(self, answer: Answer, announced: int | None) -> None:
        """The whole body under a wrong content-length: what exceeds it follows on the open connection, what
        falls short of it leaves the client waiting."""
        body = answer.body
        length = len(body) // 2 if announced is None else announced
        await self._start(answer, length)
        if length > len(body):
            await self._send({"type": "http.response.body", "body": body, "more_body": True})
            await self._disconnected()
            return
        await self._send({"type": "http.response.body", "body": body[:length]})
        self._transport().write(body[length:])

    async def flood(self, size: int | None) -> None:
        """``size`` bytes of blanks without a length, and the connection's end in place of an end marker."""
        headers = [(b"content-type", b"application/json")]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        left = _HUGE if size is None else size
        while left > 0 and not self._transport().is_closing():
            await self._send({"type": "http.response.body", "body": _PIECE[:left], "more_body": True})
            left -= len(_PIECE)
            await asyncio.sleep(0)
        self._transport().close()
        await self._disconnected()

    async def drip(self, answer: Answer, seconds: float) -> None:
        """The body, one byte every ``seconds``. Raises ClientGone when the client hangs up."""
        await self._start(answer)
        for byte in answer.body:
            await self._send({"type": "http.response.body", "body": bytes((byte,)), "more_body": True})
            await self.pause(seconds)
        await self._send({"type": "http.response.body"})

    async def _start(self, answer: Answer, length: int | None = None) -> None:
        headers = [(b"content-type", answer.media_type), *answer.headers]
        if length is None and not answer.streamed:
            length = sum(map(len, answer.chunks))
        if length is not None:
            headers.append((b"content-length", b"%d" % length))
        await self._send({"type": "http.response.start", "status": answer.status, "headers": headers})

    async def _disconnected(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    def _transport(self) -> Any:
        try:
            return self._scope["extensions"][TRANSPORT]["transport"]
        except KeyError:
            raise RuntimeError(
                "faults that break connections need the sandbox's own server: serve()"
            ) from None
