"""Sessions of browsers: the same logins as those of programs, held by a cookie instead of by tokens.

The cookie is 32 random bytes, of which the database keeps the SHA-256. Every request looks at the session, so
what is revoked is refused at once; using it prolongs it, at most once an hour, within the same bounds as
refreshing does. Who has a second factor logs in by two forms: what the first one proved is sealed into a
cookie of five minutes, which is worth nothing once a code was used or the password was changed.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
from dataclasses import dataclass
from uuid import UUID

from psycopg.rows import DictRow
from starlette.datastructures import Headers

from admin_api import logins
from admin_api.logins import Client, Database
from admin_api.refusals import Unauthenticated
from admin_api.security import PERSON, Principal, is_local, person
from admin_api.services import Services
from admin_api.tokens import LONGEST, token_hash
from store.vault import Sealed, VaultError

STEP_SECONDS = 300
"""How long the second form may be thought about."""

_PLACE = {"table": "logins", "row": "first step", "field": "proof"}


@dataclass(frozen=True, slots=True, repr=False)
class Visitor:
    """Somebody at a browser. `csrf` is what each of their forms carries."""

    principal: Principal
    email: str
    csrf: str

    def __repr__(self) -> str:
        return "<Visitor>"


_FIND = f"""
SELECT admins.id AS admin_id, email, admin_sessions.id AS session_id, {PERSON},
       last_used_at < now() - interval '1 hour' AS is_due
FROM admin_sessions JOIN admins ON admins.id = admin_id
WHERE cookie_hash = %s"""  # noqa: S608 - every part is a constant


def resume(using: Services, cookie: str, headers: Headers, *, prolongs: bool) -> Visitor:
    """Who holds the cookie. Raises Unauthenticated.

    `prolongs`: this is a sign of life; a page that asks by itself for news is none.
    """
    if not cookie or len(cookie) > LONGEST:
        raise Unauthenticated("This is no session. Log in.")
    with using.pool.connection() as db:
        row = db.execute(_FIND, [token_hash(cookie)]).fetchone()
        if row is None or not row["is_active"] or not row["session_lives"]:
            raise Unauthenticated("The session has ended. Log in again.")
        if prolongs and row["is_due"]:
            logins.prolong(db, row["session_id"])
    principal = person(
        row,
        row["admin_id"],
        row["session_id"],
        mfa=row["session_mfa"],
        is_local=is_local(using, headers),
    )
    return Visitor(principal, row["email"], csrf_token(cookie))


def csrf_token(cookie: str) -> str:
    """What only the holder of the cookie and the pages made for them know."""
    return hmac.new(cookie.encode(), b"csrf", hashlib.sha256).hexdigest()


def begin(using: Services, client: Client, recognised: DictRow, code: str | None) -> str:
    """Begin a session; its cookie. Raises as `logins.begun` does."""
    cookie = secrets.token_urlsafe(32)

    def hold(db: Database, session_id: UUID) -> str:
        db.execute(
            "UPDATE admin_sessions SET cookie_hash = %s WHERE id = %s", [token_hash(cookie), session_id]
        )
        return cookie

    return logins.begun(using, client, recognised, code, hold)


def first_step(using: Services, recognised: DictRow) -> str:
    """That the person gave the right password just now, sealed."""
    proof = {
        "email": recognised["email"],
        "proof": _proof(recognised),
        "until": time.time() + STEP_SECONDS,
    }
    sealed = using.vault.seal(json.dumps(proof), **_PLACE, version=1)
    return base64.urlsafe_b64encode(sealed.blob).decode()


def second_step(using: Services, client: Client, sealed: str) -> DictRow:
    """Whom the first step recognised. Raises Unauthenticated where it was too long ago, or is void."""
    void = Unauthenticated("This took too long. Log in again.", presented=False)
    try:
        opened = using.vault.open(Sealed(base64.urlsafe_b64decode(sealed)), **_PLACE, version=1)
    except (VaultError, ValueError):
        raise void from None
    proof = json.loads(opened)
    with using.pool.connection() as db:
        found = logins.find(db, client, proof["email"])
    if found is None or proof["until"] < time.time() or _proof(found) != proof["proof"]:
        raise void
    return found


def _proof(found: DictRow) -> str:
    """Changes with the password, and whenever a code is used up."""
    parts = [str(found[name]) for name in ("id", "password_hash", "factor", "is_active")]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
