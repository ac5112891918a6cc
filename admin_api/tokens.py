"""Credentials: admin JWTs, refresh tokens and application tokens.

An admin JWT is HS256 and nothing else; `kid` names the master key its signing key is derived from, so that a
rotation invalidates no session at once and a retired key signs nothing any more. The other two are 32 random
bytes; the database keeps only their SHA-256, which is enough for a secret nobody can guess.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import jwt

from store.tables import Admin
from store.vault import Keyring, VaultError

LONGEST = 4096  # characters; whatever is longer is refused unread
APP_PREFIX = "orr_"
REFRESH_PREFIX = "orrr_"
SESSION_MINUTES = 15
OPERATOR_MINUTES = 60
"""How long access tokens last: of a session, and those that an operator mints at the machine."""

_ALGORITHM = "HS256"
_ISSUER = "orrery"
_AUDIENCE = "orrery-admin"
_PURPOSE = "admin-jwt"
_CLAIMS = ["iss", "aud", "sub", "role", "email", "mfa", "iat", "nbf", "exp", "jti"]
_HEADER = {"alg", "kid", "typ"}
_LEEWAY_SECONDS = 5  # clocks of two hosts may differ that much


class InvalidToken(Exception):
    """The token was not made here, was altered, or has expired."""


@dataclass(frozen=True, slots=True)
class AdminClaims:
    """What a valid admin JWT says. The role is the one of its making: read the row for today's.

    `session_id`: the login it belongs to; None for a token that an operator minted at the machine.
    """

    admin_id: UUID
    mfa: bool
    session_id: UUID | None


def mint_admin_jwt(
    keyring: Keyring,
    admin: Admin,
    *,
    mfa: bool,
    minutes: float = OPERATOR_MINUTES,
    session_id: UUID | None = None,
) -> str:
    """A signed token for `admin`, valid for `minutes`. `mfa`: a second factor was given."""
    now = datetime.now(UTC)
    claims: dict[str, Any] = {
        "iss": _ISSUER,
        "aud": _AUDIENCE,
        "sub": str(admin.id),
        "role": admin.role,
        "email": admin.email,
        "mfa": mfa,
        "iat": now,
        "nbf": now,
        "exp": now + timedelta(minutes=minutes),
        "jti": str(uuid4()),
    }
    if session_id is not None:
        claims["sid"] = str(session_id)
    kid = keyring.current
    return jwt.encode(claims, keyring.derive(_PURPOSE, kid), algorithm=_ALGORITHM, headers={"kid": kid})


def verify_admin_jwt(keyring: Keyring, token: str) -> AdminClaims:
    """What the token says. Raises InvalidToken where it is not to be believed."""
    if len(token) > LONGEST:
        raise InvalidToken(f"The token is longer than {LONGEST} characters.")
    try:
        claims = jwt.decode(
            token,
            keyring.derive(_PURPOSE, _kid(token)),
            algorithms=[_ALGORITHM],
            audience=_AUDIENCE,
            issuer=_ISSUER,
            leeway=_LEEWAY_SECONDS,
            options={"require": _CLAIMS},
        )
        _check_span(claims)
        return AdminClaims(
            admin_id=UUID(claims["sub"]),
            mfa=claims["mfa"] is True,
            session_id=UUID(claims["sid"]) if "sid" in claims else None,
        )
    except jwt.ExpiredSignatureError:
        raise InvalidToken("The token has expired. Log in again.") from None
    except (jwt.PyJWTError, VaultError, ValueError, TypeError, AttributeError, OverflowError):
        raise InvalidToken("The token is not valid.") from None


def _check_span(claims: Mapping[str, Any]) -> None:
    """Raise ValueError where the token lasts longer than any that is made here."""
    if claims["exp"] - claims["iat"] > OPERATOR_MINUTES * 60:
        raise ValueError("No token is made to last that long.")


def _kid(token: str) -> str:
    """The key's id. Raises ValueError for a token of another form than ours, before any of it is believed."""
    head, body, _ = token.split(".")
    header = _object(head)
    _object(body)
    if header.keys() != _HEADER or header["alg"] != _ALGORITHM or header["typ"] != "JWT":
        raise ValueError("The header is not one of ours.")
    kid = header["kid"]
    if not isinstance(kid, str) or not kid:
        raise ValueError("The token names no key.")
    return kid


def _object(part: str) -> dict[str, Any]:
    """The JSON object in a part of a token. Raises ValueError."""
    raw = base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
    try:
        found = json.loads(raw, object_pairs_hook=_members)
    except RecursionError:
        raise ValueError("It is nested too deeply.") from None
    if not isinstance(found, dict):
        raise TypeError("It is no object.")
    return found


def _members(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Readers differ in which one counts of members that stand twice, so none does."""
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("A member stands twice.")
    return members


def new_refresh_token() -> tuple[str, bytes]:
    """A new refresh token: the clear text to show once, and its SHA-256 to keep."""
    clear = REFRESH_PREFIX + secrets.token_urlsafe(32)
    return clear, token_hash(clear)


def new_app_token() -> tuple[str, bytes, str]:
    """A new application token: the clear text to show once, its SHA-256 to keep, its last four characters."""
    clear = APP_PREFIX + secrets.token_urlsafe(32)
    return clear, token_hash(clear), clear[-4:]


def token_hash(clear: str) -> bytes:
    """What the database knows a token by."""
    return hashlib.sha256(clear.encode()).digest()
