"""The only module that imports httpx: one HTTP exchange, with every way it can end as an error of the tree.

* One pool of connections per thread and policy, made on first use, all around shared TLS contexts. (One pool
  shared by 256 threads costs ten times the CPU, it is scanned under a lock; a context each costs 26 ms.) A
  connection opened for a provider that may use private networks is never handed to one that may not.
* httpx's transport without its client, whose cookies, redirects, authentication and environment nobody wants
  here: they took a third of a call's CPU.
* A total deadline per call: name lookup, connecting, TLS, writing and every chunk read end by it.
* Redirects are not followed (they would carry the key elsewhere), cookies are not kept, the environment's
  proxies are not used.
* A request that meets a kept-alive connection which the server has just closed is sent again once, at once.
  The server has answered no byte of it; there remains the small risk that it had taken the request, so that
  the call runs, and bills, twice. Failing over instead would carry the same risk. What costs more than a call
  is sent `once`.
"""

from __future__ import annotations

import logging
import ssl
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import IO, TypeAlias
from urllib.parse import urlsplit

import httpcore
import httpx

from routing.address import Deadline, ForbiddenAddressError, GuardedBackend, Lookup, Resolver
from routing.errors import (
    ConfigurationError,
    ConnectionFailed,
    PoolTimedOut,
    RoutingError,
    ServerError,
    TimedOut,
)
from routing.providers.wire import HttpRequest, HttpResponse
from routing.values import Provider

MAX_BODY = 64 * 1024 * 1024  # bytes, after decompression
MAX_TEXT = 8 * 1024 * 1024  # of an answer that holds words only: a worker holds one for each thread
_CONNECT = 5.0  # seconds
_WRITE = 30.0
_POOL = 5.0
_LIMITS = httpx.Limits(max_connections=16, max_keepalive_connections=8, keepalive_expiry=30.0)
_HEADERS = {"accept": "*/*", "accept-encoding": "gzip", "user-agent": "orrery"}

Heard: TypeAlias = Callable[[bytes], None]
"""Is given the pieces of a stream as they come, decompressed."""

for _name in ("httpx", "httpcore"):  # at DEBUG they log request headers
    logging.getLogger(_name).setLevel(logging.WARNING)


class _StaleConnection(ConnectionFailed):
    """A kept-alive connection was gone before a byte of the answer came."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Whom a request goes to.

    Args:
        name: begins sentences about it, such as `Provider 'acme'`.
        field: where its address stands, such as `base_url`.
        allow_private: whether it may be at a loopback or private address.
        verify_tls: whether its certificate must be valid.
        max_body: bytes its answer may have, where that is less than the transport allows; of a download
            whatever that is.
    """

    name: str
    field: str
    allow_private: bool
    verify_tls: bool = True
    max_body: int = MAX_BODY


@dataclass(frozen=True, slots=True)
class _Policy:
    """What two peers must have in common to share connections."""

    allow_private: bool
    verify_tls: bool


@dataclass(frozen=True, slots=True)
class _Channel:
    """A thread's connections for one policy."""

    connections: _GuardedTransport
    deadline: Deadline


