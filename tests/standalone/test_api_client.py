"""The client of the API against servers that hang up."""

from __future__ import annotations

import http.client
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from standalone.api_client import ApiClient

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


class Server:
    """Answers the first request of each connection, then hangs up: at once, or when a second one has come."""

    def __init__(self, *, waits_for_second: bool) -> None:
        self._waits_for_second = waits_for_second
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.methods: list[str] = []
        self.hung_up = threading.Event()

    def run(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            with peer:
                self.hung_up.clear()
                self._read(peer)
                peer.sendall(ANSWER)
                if self._waits_for_second:
                    self._read(peer)
            self.hung_up.set()

    def _read(self, peer: socket.socket) -> None:
        received = peer.recv(65536)
        if received:
            self.methods.append(received.split(b" ")[0].decode())

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@contextmanager
def serving(*, waits_for_second: bool) -> Iterator[Server]:
    server = Server(waits_for_second=waits_for_second)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.close()
        thread.join(timeout=5)
        assert not thread.is_alive()


def test_a_connection_that_was_closed_while_it_idled_is_replaced() -> None:
    with serving(waits_for_second=False) as server, ApiClient(server.url, timeout=5) as client:
        for method in ("GET", "POST", "DELETE"):
            assert client.call(method, "/") == {}
            assert server.hung_up.wait(5)
            sock = client._connection.sock
            assert sock is not None
            assert select.select([sock], [], [], 5)[0], "the end has arrived"
        assert server.methods == ["GET", "POST", "DELETE"]


def test_a_get_that_met_the_end_of_its_connection_is_sent_again_and_a_write_is_not() -> None:
    with serving(waits_for_second=True) as server, ApiClient(server.url, timeout=5) as client:
        client.call("GET", "/")
        assert client.call("GET", "/") == {}
        assert server.methods == ["GET", "GET", "GET"]
        with pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
            client.call("POST", "/")
        assert server.methods == ["GET", "GET", "GET", "POST"]
