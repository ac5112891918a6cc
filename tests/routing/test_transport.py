from __future__ import annotations

import gc
import gzip
import io
import logging
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from typing import IO, Any

import httpx
import pytest

from routing.errors import (
    ConfigurationError,
    ConnectionFailed,
    PoolTimedOut,
    RoutingError,
    ServerError,
    TimedOut,
)
from routing.providers.wire import HttpRequest, HttpResponse
from routing.transport import Peer, Transport, _translated
from tests.routing import factories, servers
from tests.routing.factories import KEY


@pytest.fixture
def transport() -> Iterator[Transport]:
    made = Transport(max_body=100_000)
    yield made
    made.close()


def _send(
    transport: Transport, url: str, *, timeout: float = 10, body: bytes = b"", **fields: Any
) -> HttpResponse:
    request = HttpRequest("POST", url, {"authorization": f"Bearer {KEY}"}, body)
    return transport.send(request, timeout=timeout, provider=factories.provider(**fields))


def _failure(transport: Transport, url: str, **fields: Any) -> RoutingError:
    with pytest.raises(RoutingError) as caught:
        _send(transport, url, **fields)
    assert KEY not in str(caught.value)
    return caught.value


def test_exchange(transport: Transport) -> None:
    with servers.raw(lambda c, _: c.sendall(servers.ok(b'{"a": 1}', "X-Request-Id: r1"))) as server:
        response = _send(transport, f"{server.url}/v1/x?q=1", body=b"hello")
    assert (response.status, response.body) == (200, b'{"a": 1}')
    assert response.headers["x-request-id"] == "r1"
    head = server.requests[0].decode()
    assert head.startswith("POST /v1/x?q=1 HTTP/1.1")
    assert f"authorization: Bearer {KEY}" in head
    assert head.endswith("hello")
    assert "cookie" not in head


def test_error_statuses_are_answers_too(transport: Transport) -> None:
    reply = b"HTTP/1.1 503 Busy\r\nContent-Length: 2\r\n\r\nno"
    with servers.raw(lambda c, _: c.sendall(reply)) as server:
        assert _send(transport, server.url).status == 503


def test_cookies_are_not_kept_and_connections_are(transport: Transport) -> None:
    with servers.raw(lambda c, _: c.sendall(servers.ok(b"", "Set-Cookie: a=b"))) as server:
        for _ in range(3):
            _send(transport, server.url)
        assert len(server.connections) == 1
        assert not any(b"cookie" in request.lower() for request in server.requests)


def _drip(connection: socket.socket, _request: bytes) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    _trickle(connection)


def _drip_head(connection: socket.socket, _request: bytes) -> None:
    _trickle(connection, b"HTTP/1.1 200 OK\r\nX-Slow: ")


def _trickle(connection: socket.socket, start: bytes = b"") -> None:
    """A byte every 50 ms for ten seconds: each read succeeds, the answer does not end."""
    connection.sendall(start)
    for _ in range(200):
        connection.sendall(b"x")
        time.sleep(0.05)


def _silence(connection: socket.socket, _request: bytes) -> None:
    connection.recv(1)


@pytest.mark.parametrize("behaviour", [_drip, _drip_head, _silence])
def test_the_deadline_is_total(transport: Transport, behaviour: servers.Behaviour) -> None:
    with servers.raw(behaviour) as server:
        started = time.monotonic()
        error = _failure(transport, server.url, timeout=0.7)
        elapsed = time.monotonic() - started
    assert type(error) is TimedOut
    assert error.sent
    assert 0.65 <= elapsed < 5  # each read succeeds, so without a total deadline the drip takes ten seconds


def test_the_deadline_bounds_a_name_lookup_that_hangs() -> None:
    answered = threading.Event()

    def lookup(_host: str, _port: int) -> list[str]:
        answered.wait(20)
        return ["127.0.0.1"]

    transport = Transport(lookup=lookup)
    try:
        error = _failure(transport, "http://slow.example/", timeout=0.3)
    finally:
        answered.set()
        transport.close()
    assert isinstance(error, TimedOut)
    assert not error.sent