class Transport:
    """Sends requests. Safe to share between threads; make it after forking.

    Args:
        max_body: bytes an answer may have, after decompression.
        lookup: finds a host's addresses, (host, port) to texts; by default the system's resolver.
        private_inputs: whether what jobs' inputs point to may lie at a loopback or private address.
    """

    def __init__(
        self, *, max_body: int = MAX_BODY, lookup: Lookup | None = None, private_inputs: bool = False
    ) -> None:
        self.private_inputs = private_inputs
        self._max_body = max_body
        self._resolver = Resolver(lookup)
        self._local = threading.local()
        self._lock = threading.Lock()
        self._tls: dict[bool, ssl.SSLContext] = {}
        self._opened: list[tuple[threading.Thread, httpx.HTTPTransport]] = []

    def send(
        self,
        request: HttpRequest,
        *,
        timeout: float,
        provider: Provider,
        max_body: int = MAX_BODY,
        heard: Heard | None = None,
        once: bool = False,
    ) -> HttpResponse:
        """A provider's answer; as `exchange`. `heard` is given what a stream of events says, as it comes."""
        peer = _peer(provider, max_body)
        return self.exchange(request, timeout=timeout, peer=peer, heard=heard, once=once)

    def download(
        self, request: HttpRequest, *, timeout: float, provider: Provider, file: IO[bytes], most: int
    ) -> HttpResponse:
        """As `send`, but the body of a success, of up to `most` bytes, is written to `file` and not kept."""
        return self.exchange(request, timeout=timeout, peer=_peer(provider, most), file=file)

    def exchange(
        self,
        request: HttpRequest,
        *,
        timeout: float,
        peer: Peer,
        heard: Heard | None = None,
        file: IO[bytes] | None = None,
        once: bool = False,
    ) -> HttpResponse:
        """The answer to `request`, whatever its status, within `timeout` seconds in all.

        `once`: it is not sent again where a kept-alive connection turns out to be closed.

        Raises:
            ConfigurationError: the address is none that can be used, is a forbidden one, or redirects.
            TimedOut, PoolTimedOut, ConnectionFailed: no complete answer came.
            ServerError: the answer is too large or cannot be decompressed.
        """
        channel = self._channel(_Policy(peer.allow_private, peer.verify_tls))
        channel.deadline.start(timeout)
        result = self._attempt(channel, request, timeout, peer, heard, file)
        if isinstance(result, _StaleConnection) and not once:
            result = self._attempt(channel, request, timeout, peer, heard, file)
        if isinstance(result, RoutingError):
            raise result
        return result

    @property
    def resolver(self) -> Resolver:
        """What looks up names here, for connections of other protocols."""
        return self._resolver

    def close(self) -> None:
        """Close every thread's connections."""
        with self._lock:
            opened, self._opened = self._opened, []
        for _, connections in opened:
            connections.close()
        self._resolver.close()

    def _attempt(
        self,
        channel: _Channel,
        request: HttpRequest,
        timeout: float,
        peer: Peer,
        heard: Heard | None,
        file: IO[bytes] | None,
    ) -> HttpResponse | RoutingError:
        """The answer, or the error as a value: raised from here, it would carry httpx's exception along, and
        with it the request and its key."""
        try:
            return self._exchange(channel, request, timeout, peer, heard, file)
        except ForbiddenAddressError as error:
            return ForbiddenAddressError(error.host, error.reason, field=peer.field)
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, UnicodeError) as error:
            untouched = channel.deadline.connects == 0 and channel.deadline.received == 0
            if untouched and isinstance(error, _DISCONNECTS):
                return _StaleConnection(f"{peer.name} closed the connection without an answer.")
            return _translated(error, peer, timeout)

    def _exchange(
        self,
        channel: _Channel,
        request: HttpRequest,
        timeout: float,
        peer: Peer,
        heard: Heard | None,
        file: IO[bytes] | None,
    ) -> HttpResponse:
        left = max(0.001, channel.deadline.left(timeout))
        limits = {"connect": min(_CONNECT, left), "read": left, "write": min(_WRITE, left), "pool": _POOL}
        response = channel.connections.handle_request(_prepared(request, limits))
        try:
            headers = _headers(response)
            if 300 <= response.status_code < 400:
                raise ConfigurationError(_redirected(response, peer))
            if file is not None and response.is_success:
                for piece in _body(response, peer.max_body):
                    file.write(piece)
                return HttpResponse(response.status_code, headers, b"")
            pieces = _body(response, min(self._max_body, peer.max_body))
            if heard is not None and response.is_success and _is_stream(headers):
                pieces = _overheard(pieces, heard)
            body = b"".join(pieces)
        finally:
            response.close()
            channel.connections.close_soiled()
        return HttpResponse(response.status_code, headers, body)

    def _channel(self, policy: _Policy) -> _Channel:
        channels: dict[_Policy, _Channel] | None = getattr(self._local, "channels", None)
        if channels is None:
            channels = self._local.channels = {}
        if policy not in channels:
            channels[policy] = self._open(policy)
        return channels[policy]

    def _open(self, policy: _Policy) -> _Channel:
        deadline = Deadline()
        backend = GuardedBackend(deadline, self._resolver, allow_private=policy.allow_private)
        connections = _GuardedTransport(self._context(policy.verify_tls), backend)
        with self._lock:
            gone = [idle for thread, idle in self._opened if not thread.is_alive()]
            self._opened = [entry for entry in self._opened if entry[0].is_alive()]
            self._opened.append((threading.current_thread(), connections))
        for idle in gone:
            idle.close()
        return _Channel(connections, deadline)

    def _context(self, verify: bool) -> ssl.SSLContext:
        with self._lock:
            if verify not in self._tls:
                context = httpx.create_ssl_context(verify=verify, trust_env=False)
                if verify:
                    context.load_default_certs()  # the host's own authorities beside the bundled ones
                self._tls[verify] = context
            return self._tls[verify]


class _GuardedTransport(httpx.HTTPTransport):
    """httpx's transport around a pool with our network backend; httpx has no parameter for one."""

    def __init__(self, context: ssl.SSLContext, backend: GuardedBackend) -> None:
        super().__init__(verify=context, trust_env=False, limits=_LIMITS)
        self._pool = httpcore.ConnectionPool(
            ssl_context=context,
            max_connections=_LIMITS.max_connections,
            max_keepalive_connections=_LIMITS.max_keepalive_connections,
            keepalive_expiry=_LIMITS.keepalive_expiry,
            network_backend=backend,
        )

    def close_soiled(self) -> None:
        """Close connections that hold more than the answer: the next call would take it for its own."""
        for connection in self._pool.connections:
            inner = getattr(connection, "_connection", None)
            if isinstance(inner, httpcore.HTTP11Connection) and inner.is_idle():
                surplus, _ = inner._h11_state.trailing_data
                if surplus:
                    inner.close()


