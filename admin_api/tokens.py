"""Credentials: admin JWTs and application tokens.

An admin JWT is HS256 and nothing else; `kid` names the master key its signing key is derived from, so that a
rotation invalidates no session at once and a retired key signs nothing any more. An application token is 32
random bytes; the database keeps only their SHA-256, which is enough for a secret nobody can guess.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import jwt

from store.tables import Admin
from store.vault import Keyring, VaultError

LONGEST = 4096  # characters; whatever is longer is refused unread
APP_PREFIX = "orr_"

_ALGORITHM = "HS256"
_ISSUER = "orrery"
_AUDIENCE = "orrery-admin"
_PURPOSE = "admin-jwt"
_CLAIMS = ["iss", "aud", "sub", "role", "email", "mfa", "iat", "exp", "jti"]
_LEEWAY_SECONDS = 5  # clocks of two hosts may differ that much


class InvalidToken(Exception):
    """The token was not made here, was altered, or has expired."""


@dataclass(frozen=True, slots=True)
class AdminClaims:
    """What a valid admin JWT says. The role is the one of its making: read the row for today's."""

    admin_id: UUID
    mfa: bool
    jti: str
    expires_at: datetime


def mint_admin_jwt(keyring: Keyring, admin: Admin, *, mfa: bool, minutes: float = 60) -> str:
    """A signed token for `admin`, valid for `minutes`. `mfa`: a second factor was given."""
    now = datetime.now(UTC)
    claims = {
        "iss": _ISSUER,
        "aud": _AUDIENCE,
        "sub": str(admin.id),
        "role": admin.role,
        "email": admin.email,
        "mfa": mfa,
        "iat": now,
        "exp": now + timedelta(minutes=minutes),
        "jti": str(uuid4()),
    }
    kid = keyring.current
    return jwt.encode(claims, keyring.derive(_PURPOSE, kid), algorithm=_ALGORITHM, headers={"kid": kid})


def verify_admin_jwt(keyring: Keyring, token: str) -> AdminClaims:
    """What the token says. Raises InvalidToken where it is not to be believed."""
    if len(token) > LONGEST:
        raise InvalidToken(f"The token is longer than {LONGEST} characters.")
    try:
        kid = jwt.get_unverified_header(token).get("kid")
        if not isinstance(kid, str):
            raise InvalidToken("The token names no key.")
        claims = jwt.decode(
            token,
            keyring.derive(_PURPOSE, kid),
            algorithms=[_ALGORITHM],
            audience=_AUDIENCE,
            issuer=_ISSUER,
            leeway=_LEEWAY_SECONDS,
            options={"require": _CLAIMS},
        )
        return AdminClaims(
            admin_id=UUID(claims["sub"]),
            mfa=claims["mfa"] is True,
            jti=str(claims["jti"]),
            expires_at=datetime.fromtimestamp(claims["exp"], UTC),
        )
    except jwt.ExpiredSignatureError:
        raise InvalidToken("The token has expired. Log in again.") from None
    except (jwt.PyJWTError, VaultError, ValueError, TypeError):
        raise InvalidToken("The token is not valid.") from None


def new_app_token() -> tuple[str, bytes, str]:
    """A new application token: the clear text to show once, its SHA-256 to keep, its last four characters."""
    clear = APP_PREFIX + secrets.token_urlsafe(32)
    return clear, app_token_hash(clear), clear[-4:]


def app_token_hash(clear: str) -> bytes:
    """What the database knows a token by."""
    return hashlib.sha256(clear.encode()).digest()