def _reset(connection: socket.socket, _request: bytes) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def _truncate(connection: socket.socket, _request: bytes) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nonly this")
    connection.shutdown(socket.SHUT_RDWR)


def _truncated_gzip(connection: socket.socket, _request: bytes) -> None:
    packed = gzip.compress(bytes(range(256)) * 20)[:-20]
    connection.sendall(servers.ok(packed, "Content-Encoding: gzip"))


def _garbage(connection: socket.socket, _request: bytes) -> None:
    connection.sendall(b"\x00\x01\x02 this is not HTTP\r\n\r\n")
    connection.shutdown(socket.SHUT_RDWR)


def _hang_up(connection: socket.socket, _request: bytes) -> None:
    connection.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("behaviour", [_reset, _truncate, _truncated_gzip, _garbage, _hang_up])
def test_broken_connections(transport: Transport, behaviour: servers.Behaviour) -> None:
    with servers.raw(behaviour) as server:
        error = _failure(transport, server.url)
        assert isinstance(error, ConnectionFailed)
        assert error.sent
        assert len(server.requests) == 1  # a fresh connection's failure is not tried again here


def test_refused_connection_was_never_sent(transport: Transport) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    error = _failure(transport, f"http://127.0.0.1:{port}/")
    assert isinstance(error, ConnectionFailed)
    assert not error.sent


def test_a_server_without_tls_was_never_sent_the_request(transport: Transport) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"220 this is not TLS\r\n")
                connection.recv(65536)

        thread = threading.Thread(target=greet)
        thread.start()
        error = _failure(transport, f"https://127.0.0.1:{listener.getsockname()[1]}/")
        thread.join()
    assert isinstance(error, ConnectionFailed)
    assert not error.sent


def _unsized(connection: socket.socket, _request: bytes) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 150_000)
    connection.shutdown(socket.SHUT_RDWR)


def _announced(connection: socket.socket, _request: bytes) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
    connection.recv(1)


def _bomb(connection: socket.socket, _request: bytes) -> None:
    connection.sendall(servers.ok(gzip.compress(b"0" * 50_000_000), "Content-Encoding: gzip"))


def _zstd(connection: socket.socket, _request: bytes) -> None:
    connection.sendall(servers.ok(b"abc", "Content-Encoding: zstd"))


def _broken_gzip(connection: socket.socket, _request: bytes) -> None:
    connection.sendall(servers.ok(b"this is no gzip", "Content-Encoding: gzip"))


@pytest.mark.parametrize("behaviour", [_unsized, _announced, _bomb, _zstd, _broken_gzip])
def test_unreadable_bodies(transport: Transport, behaviour: servers.Behaviour) -> None:
    with servers.raw(behaviour) as server:
        assert isinstance(_failure(transport, server.url), ServerError)


def test_gzip_is_unpacked(transport: Transport) -> None:
    packed = gzip.compress(b"stars" * 1000)
    with servers.raw(lambda c, _: c.sendall(servers.ok(packed, "Content-Encoding: gzip"))) as server:
        assert _send(transport, server.url).body == b"stars" * 1000


@pytest.mark.parametrize("status", [301, 302, 307, 308, 304])
def test_redirects_are_a_wrong_base_url(transport: Transport, status: int) -> None:
    reply = (
        f"HTTP/1.1 {status} X\r\nLocation: https://other.example/a?b\r\nContent-Length: 0\r\n\r\n".encode()
    )
    with servers.raw(lambda c, _: c.sendall(reply)) as server:
        error = _failure(transport, server.url)
        assert isinstance(error, ConfigurationError)
        assert "base_url" in error.message
        assert "https://other.example" in error.message
        assert len(server.requests) == 1


@pytest.mark.parametrize("url", ["http://[::1/", "ftp://x/", "http:///x", "/v1", f"http://{'a' * 300}.x/"])
def test_unusable_addresses(transport: Transport, url: str) -> None:
    error = _failure(transport, url)
    assert isinstance(error, ConfigurationError | ConnectionFailed)
    assert "acme" in error.message