def _is_stream(headers: Mapping[str, str]) -> bool:
    return headers.get("content-type", "").partition(";")[0].strip().lower() == "text/event-stream"


def _overheard(pieces: Iterator[bytes], heard: Heard) -> Iterator[bytes]:
    for piece in pieces:
        heard(piece)
        yield piece


_parsed = lru_cache(maxsize=1024)(httpx.URL)


def _prepared(request: HttpRequest, limits: Mapping[str, float]) -> httpx.Request:
    """httpx works out host and length itself where it is given `content`: three times as slow."""
    url = _parsed(request.url)
    headers = {"host": url.netloc.decode(), **_HEADERS, **request.headers}
    if request.body or request.method != "GET":
        headers["content-length"] = str(len(request.body))
    stream = httpx.ByteStream(request.body)
    return httpx.Request(request.method, url, headers=headers, stream=stream, extensions={"timeout": limits})


def _headers(response: httpx.Response) -> dict[str, str]:
    """Lower-case names; what was sent several times is one text with commas."""
    headers: dict[str, str] = {}
    for name, value in response.headers.raw:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers


_DISCONNECTS = (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)


def _peer(provider: Provider, max_body: int) -> Peer:
    name = f"Provider {provider.slug!r}"
    return Peer(name, "base_url", provider.allow_private_network, _verifies(provider), max_body)


def _verifies(provider: Provider) -> bool:
    return provider.settings.get("verify_tls", True) is not False


def _body(response: httpx.Response, limit: int) -> Iterator[bytes]:
    """The body's chunks, decompressed, and never more than `limit` bytes of them."""
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip", ""):
        raise ServerError(f"The answer is compressed as {encoding[:20]!r}, which was not asked for.")
    inflater = zlib.decompressobj(zlib.MAX_WBITS | 16) if encoding == "gzip" else None
    too_large = ServerError(f"The answer exceeds {limit:,} bytes.", status=response.status_code)
    if int(response.headers.get("content-length", 0)) > limit:
        raise too_large
    room = limit
    for chunk in response.iter_raw():
        data = chunk if inflater is None else _inflated(inflater, chunk, room + 1)
        room -= len(data)
        if room < 0:
            raise too_large
        yield data
    if inflater is not None and not inflater.eof and room < limit:
        raise ConnectionFailed("The compressed answer ended before its end.")


def _inflated(inflater: zlib._Decompress, chunk: bytes, most: int) -> bytes:
    try:
        return inflater.decompress(chunk, most)
    except zlib.error:
        raise ServerError("The answer's compression is broken.") from None


def _redirected(response: httpx.Response, peer: Peer) -> str:
    try:
        target = urlsplit(response.headers.get("location", ""))
        where = f"{target.scheme}://{target.hostname}" if target.hostname else "another path"
    except ValueError:
        where = "nowhere"
    return (
        f"{peer.name} answered {response.status_code}, a redirect to {where}. Redirects are not followed; "
        f"set {peer.field} to the final address."
    )


def _translated(error: Exception, peer: Peer, timeout: float) -> RoutingError:
    """httpx's exceptions as ours. Their texts are used only where no header can be in them."""
    name = peer.name
    match error:
        case httpx.PoolTimeout():
            return PoolTimedOut(f"No connection was free within {_POOL:g} s.", sent=False)
        case httpx.ConnectTimeout():
            limit = min(_CONNECT, timeout)
            return TimedOut(f"{name} did not accept a connection within {limit:g} s.", sent=False)
        case httpx.TimeoutException():
            return TimedOut(f"{name} did not answer completely within {timeout:g} s.")
        case httpx.ConnectError():
            return ConnectionFailed(f"{name} cannot be reached: {str(error)[:300]}", sent=False)
        case httpx.RemoteProtocolError():
            return ConnectionFailed(f"{name} closed the connection or broke the HTTP protocol in mid-answer.")
        case httpx.NetworkError():
            return ConnectionFailed(f"{name} broke the connection ({type(error).__name__}).")
        case httpx.LocalProtocolError() | UnicodeError():
            return ConfigurationError(
                f"The request to {name[0].lower()}{name[1:]} is no valid HTTP request. "
                f"Check {peer.field}, headers and the key for stray characters."
            )
        case _:
            return ConfigurationError(f"{peer.field} of {name[0].lower()}{name[1:]} is no usable address.")
