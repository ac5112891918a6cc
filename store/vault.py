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
import logging
import os
import secrets
import stat
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from store.settings import Settings

logger = logging.getLogger(__name__)

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

    @property
    def kid(self) -> str | None:
        """Id of the master key that wraps it; None for what is no envelope."""
        try:
            return _split(self.blob, "")[0]
        except VaultError:
            return None


class Keyring:
    """Master keys by id, the first of which seals.

    Text form: `kid:base64,...` (commas or line ends), 32 bytes each. A keyring that came from a file is read
    again when the file was replaced, so that a rotation on another process needs no restart here. A key that
    is no longer in the file is kept in memory for `RETIRED_SECONDS`: jobs under way hold what was sealed with
    it, people hold access tokens signed with it.
    """

    RETIRED_SECONDS = 3900.0
    """An access token's 60 minutes, and some."""

    def __init__(
        self, text: str, *, path: Path | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._path = path
        self._clock = clock
        self._lock = threading.Lock()
        self._keys = _parse(text, path)
        self._retired: dict[str, tuple[bytes, float]] = {}
        self._seen: tuple[int, ...] | None = None  # `text` may be older than the file

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
        draft = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        try:
            _write_new(draft, dict([new_key()]))
            with contextlib.suppress(FileExistsError):
                os.link(draft, path)  # atomic, and never over an existing keyring
        finally:
            draft.unlink(missing_ok=True)
        return cls(_read(path), path=path)

    @property
    def current(self) -> str:
        """Id of the key that seals."""
        self._follow()
        return next(iter(self._keys))

    @property
    def kids(self) -> Sequence[str]:
        """Ids of the keys, the one that seals first."""
        self._follow()
        return tuple(self._keys)

    @property
    def path(self) -> Path | None:
        """The file it is read from; None where it is not from a file."""
        return self._path

    def key(self, kid: str) -> bytes:
        """The key with this id. Raises VaultError when it is unknown even after reading the file again."""
        self._follow()
        found = self._keys.get(kid) or self._late(kid) or self._reread().get(kid)
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

    def extend(self) -> str:
        """Put a new key before the others in the file, from where every process seals with it; its id.

        Raises OSError where the file cannot be replaced. Only one process may change a keyring at a time.
        """
        kid, key = new_key()
        self._replace({kid: key, **self._reread()})
        return kid

    def retire(self, kids: Collection[str]) -> None:
        """Take keys out of the file. Raises OSError as `extend` does."""
        self._replace({kid: key for kid, key in self._reread().items() if kid not in kids})

    def _replace(self, keys: Mapping[str, bytes]) -> None:
        assert self._path is not None, "a keyring from the environment is changed where it is set"  # noqa: S101
        _overwrite(self._path.resolve(), keys)
        self._reread()

    def _late(self, kid: str) -> bytes | None:
        key, retired_at = self._retired.get(kid, (None, 0.0))
        return key if self._clock() - retired_at < self.RETIRED_SECONDS else None

    def _follow(self) -> None:
        """Read the file if it is not the one last read. One that cannot be read now changes nothing."""
        if self._path is None or _stamp(self._path) == self._seen:
            return
        try:
            self._reread()
        except VaultError as error:
            logger.warning("The keyring stays as it was. %s", error)

    def _reread(self) -> dict[str, bytes]:
        if self._path is not None:
            with self._lock:
                self._seen = _stamp(self._path)  # before reading: a change meanwhile is seen the next time
                keys = _parse(_read(self._path), self._path)
                now = self._clock()
                gone = {kid: (key, now) for kid, key in self._keys.items() if kid not in keys}
                self._retired = {
                    kid: (key, at)
                    for kid, (key, at) in {**self._retired, **gone}.items()
                    if now - at < self.RETIRED_SECONDS
                }
                self._keys = keys
        return self._keys


def new_key() -> tuple[str, bytes]:
    """A random master key and its id."""
    return f"k{secrets.token_hex(4)}", secrets.token_bytes(_KEY)


def as_entry(kid: str, key: bytes) -> str:
    """A key in the keyring's text form."""
    return f"{kid}:{base64.b64encode(key).decode()}"


class Vault:
    """Seals and opens secrets that are bound to one field of one row."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    def seal(self, secret: str, *, table: str, row: str, field: str, version: int) -> Sealed:
        """Encrypt `secret` for this field of this row; `version` counts the secrets it has held."""
        bound = _binding(table, row, field, version)
        data_key = AESGCM.generate_key(_KEY * 8)
        nonce = os.urandom(_NONCE)
        body = AESGCM(data_key).encrypt(nonce, secret.encode(), bound)
        return self._wrapped(data_key, bound, nonce + body)

    def open(self, sealed: Sealed, *, table: str, row: str, field: str, version: int) -> str:
        """Decrypt. Raises VaultError for an unknown master key, another row's secret, or damage."""
        what = f"{table}.{field} of {row}"
        kid, wrap_nonce, wrapped, nonce, body = _split(sealed.blob, what)
        bound = _binding(table, row, field, version)
        try:
            data_key = AESGCM(self._keyring.key(kid)).decrypt(wrap_nonce, wrapped, bound + b"|wrap")
            return AESGCM(data_key).decrypt(nonce, body, bound).decode()
        except InvalidTag:
            raise _closed(what) from None

    def rewrap(self, sealed: Sealed, *, table: str, row: str, field: str, version: int) -> Sealed:
        """The same secret under the master key that seals now. Decrypts its data key, never the secret.

        Raises VaultError as `open` does.
        """
        what = f"{table}.{field} of {row}"
        kid, wrap_nonce, wrapped, nonce, body = _split(sealed.blob, what)
        bound = _binding(table, row, field, version)
        try:
            data_key = AESGCM(self._keyring.key(kid)).decrypt(wrap_nonce, wrapped, bound + b"|wrap")
        except InvalidTag:
            raise _closed(what) from None
        return self._wrapped(data_key, bound, nonce + body)

    def _wrapped(self, data_key: bytes, bound: bytes, encrypted: bytes) -> Sealed:
        kid = self._keyring.current
        wrap_nonce = os.urandom(_NONCE)
        wrapped = AESGCM(self._keyring.key(kid)).encrypt(wrap_nonce, data_key, bound + b"|wrap")
        return Sealed(envelope_head(kid) + wrap_nonce + wrapped + encrypted)


def envelope_head(kid: str) -> bytes:
    """What the envelopes begin with that this master key wraps, and no others."""
    name = kid.encode()
    return bytes([_FORMAT, len(name)]) + name


def _closed(what: str) -> VaultError:
    return VaultError(
        f"The secret in {what} does not open: it was moved, altered, or sealed under other keys. "
        f"Store it anew."
    )


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


def _stamp(path: Path) -> tuple[int, ...] | None:
    """Tells one file of that name from the next."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _overwrite(path: Path, keys: Mapping[str, bytes]) -> None:
    """Replace the file by one with these keys, of the same owner: all of it or nothing, whatever happens."""
    before = path.stat()
    draft = path.with_name(f"{path.name}.next")
    draft.unlink(missing_ok=True)  # of a rotation that was killed
    _write_new(draft, keys, before)
    os.replace(draft, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _write_new(path: Path, keys: Mapping[str, bytes], like: os.stat_result | None = None) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        if like is not None:
            if (like.st_uid, like.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(file.fileno(), like.st_uid, like.st_gid)
            os.fchmod(file.fileno(), 0o600 | stat.S_IMODE(like.st_mode) & 0o040)
        file.writelines(as_entry(kid, key) + "\n" for kid, key in keys.items())
        file.flush()
        os.fsync(file.fileno())


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