def test_a_stale_connection_is_replaced_once_at_once(transport: Transport) -> None:
    answers = iter([servers.ok(b"1"), None, servers.ok(b"2")])

    def behaviour(connection: socket.socket, _request: bytes) -> None:
        reply = next(answers)
        if reply is None:
            connection.shutdown(socket.SHUT_RDWR)
        else:
            connection.sendall(reply)

    with servers.raw(behaviour) as server:
        assert _send(transport, server.url).body == b"1"
        assert _send(transport, server.url).body == b"2"
        assert (len(server.connections), len(server.requests)) == (2, 3)


def test_what_is_to_be_sent_once_is_not_repeated_on_a_stale_connection(transport: Transport) -> None:
    def behaviour(connection: socket.socket, _request: bytes) -> None:
        if len(server.requests) == 1:
            connection.sendall(servers.ok(b"1"))
        else:
            connection.shutdown(socket.SHUT_RDWR)

    with servers.raw(behaviour) as server:
        assert _send(transport, server.url).body == b"1"
        request = HttpRequest("POST", server.url, {}, b"")
        with pytest.raises(ConnectionFailed) as failed:
            transport.send(request, timeout=10, provider=factories.provider(), once=True)
        assert len(server.requests) == 2
    assert failed.value.sent


def _download(transport: Transport, url: str, file: IO[bytes], most: int) -> HttpResponse:
    request = HttpRequest("GET", url, {})
    return transport.download(request, timeout=10, provider=factories.provider(), file=file, most=most)


def test_a_download_goes_to_a_file_and_may_be_larger_than_an_answer(transport: Transport) -> None:
    body = gzip.compress(b"x" * 200_000)
    file = io.BytesIO()
    with servers.raw(lambda c, _: c.sendall(servers.ok(body, "Content-Encoding: gzip"))) as server:
        response = _download(transport, server.url, file, 200_000)
        assert (response.status, response.body, file.getvalue()) == (200, b"", b"x" * 200_000)
        with pytest.raises(ServerError, match="exceeds 199,999 bytes"):
            _download(transport, server.url, io.BytesIO(), 199_999)


def test_an_error_is_an_answer_and_no_download(transport: Transport) -> None:
    reply = b"HTTP/1.1 404 Gone\r\nContent-Length: 4\r\n\r\ngone"
    file = io.BytesIO()
    with servers.raw(lambda c, _: c.sendall(reply)) as server:
        response = _download(transport, server.url, file, 100)
    assert (response.status, response.body, file.getvalue()) == (404, b"gone", b"")


@pytest.mark.parametrize("surplus", [b'"b": 2}', servers.ok(b"of another")])
def test_what_follows_an_answer_is_never_the_next_one(transport: Transport, surplus: bytes) -> None:
    with servers.raw(lambda c, _: c.sendall(servers.ok(b"1") + surplus)) as server:
        for _ in range(3):
            assert _send(transport, server.url).body == b"1"
        assert len(server.requests) == 3


def test_a_connection_that_broke_after_a_byte_is_not_tried_again(transport: Transport) -> None:
    def behaviour(connection: socket.socket, _request: bytes) -> None:
        if len(server.requests) == 1:
            connection.sendall(servers.ok(b"1"))
        else:
            connection.sendall(b"HTTP/1.1 2")
            connection.shutdown(socket.SHUT_RDWR)

    with servers.raw(behaviour) as server:
        assert _send(transport, server.url).body == b"1"
        assert isinstance(_failure(transport, server.url), ConnectionFailed)
        assert len(server.requests) == 2


# --- addresses ----------------------------------------------------------------------------------------


def test_a_private_network_needs_leave(transport: Transport) -> None:
    with servers.raw(lambda c, _: c.sendall(servers.ok())) as server:
        assert _send(transport, server.url, allow_private_network=True).status == 200
        error = _failure(transport, server.url, allow_private_network=False)
        assert isinstance(error, ConfigurationError)
        assert "base_url" in error.message
        assert "allow_private_network" in error.message
        assert len(server.requests) == 1  # nor was the first provider's open connection used


@pytest.mark.parametrize("url", ["http://169.254.169.254/", "http://[fd00:ec2::254]/", "http://0xA9FEA9FE/"])
def test_metadata_addresses_are_refused_even_with_leave(transport: Transport, url: str) -> None:
    error = _failure(transport, url, allow_private_network=True)
    assert isinstance(error, ConfigurationError)


