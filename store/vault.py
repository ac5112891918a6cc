"""Seals provider keys: AES-256-GCM envelopes under a keyring of master keys.

Each secret has a data key of its own; the data key is wrapped by a master key whose id stands in the
envelope. Both layers are bound to table, row, field and secret version as associated data, so a ciphertext
pasted into another row, or an older one of the same row, does not open. (Fernet, the usual choice, is
AES-128-CBC and has no associated data: it would open a swapped row.)

Envelope: `0x01 | len(kid) | kid | wrap nonce (12) | wrapped data key (48) | nonce (12) | ciphertext + tag`.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import secrets
import threading
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from store.settings import Settings

_FORMAT = 1
_NONCE = 12
_KEY = 32
_WRAPPED = _KEY + 16


class VaultError(Exception):
    """A secret cannot be sealed or opened; the message says which and what to mend, never its content."""


@dataclass(frozen=True, slots=True, repr=False)
class Sealed:
    """An encrypted secret. Prints as `<sealed>`; `blob` is what the database keeps."""

    blob: bytes

    def __repr__(self) -> str:
        return "<sealed>"


class Keyring:
    """Master keys by id, the first of which seals.

    Text form: `kid:base64,...` (commas or line ends), 32 bytes each. A keyring that came from a file is
    read again when an id is unknown, so that a rotation on another process needs no restart here.
    """

    def __init__(self, text: str, *, path: Path | None = None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._keys = _parse(text, path)

    def __repr__(self) -> str:
        return f"<Keyring {', '.join(self._keys)}>"

    @classmethod
    def load(cls, settings: Settings) -> Keyring:
        """From `ORRERY_MASTER_KEYS`, else from the keyring file. Raises VaultError where there is neither."""
        if settings.master_keys is not None:
            return cls(settings.master_keys.get_secret_value())
        path = settings.keyring_file
        return cls(_read(path), path=path)

    @classmethod
    def create(cls, path: Path) -> Keyring:
        """Write a new keyring with one random key, mode 0600, unless the file exists already."""
        path.parent.mkdir(parents=True, exist_ok=True)
        line = f"k{secrets.token_hex(4)}:{base64.b64encode(secrets.token_bytes(_KEY)).decode()}\n"
        draft = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):
                os.link(draft, path)  # atomic, and never over an existing keyring
        finally:
            draft.unlink()
        return cls(_read(path), path=path)

    @property
    def current(self) -> str:
        """Id of the key that seals."""
        return next(iter(self._keys))

    def key(self, kid: str) -> bytes:
        """The key with this id. Raises VaultError when it is unknown even after reading the file again."""
        found = self._keys.get(kid) or self._reread().get(kid)
        if found is None:
            raise VaultError(
                f"Master key {kid!r} is not in the keyring. Put the key back into "
                f"{self._path or 'ORRERY_MASTER_KEYS'}, or store the secret anew."
            )
        return found

    def derive(self, purpose: str, kid: str | None = None) -> bytes:
        """A 32-byte key for `purpose` (say, signing tokens), derived by HKDF from a master key."""
        master = self.key(kid or self.current)
        return HKDF(SHA256(), _KEY, salt=None, info=f"orrery/{purpose}".encode()).derive(master)

    def _reread(self) -> dict[str, bytes]:
        if self._path is not None:
            with self._lock:
                self._keys = _parse(_read(self._path), self._path)
        return self._keys


class Vault:
    """Seals and opens secrets that are bound to one field of one row."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    def seal(self, secret: str, *, table: str, row: str, field: str, version: int) -> Sealed:
        """Encrypt `secret` for this field of this row; `version` counts the secrets it has held."""
        kid = self._keyring.current
        bound = _binding(table, row, field, version)
        data_key = AESGCM.generate_key(_KEY * 8)
        wrap_nonce, nonce = os.urandom(_NONCE), os.urandom(_NONCE)
        wrapped = AESGCM(self._keyring.key(kid)).encrypt(wrap_nonce, data_key, bound + b"|wrap")
        body = AESGCM(data_key).encrypt(nonce, secret.encode(), bound)
        name = kid.encode()
        return Sealed(bytes([_FORMAT, len(name)]) + name + wrap_nonce + wrapped + nonce + body)

    def open(self, sealed: Sealed, *, table: str, row: str, field: str, version: int) -> str:
        """Decrypt. Raises VaultError for an unknown master key, another row's secret, or damage."""
        kid, wrap_nonce, wrapped, nonce, body = _split(sealed.blob, f"{table}.{field} of {row}")
        bound = _binding(table, row, field, version)
        try:
            data_key = AESGCM(self._keyring.key(kid)).decrypt(wrap_nonce, wrapped, bound + b"|wrap")
            return AESGCM(data_key).decrypt(nonce, body, bound).decode()
        except InvalidTag:
            raise VaultError(
                f"The secret in {table}.{field} of {row} does not open: it was moved, altered, or sealed "
                f"under other keys. Store it anew."
            ) from None


def _binding(table: str, row: str, field: str, version: int) -> bytes:
    return f"orrery/1|{table}|{row}|{field}|{version}".encode()


def _split(blob: bytes, what: str) -> tuple[str, bytes, bytes, bytes, bytes]:
    head = 2 + (blob[1] if len(blob) > 1 else 0)
    if len(blob) < head + _NONCE + _WRAPPED + _NONCE + 16 or blob[0] != _FORMAT:
        raise VaultError(f"The secret in {what} is no envelope of format {_FORMAT}. Store it anew.")
    kid = blob[2:head].decode(errors="replace")
    wrap_end = head + _NONCE
    key_end = wrap_end + _WRAPPED
    return (
        kid,
        blob[head:wrap_end],
        blob[wrap_end:key_end],
        blob[key_end : key_end + _NONCE],
        blob[key_end + _NONCE :],
    )


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise VaultError(
            f"The keyring {path} cannot be read ({error.strerror}). Run `orrery migrate` to create one for a "
            f"new installation, or mount the one this database was sealed with."
        ) from None


def _parse(text: str, path: Path | None) -> dict[str, bytes]:
    where = path or "ORRERY_MASTER_KEYS"
    keys: dict[str, bytes] = {}
    for entry in (part.strip() for part in text.replace("\n", ",").split(",")):
        if not entry:
            continue
        kid, _, encoded = entry.partition(":")
        try:
            key = base64.b64decode(encoded, validate=True)
        except binascii.Error:
            key = b""
        if not kid or len(kid.encode()) > 64 or len(key) != _KEY:
            raise VaultError(
                f"{where} must hold `kid:base64` entries of 32-byte keys; entry {len(keys) + 1} does not."
            )
        keys[kid] = key
    if not keys:
        raise VaultError(f"{where} holds no master key; it needs at least one `kid:base64` entry.")
    return keys
