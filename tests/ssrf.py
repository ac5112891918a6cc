"""Addresses that lead where they should not, in every spelling, and a spy that sees who goes there.

Whatever takes a URL is run against CORPUS: nothing may be connected to.
"""

from __future__ import annotations

import ipaddress
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest


def _words(text: str) -> list[str]:
    return text.split()


PUBLIC = "93.184.215.14"

# What names resolve to, one answer after the other; the last one stays.
NAMES: dict[str, list[list[str]]] = {
    "localhost": [["127.0.0.1", "::1"]],
    "localhost.localdomain": [["127.0.0.1"]],
    "internal.example.com": [["10.0.0.5"]],
    "127.0.0.1.nip.io": [["127.0.0.1"]],
    "localtest.me": [["127.0.0.1"]],
    "six.example.com": [["fd12:3456::1"]],
    "six-local.example.com": [["::1"]],
    "mapped.example.com": [["::ffff:127.0.0.1"]],
    "scoped.example.com": [["fe80::1%1"]],
    "mixed.example.com": [[PUBLIC, "10.0.0.5"]],
    "mixed6.example.com": [[PUBLIC, "::1"]],
    "metadata.google.internal": [["169.254.169.254"]],
    "metadata": [["169.254.169.254"]],
    "instance-data": [["169.254.169.254"]],
    "rebinding.example.com": [["127.0.0.1"], [PUBLIC]],
}

_PRIVATE = _words("""
127.0.0.1 127.1 127.0.1 127.255.255.254 127.000.000.001 0 0.0.0.0 0.1.2.3
2130706433 017700000001 0x7f000001 0x7f.1 0x7f.0x0.0x0.0x1 0177.0.0.1 0177.0.0.01 00177.1
10.0.0.1 10.1 167772161 172.16.0.1 172.31.255.255 192.168.0.1 192.168.257 100.64.0.1 198.18.0.1
192.0.2.1 192.0.0.8 192.88.99.1 224.0.0.1 240.0.0.1 255.255.255.255
localhost LOCALHOST localhost. localhost.localdomain
[::1] [::] [0:0:0:0:0:0:0:1] [0000::0001] [::ffff:127.0.0.1] [::ffff:7f00:1] [::ffff:10.0.0.1]
[::127.0.0.1] [::ffff:0:127.0.0.1] [::1%251] [::1%1] [::ffff:127.0.0.1%251]
[fc00::1] [fd12:3456::1] [fec0::1] [ff02::1] [2001:db8::1] [3fff::1]
[2002:7f00:1::] [2002:0a00:1::1] [64:ff9b::7f00:1] [64:ff9b::10.0.0.1] [64:ff9b:1::127.0.0.1]
[2001:0:4136:e378:8000:63bf:80ff:fffe]
internal.example.com 127.0.0.1.nip.io localtest.me six.example.com six-local.example.com mapped.example.com
mixed.example.com mixed6.example.com
""")

_METADATA = _words("""
169.254.169.254 169.254.43518 2852039166 0xa9fea9fe 0xa9.0xfe.0xa9.0xfe 0251.0376.0251.0376 169.254.170.2
[::ffff:169.254.169.254] [::ffff:a9fe:a9fe] [::169.254.169.254] [::ffff:0:a9fe:a9fe] [64:ff9b::a9fe:a9fe]
[64:ff9b:1::a9fe:a9fe] [2002:a9fe:a9fe::1] [fd00:ec2::254] [fd20:ce::254] [fe80::1] [fe80::1%251] [fe80::1%1]
100.100.100.200 168.63.129.16 192.0.0.192
metadata.google.internal metadata instance-data scoped.example.com
""")

