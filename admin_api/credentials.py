"""E-mail addresses and passwords: what they look like, and how a password is kept."""

from __future__ import annotations

import re
import secrets
import threading

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

SHORTEST_PASSWORD, LONGEST_PASSWORD = 12, 1024  # characters
LONGEST_EMAIL = 254

_EMAIL = re.compile(r"[\x21-\x3f\x41-\x7e]+@[\x21-\x3f\x41-\x7e]+")

# Each takes 19 MiB and some 20 ms of a core: a flood of logins must not take all threads' worth of either.
_AT_ONCE = threading.BoundedSemaphore(4)


def tidied_email(email: str) -> str:
    """The address as it is kept and looked for."""
    return email.strip().lower()


def checked_email(email: str) -> str:
    """The address as it is kept. Raises ValueError where it is none."""
    tidy = tidied_email(email)
    if len(tidy) > LONGEST_EMAIL or not _EMAIL.fullmatch(tidy):
        raise ValueError(f"This must be an e-mail address of up to {LONGEST_EMAIL} ASCII characters.")
    return tidy


def checked_password(password: str) -> str:
    """A password that may be set. Raises ValueError, which never quotes it."""
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        raise ValueError(f"The password must have {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters.")
    return password


def hash_password(password: str) -> str:
    """An Argon2id PHC string; 19 MiB, 2 passes, 1 lane, as OWASP recommends for interactive logins."""
    kdf = Argon2id(salt=secrets.token_bytes(16), length=32, iterations=2, lanes=1, memory_cost=19 * 1024)
    with _AT_ONCE:
        return kdf.derive_phc_encoded(password.encode())


def is_password(password: str, kept: str | None) -> bool:
    """Whether `kept` is the hash of `password`. Takes as long where there is none."""
    with _AT_ONCE:
        try:
            Argon2id.verify_phc_encoded(password.encode(), _NOBODYS_HASH if kept is None else kept)
        except (InvalidKey, ValueError):  # ValueError: no PHC string
            return False
    return kept is not None


# What is verified where there is nobody of that name, so that both cases take the same time.
_NOBODYS_HASH = hash_password(secrets.token_urlsafe(16))
