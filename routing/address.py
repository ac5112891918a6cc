"""Where an address that people set may lead: checked at the moment of connecting.

Administrators set base URLs and endpoints, and workers sit inside the network, so a URL is a way to reach
what the administrator cannot (server-side request forgery). Checking it when it is saved is not enough: a
name may resolve to something else a minute later. So a host is resolved once per connection here, every
address is checked, and a checked address is what is connected to; TLS and the Host header keep the name.

* Refused always: link-local and the known metadata services, in any embedding.
* Refused unless the row's `allow_private_network` is set: everything else that is not public.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from typing import TypeAlias

import httpcore

from routing.errors import ConfigurationError

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Lookup: TypeAlias = Callable[[str, int], list[str]]

_METADATA = frozenset(
    ipaddress.ip_address(address)
    for address in (
        "169.254.169.254",  # AWS, Azure, Google Cloud and most others
        "fd00:ec2::254",  # AWS
        "fd20:ce::254",  # Google Cloud
        "100.100.100.200",  # Alibaba Cloud
        "168.63.129.16",  # Azure's wire server: a public address that only virtual machines reach
        "192.0.0.192",  # Oracle Cloud, classic
    )
)
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")  # all of IPv6 that is public lies in it
_SPECIAL = tuple(  # in use for something else; not every Python version knows
    ipaddress.ip_network(network) for network in ("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "3fff::/20")
)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_NAT64_LOCAL = ipaddress.IPv6Network("64:ff9b:1::/48")  # RFC 8215: for use inside one network
_TRANSLATED = ipaddress.IPv6Network("::ffff:0:0:0/96")  # RFC 2765
_COMPATIBLE = ipaddress.IPv6Network("::/96")  # RFC 4291, deprecated
_RESOLVER_THREADS = 8


class ForbiddenAddressError(ConfigurationError):
    """An address leads where it may not."""

    def __init__(self, host: str, reason: str, *, field: str = "The address") -> None:
        super().__init__(f"{field} leads to {host!r}, but {reason}.")
        self.host, self.reason = host, reason


def refusal(address: Address, *, allow_private: bool) -> str | None:
    """Why `address` may not be connected to, or None where it may."""
    inner = _embedded(address)
    if inner is not None and (reason := refusal(inner, allow_private=allow_private)):
        return reason
    if address in _METADATA or address.is_link_local:
        return f"{address} is a link-local or metadata address, which nothing may use"
    if allow_private or (_is_public(address) and inner is None):
        return None
    if inner is not None and address in _NAT64:
        return None  # how an IPv6-only network with DNS64 names public IPv4 hosts: `inner` was judged
    return f"{address} is not a public address; set allow_private_network if it is meant to lead there"


def _is_public(address: Address) -> bool:
    if any(address in network for network in _SPECIAL if network.version == address.version):
        return False
    is_unicast = isinstance(address, ipaddress.IPv4Address) or address in _GLOBAL_UNICAST
    return is_unicast and address.is_global and not address.is_multicast


def _embedded(address: Address) -> Address | None:
    """The IPv4 address inside an IPv6 one that routers or the kernel would unwrap."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    low = int(address) & 0xFFFFFFFF
    if any(address in network for network in (_NAT64, _NAT64_LOCAL, _TRANSLATED)):
        return ipaddress.IPv4Address(low)
    if address in _COMPATIBLE and low > 1:  # not :: and ::1
        return ipaddress.IPv4Address(low)
    teredo = address.teredo[1] if address.teredo else None
    return address.ipv4_mapped or address.sixtofour or teredo