# Spellings that one parser may read otherwise than the next.
_TRICKS = (
    "①②⑦.⓪.⓪.①",
    "127。0。0。1",
    "\uff11\uff12\uff17.0.0.1",  # full-width
    "\uff4c\uff4f\uff43\uff41\uff4c\uff48\uff4f\uff53\uff54",
    "⑯⑨。②⑤④。⑯⑨。②⑤④",
    "example.com@127.0.0.1",
    "example.com:80@127.0.0.1",
    "127.0.0.1:80@example.com",
    "example.com%40127.0.0.1",
    "example.com\\@127.0.0.1",
    "127.0.0.1\\@example.com",
    "127.0.0.1#@example.com",
    "example.com#@127.0.0.1",
    "127.0.0.1%23@example.com",
    "127.0.0.1?@example.com",
    "127.0.0.1;example.com",
    "127.0.0.1%2f@example.com",
    "127.0.0.1%00.example.com",
    "127.0.0.1%0d%0aHost: example.com",
    " 127.0.0.1",
    "\t127.0.0.1",
    "127.0.0.1 ",
    "[127.0.0.1]",
    "[::1",
    "%31%32%37.0.0.1",
    "127.0.0.1..",
    "127.0.0.1.",
)


@dataclass(frozen=True)
class Address:
    """What stands between `http://` and the port. `is_metadata`: refused even where private networks are
    allowed."""

    authority: str
    is_metadata: bool = False

    def url(self, port: int) -> str:
        """The address as a URL, with the port where its host ends."""
        return f"http://{self.authority}:{port}/v1"


CORPUS = [
    *(Address(authority) for authority in _PRIVATE),
    *(Address(authority, is_metadata=True) for authority in _METADATA),
    *(Address(authority) for authority in _TRICKS),
]


@dataclass
class Spy:
    """What Python code of this process connected to, or tried to, since the spy came, but for `known`.

    Attempts at addresses that do not belong to this machine end at once, as refused: no test leaves it.
    """

    known: set[tuple[str, int]] = field(default_factory=set)
    seen: list[tuple[str, int]] = field(default_factory=list)
    lookups: list[str] = field(default_factory=list)


_watching: list[Spy] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "socket.connect" or not _watching or not isinstance(arguments[1], tuple):
        return
    peer = (str(arguments[1][0]), int(arguments[1][1]))
    for spy in _watching:
        if peer not in spy.known:
            spy.seen.append(peer)
            if not ipaddress.ip_address(peer[0].partition("%")[0]).is_loopback:
                raise ConnectionRefusedError(f"the spy keeps {peer} from being connected to")


sys.addaudithook(_hook)  # for good: Python has no way to take one out


@contextmanager
def watched(monkeypatch: pytest.MonkeyPatch, *known: tuple[str, int]) -> Iterator[Spy]:
    """A spy on connections and lookups. `known` peers, such as the engines, are not reported.

    Names of NAMES resolve as they say there; other names, unless they spell an address, to nothing.
    """
    spy = Spy(set(known))
    answers = {name: list(found) for name, found in NAMES.items()}
    system = socket.getaddrinfo

    def resolved(host: Any, port: Any, *rest: Any, **options: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else str(host)
        spy.lookups.append(name)
        known = answers.get(name.lower().rstrip("."))
        if known is not None:
            found = known.pop(0) if len(known) > 1 else known[0]
            return [
                (socket.AF_INET6 if ":" in one else socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port))
                for one in found
            ]
        options["flags"] = options.get("flags", 0) | socket.AI_NUMERICHOST  # asks no name server
        return system(host, port, *rest[:3], **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    _watching.append(spy)
    try:
        yield spy
    finally:
        _watching.remove(spy)


@contextmanager
def trap() -> Iterator[tuple[int, list[str]]]:
    """A port of all of this machine's addresses, IPv4 and IPv6, and who came: nobody should."""
    listener = socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    listener.settimeout(0)
    came: list[str] = []
    try:
        yield listener.getsockname()[1], came
    finally:
        while True:
            try:
                connection, peer = listener.accept()
            except (BlockingIOError, TimeoutError):
                break
            connection.close()
            came.append(str(peer))
        listener.close()
