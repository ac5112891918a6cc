"""Sealing: what opens, what does not, and what is never printed."""

from __future__ import annotations

import base64
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.vault import Keyring, Sealed, Vault, VaultError

K1, K2 = ("k1:" + base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2))
K2 = K2.replace("k1", "k2")
PLACE: dict[str, Any] = {"table": "ai_providers", "row": "r1", "field": "api_key", "version": 1}
SECRET = "sk-canary-in-the-vault"


@given(secret=st.text())
def test_what_is_sealed_opens_in_its_place(secret: str) -> None:
    try:
        secret.encode()
    except UnicodeEncodeError:
        return
    vault = Vault(Keyring(K1))
    assert vault.open(vault.seal(secret, **PLACE), **PLACE) == secret


@pytest.mark.parametrize(
    "other", [{"table": "integrations"}, {"row": "r2"}, {"field": "credentials"}, {"version": 2}]
)
def test_a_ciphertext_opens_nowhere_else(other: dict[str, object]) -> None:
    vault = Vault(Keyring(K1))
    sealed = vault.seal(SECRET, **PLACE)
    with pytest.raises(VaultError, match="does not open"):
        vault.open(sealed, **{**PLACE, **other})


def test_every_flipped_byte_is_noticed() -> None:
    vault = Vault(Keyring(K1))
    blob = vault.seal(SECRET, **PLACE).blob
    for position in range(len(blob)):
        damaged = blob[:position] + bytes([blob[position] ^ 1]) + blob[position + 1 :]
        with pytest.raises(VaultError):
            vault.open(Sealed(damaged), **PLACE)
    for length in range(len(blob)):
        with pytest.raises(VaultError):
            vault.open(Sealed(blob[:length]), **PLACE)


def test_two_seals_of_one_secret_share_nothing() -> None:
    vault = Vault(Keyring(K1))
    assert vault.seal(SECRET, **PLACE).blob != vault.seal(SECRET, **PLACE).blob


def test_secrets_and_keys_are_not_printed() -> None:
    keyring = Keyring(K1)
    sealed = Vault(keyring).seal(SECRET, **PLACE)
    assert repr(sealed) == str(sealed) == f"{sealed}" == "<sealed>"
    assert repr(keyring) == "<Keyring k1>"
    with pytest.raises(VaultError) as refused:
        Vault(Keyring(K2)).open(sealed, **PLACE)
    assert SECRET not in str(refused.value)
    assert "k1" in str(refused.value)


def test_the_first_key_seals_and_the_others_still_open() -> None:
    old = Vault(Keyring(K1)).seal(SECRET, **PLACE)
    both = Vault(Keyring(f"{K2},{K1}"))
    assert both.open(old, **PLACE) == SECRET
    assert b"k2" in both.seal(SECRET, **PLACE).blob[:5]


def test_a_new_key_in_the_file_is_found_without_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "master.keys"
    file.write_text(K1)
    vault = Vault(Keyring(file.read_text(), path=file))
    sealed = Vault(Keyring(K2)).seal(SECRET, **PLACE)
    with pytest.raises(VaultError, match="'k2' is not in the keyring"):
        vault.open(sealed, **PLACE)
    file.write_text(f"{K2}\n{K1}\n")
    assert vault.open(sealed, **PLACE) == SECRET


def test_a_keyring_is_made_private_and_never_replaced(tmp_path: Path) -> None:
    file = tmp_path / "home" / "master.keys"
    first = Keyring.create(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert Keyring.create(file).current == first.current
    assert [path.name for path in file.parent.iterdir()] == ["master.keys"]


@pytest.mark.parametrize("text", ["", "k1", "k1:AAAA", ":" + K1[3:], "k1:not base64!"])
def test_a_malformed_keyring_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(VaultError, match="ORRERY_MASTER_KEYS") as refused:
        Keyring(text)
    assert "AAAA" not in str(refused.value)


def test_keys_for_other_purposes_differ() -> None:
    keyring = Keyring(f"{K1},{K2}")
    assert len({keyring.derive("a"), keyring.derive("b"), keyring.derive("a", "k2")}) == 3
    assert keyring.derive("a") == keyring.derive("a", "k1")