def test_the_checked_address_is_the_one_connected_to() -> None:
    """A name that answers innocently when asked first and leads to the metadata service afterwards."""
    lookups: list[str] = []

    def lookup(host: str, _port: int) -> list[str]:
        lookups.append(host)
        return ["127.0.0.1"] if len(lookups) == 1 else ["169.254.169.254"]

    transport = Transport(lookup=lookup)
    with servers.raw(lambda c, _: c.sendall(servers.ok(b"", "Connection: close"))) as server:
        url = server.url.replace("127.0.0.1", "rebind.example")
        assert _send(transport, url).status == 200
        assert lookups == ["rebind.example"]  # resolved once: no second look between check and connect
        assert b"host: rebind.example" in server.requests[0].lower()
        error = _failure(transport, url)
        assert isinstance(error, ConfigurationError)
        assert len(server.requests) == 1
    transport.close()


def test_one_forbidden_address_among_many_refuses_the_host() -> None:
    transport = Transport(lookup=lambda _host, _port: ["127.0.0.1", "169.254.169.254"])
    with servers.raw(lambda c, _: c.sendall(servers.ok())) as server:
        url = server.url.replace("127.0.0.1", "mixed.example")
        assert isinstance(_failure(transport, url), ConfigurationError)
        assert server.connections == []
    transport.close()


def test_the_next_address_is_tried_when_one_does_not_answer() -> None:
    transport = Transport(lookup=lambda _host, _port: ["::1", "127.0.0.1"])
    with servers.raw(lambda c, _: c.sendall(servers.ok(b"yes"))) as server:
        url = server.url.replace("127.0.0.1", "dual.example")
        assert _send(transport, url).body == b"yes"
    transport.close()


def test_an_unknown_host_cannot_be_reached() -> None:
    def lookup(_host: str, _port: int) -> list[str]:
        raise socket.gaierror(-2, "Name or service not known")

    transport = Transport(lookup=lookup)
    error = _failure(transport, "http://nowhere.example/")
    transport.close()
    assert isinstance(error, ConnectionFailed)
    assert not error.sent


# --- threads and keys ---------------------------------------------------------------------------------


def test_threads_do_not_share_connections_and_leave_none_behind(transport: Transport) -> None:
    with servers.raw(lambda c, _: c.sendall(servers.ok())) as server:
        for _ in range(3):
            thread = threading.Thread(target=_send, args=(transport, server.url))
            thread.start()
            thread.join()
        assert len(server.connections) == 3
        _send(transport, server.url)  # opening this thread's client closes those of the dead
        gc.collect()


def test_all_clients_share_one_tls_context_per_policy(transport: Transport) -> None:
    contexts = {id(transport._context(True)) for _ in range(3)}
    assert len(contexts) == 1
    assert transport._context(True).verify_mode is ssl.CERT_REQUIRED
    assert transport._context(False).verify_mode is ssl.CERT_NONE


def test_no_exception_carries_the_request_and_its_key(transport: Transport) -> None:
    with servers.raw(_hang_up) as server:
        error = _failure(transport, server.url)
    chain: BaseException | None = error
    while chain is not None:
        assert not hasattr(chain, "request")
        chain = chain.__cause__ or chain.__context__


def test_a_header_no_client_would_send_is_refused_without_being_shown(transport: Transport) -> None:
    request = HttpRequest("POST", "http://127.0.0.1:9/", {"authorization": f"Bearer {KEY}\n"})
    with pytest.raises(RoutingError) as caught:
        transport.send(request, timeout=2, provider=factories.provider())
    assert KEY not in str(caught.value)


def test_client_libraries_do_not_log_requests(transport: Transport, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), servers.raw(lambda c, _: c.sendall(servers.ok())) as server:
        _send(transport, server.url)
    assert KEY not in caplog.text
    assert not [record for record in caplog.records if record.name.startswith(("httpx", "httpcore"))]


def test_a_full_pool_is_our_own_doing() -> None:
    error = _translated(httpx.PoolTimeout("full"), Peer("Provider 'acme'", "base_url", False), 10)
    assert isinstance(error, PoolTimedOut)
    assert not error.sent
