from __future__ import annotations

import ipaddress

import pytest

from routing.address import refusal

_METADATA = [
    *("169.254.169.254", "169.254.1.1", "fe80::1", "fd00:ec2::254", "fd20:ce::254", "100.100.100.200"),
    *("168.63.129.16", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1"),
    *("64:ff9b:1::a9fe:a9fe", "::169.254.169.254", "::ffff:0:169.254.169.254"),
]
_PRIVATE = [
    *("10.0.0.1", "172.16.0.1", "192.168.1.1", "127.0.0.1", "::1", "fd12::1", "100.64.0.1", "0.0.0.0", "::"),
    *("224.0.0.1", "239.1.1.1", "ff02::fb", "240.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1"),
    *("2001:db8::1", "::ffff:10.0.0.1", "::ffff:8.8.8.8", "2002:7f00:1::1", "2002:808:808::1"),
    *("::127.0.0.1", "::10.0.0.1", "::2", "::ffff:0:127.0.0.1", "fec0::1", "5f00::1", "3fff::1", "4000::1"),
    *("192.0.0.8", "192.88.99.1", "2001:20::1", "100::1"),
    *("64:ff9b::7f00:1", "64:ff9b:1::808:808", "2001:0:4136:e378:8000:63bf:3fff:fdd2"),
]
_PUBLIC = ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "64:ff9b::808:808"]


@pytest.mark.parametrize("address", _METADATA)
def test_metadata_is_refused_whatever_the_provider_may(address: str) -> None:
    for allowed in (True, False):
        reason = refusal(ipaddress.ip_address(address), allow_private=allowed)
        assert reason is not None
        assert "metadata" in reason


@pytest.mark.parametrize("address", _PRIVATE)
def test_what_is_not_public_needs_leave(address: str) -> None:
    parsed = ipaddress.ip_address(address)
    assert "allow_private_network" in (refusal(parsed, allow_private=False) or "")
    assert refusal(parsed, allow_private=True) is None


@pytest.mark.parametrize("address", _PUBLIC)
def test_public_addresses_are_free(address: str) -> None:
    assert refusal(ipaddress.ip_address(address), allow_private=False) is None
