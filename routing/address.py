"""Where a provider's base URL may lead: checked at the moment of connecting.

Administrators set base URLs, and workers sit inside the network, so a base URL is a way to reach what the
administrator cannot (server-side request forgery). Checking the URL when it is saved is not enough: a name
may resolve to something else a minute later. So the backend here resolves the host once per connection,
checks every address, and connects to a checked address itself; TLS and the Host header keep the name.

* Refused always: link-local and the known metadata services, in any embedding.
* Refused unless the provider's `allow_private_network` is set: everything else that is not public.
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
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_NAT64_LOCAL = ipaddress.IPv6Network("64:ff9b:1::/48")  # RFC 8215: for use inside one network
_RESOLVER_THREADS = 8


class ForbiddenAddressError(ConfigurationError):
    """A base_url leads where this provider may not go."""


def refusal(address: Address, *, allow_private: bool) -> str | None:
    """Why `address` may not be connected to, or None where it may."""
    inner = _embedded(address)
    if inner is not None and (reason := refusal(inner, allow_private=allow_private)):
        return reason
    if address in _METADATA or address.is_link_local:
        return f"{address} is a link-local or metadata address, which no provider may use"
    if allow_private or (address.is_global and not address.is_multicast and inner is None):
        return None
    if inner is not None and address in _NAT64:
        return None  # how an IPv6-only network with DNS64 names public IPv4 hosts: `inner` was judged
    return (
        f"{address} is not a public address; set allow_private_network if the provider is meant to be there"
    )


def _embedded(address: Address) -> Address | None:
    """The IPv4 address inside an IPv6 one that routers or the kernel would unwrap."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in _NAT64 or address in _NAT64_LOCAL:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
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
        addresses = self._checked(host, port, until - time.monotonic())
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

    def _checked(self, host: str, port: int, seconds: float) -> list[Address]:
        """The addresses of `host`. One forbidden among them refuses all: a public name that also leads
        inside is a trap, not a provider."""
        addresses = _literal(host) or [
            ipaddress.ip_address(text) for text in self._resolver.addresses(host, port, max(0.001, seconds))
        ]
        for address in addresses:
            reason = refusal(address, allow_private=self._allow_private)
            if reason is not None:
                raise ForbiddenAddressError(f"base_url leads to {host!r}, but {reason}.")
        return addresses


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
