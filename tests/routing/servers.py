"""Servers for tests: one that speaks HTTP by script, one that does with a socket whatever a test says."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Behaviour = Callable[[socket.socket, bytes], None]


@dataclass
class Seen:
    """One request as it arrived."""

    path: str
    headers: Mapping[str, str]
    body: Any


@dataclass
class ScriptedProvider:
    """Answers requests with `script`, in order; its last entry answers all further ones.

    An entry is (status, body) or (status, body, headers); body is bytes or becomes JSON. What arrives as JSON
    is seen parsed, anything else as bytes.
    """

    script: list[tuple[Any, ...]]
    seen: list[Seen] = field(default_factory=list)
    base_url: str = ""
    gate: Callable[[], None] = lambda: None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, request: Seen) -> tuple[Any, ...]:
        with self._lock:
            self.seen.append(request)
            return self.script[min(len(self.seen), len(self.script)) - 1]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # the default of 5 makes simultaneous clients wait a second for their SYN


def chat(text: str = "Hi.", **usage: int) -> dict[str, Any]:
    counts = usage or {"prompt_tokens": 1000, "completion_tokens": 500}
    message = {"role": "assistant", "content": text}
    return {"model": "acme-1", "choices": [{"message": message, "finish_reason": "stop"}], "usage": counts}


@contextmanager
def scripted(*script: tuple[Any, ...]) -> Iterator[ScriptedProvider]:
    """A provider on a free port of 127.0.0.1."""
    provider = ScriptedProvider(list(script))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = int(self.headers.get("content-length", 0))
            sent = self.rfile.read(length)
            is_json = self.headers.get("content-type", "").startswith("application/json")
            body = json.loads(sent or b"null") if is_json else sent
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, content, *extra = provider.answer(Seen(self.path, headers, body))
            provider.gate()
            raw = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in {"content-type": "application/json", **(extra[0] if extra else {})}.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def do_GET(self) -> None:
            self.do_POST()

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def handle(self) -> None:
            with suppress(ConnectionError):  # a client that ran out of time has hung up
                super().handle()

    server = _Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    provider.base_url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield provider
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass
class RawServer:
    """Hands each request (its head and body as bytes) with its connection to `behaviour`."""

    url: str
    connections: list[socket.socket] = field(default_factory=list)
    requests: list[bytes] = field(default_factory=list)


@contextmanager
def raw(behaviour: Behaviour) -> Iterator[RawServer]:
    listener = socket.create_server(("127.0.0.1", 0))
    server = RawServer(f"http://127.0.0.1:{listener.getsockname()[1]}")
    threads: list[threading.Thread] = []

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                server.connections.append(connection)
                thread = threading.Thread(target=serve, args=(connection,), daemon=True)
                threads.append(thread)
                thread.start()

    def serve(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while request := _request(connection):
                server.requests.append(request)
                behaviour(connection, request)

    acceptor = threading.Thread(target=accept, daemon=True)
    acceptor.start()
    try:
        yield server
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join()
        for connection in server.connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()


def ok(body: bytes = b"{}", *headers: str) -> bytes:
    """An answer 200 as bytes."""
    lines = ["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def _request(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = connection.recv(65536)
        if not chunk:
            return b""
        data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    lengths = [line.split(b":")[1] for line in lines if line.startswith(b"content-length:")]
    while len(body) < int(lengths[0] if lengths else 0):
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body