class Resolver:
    """Looks names up in threads of its own: `getaddrinfo` has no timeout, and calls have a deadline."""

    def __init__(self, lookup: Lookup | None = None) -> None:
        self._lookup = lookup or _system_lookup
        self._threads = ThreadPoolExecutor(_RESOLVER_THREADS, thread_name_prefix="resolver")

    def addresses(self, host: str, port: int, timeout: float) -> list[str]:
        """Addresses of `host`. Raises httpcore.ConnectTimeout after `timeout` seconds, else ConnectError."""
        try:
            return self._threads.submit(self._lookup, host, port).result(timeout)
        except FutureTimeout:
            raise httpcore.ConnectTimeout(f"{host!r} was not resolved within {timeout:.1f} s") from None
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"{host!r} cannot be resolved: {error}") from None

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def _system_lookup(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def checked(
    host: str, port: int, resolver: Resolver, *, seconds: float, allow_private: bool
) -> list[Address]:
    """The addresses of `host`. One forbidden among them refuses all: a public name that also leads inside is
    a trap.

    Raises:
        ForbiddenAddressError: one of them may not be connected to.
        httpcore.ConnectTimeout, httpcore.ConnectError: the host was not resolved.
    """
    addresses = _literal(host) or [
        ipaddress.ip_address(text) for text in resolver.addresses(host, port, max(0.001, seconds))
    ]
    for address in addresses:
        reason = refusal(address, allow_private=allow_private)
        if reason is not None:
            raise ForbiddenAddressError(host, reason)
    return addresses


def connect(
    host: str, port: int, resolver: Resolver, *, seconds: float, allow_private: bool
) -> socket.socket:
    """A TCP connection to one of the host's addresses, for protocols other than HTTP.

    The socket keeps what was left of `seconds` when it was opened as its timeout.

    Raises:
        ForbiddenAddressError: one of the addresses may not be connected to.
        OSError: the host was not resolved, or none of its addresses answered in time.
    """
    until = time.monotonic() + seconds
    try:
        addresses = checked(host, port, resolver, seconds=seconds, allow_private=allow_private)
    except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
        raise OSError(str(error)) from None
    last = OSError(f"{host!r} resolves to no address")
    for address in addresses:
        try:
            return socket.create_connection(
                (str(address), port), timeout=max(0.001, until - time.monotonic())
            )
        except OSError as error:
            last = error
    raise last


class Deadline:
    """The instant by which the call in progress must be over, and how far it got: connections opened, bytes
    received. One per client, so one per thread."""

    def __init__(self) -> None:
        self._until = 0.0
        self.connects = 0
        self.received = 0

    def start(self, seconds: float) -> None:
        """A new call begins: it may take `seconds`."""
        self._until = time.monotonic() + seconds
        self.connects = self.received = 0

    def left(self, timeout: float | None) -> float:
        """Seconds an operation may take that would be allowed `timeout` by itself; 0 or less = none."""
        left = self._until - time.monotonic()
        return left if timeout is None else min(left, timeout)


class GuardedBackend(httpcore.NetworkBackend):
    """Connects to checked addresses only, and holds every socket operation to the call's deadline."""

    def __init__(self, deadline: Deadline, resolver: Resolver, *, allow_private: bool) -> None:
        self._deadline = deadline
        self._resolver = resolver
        self._allow_private = allow_private
        self._backend = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        until = time.monotonic() + max(0.0, self._deadline.left(timeout))
        addresses = checked(
            host, port, self._resolver, seconds=until - time.monotonic(), allow_private=self._allow_private
        )
        for index, address in enumerate(addresses):
            last = index == len(addresses) - 1
            share = (until - time.monotonic()) / (len(addresses) - index)
            try:
                stream = self._backend.connect_tcp(
                    str(address), port, max(0.001, share), local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if last:
                    raise
            else:
                self._deadline.connects += 1
                return _TimedStream(stream, self._deadline)
        raise httpcore.ConnectError(f"{host!r} resolves to no address")


class _TimedStream(httpcore.NetworkStream):
    """A stream whose every operation ends by the deadline (httpx's read timeout begins anew per chunk)."""

    _PIECE = 65_536

    def __init__(self, stream: httpcore.NetworkStream, deadline: Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        left = self._deadline.left(timeout)
        if left <= 0:
            raise httpcore.ReadTimeout
        data = self._stream.read(max_bytes, left)
        self._deadline.received += len(data)
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for start in range(0, len(buffer), self._PIECE):
            left = self._deadline.left(timeout)
            if left <= 0:
                raise httpcore.WriteTimeout
            self._stream.write(buffer[start : start + self._PIECE], left)

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left = self._deadline.left(timeout)
        if left <= 0:
            raise httpcore.ConnectTimeout
        return _TimedStream(self._stream.start_tls(ssl_context, server_hostname, left), self._deadline)

    def get_extra_info(self, info: str) -> object:
        return self._stream.get_extra_info(info)


def _literal(host: str) -> list[Address]:
    """The address that `host` spells out, as a list of one; [] where it is a name."""
    try:
        return [ipaddress.ip_address(host.strip("[]"))]
    except ValueError:
        return []
