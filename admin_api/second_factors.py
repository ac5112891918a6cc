"""Second factors: time-based codes (TOTP, RFC 6238) and recovery codes, each good for one use.

SHA-1, six digits and 30 seconds are what every authenticator app understands; the attacks on SHA-1 do not
concern HMAC. A code of the step before or after is taken, for clocks differ. The last step that was accepted
is kept, so that a code that was seen or intercepted is worth nothing, also when it arrives twice at once.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.totp import TOTP
from psycopg.rows import DictRow

from store.ids import new_id
from store.vault import Sealed, Vault

ISSUER = "Orrery"
STEP_SECONDS = 30

_DIGITS = 6
_SECRET_BYTES = 20  # RFC 4226, 4: as long as SHA-1's output
_CODES, _CODE_BYTES = 10, 10  # 80 bits: nobody guesses one, so its plain SHA-256 is kept
_STEPS = (0, -1, 1)

Database = psycopg.Connection[DictRow]


@dataclass(frozen=True, slots=True, repr=False)
class Enrolment:
    """A new factor, to be shown once. `secret` is base32, `uri` what authenticators scan."""

    secret: str
    uri: str
    recovery_codes: Sequence[str]

    def __repr__(self) -> str:
        return "<Enrolment>"


def enrol(db: Database, vault: Vault, admin_id: UUID, email: str) -> Enrolment:
    """Store a factor that is not in force yet; one that was waiting for confirmation goes."""
    factor_id, secret = new_id(), secrets.token_bytes(_SECRET_BYTES)
    text = base64.b32encode(secret).decode()
    codes = [_new_code() for _ in range(_CODES)]
    sealed = vault.seal(text, **_place(factor_id))
    db.execute("SELECT FROM admins WHERE id = %s FOR NO KEY UPDATE", [admin_id])
    db.execute(
        "DELETE FROM admin_second_factors WHERE admin_id = %s AND confirmed_at IS NULL",
        [admin_id],
    )
    db.execute(
        "INSERT INTO admin_second_factors (id, admin_id, sealed_secret) VALUES (%s, %s, %s)",
        [factor_id, admin_id, sealed.blob],
    )
    db.execute(
        "INSERT INTO admin_recovery_codes (factor_id, code_hash) SELECT %s, unnest(%s::bytea[])",
        [factor_id, [_code_hash(code) for code in codes]],
    )
    return Enrolment(text, _totp(text).get_provisioning_uri(email, ISSUER), codes)


def confirm(db: Database, vault: Vault, admin_id: UUID, code: str) -> bool:
    """Put the waiting factor in force, instead of the one before. False where the code is not its."""
    db.execute("SELECT FROM admins WHERE id = %s FOR NO KEY UPDATE", [admin_id])
    row = _find(db, admin_id, is_confirmed=False)
    step = None if row is None else _step(_opened(vault, row), code, _now(db))
    if row is None or step is None:
        return False
    db.execute(
        "DELETE FROM admin_second_factors WHERE admin_id = %s AND confirmed_at IS NOT NULL",
        [admin_id],
    )
    db.execute(
        "UPDATE admin_second_factors SET confirmed_at = now(), last_step = %s WHERE id = %s",
        [step, row["id"]],
    )
    return True


@dataclass(frozen=True, slots=True)
class Standing:
    """A factor in force: since when, and how many recovery codes are not used yet."""

    since: datetime
    codes_left: int


def standing(db: Database, admin_id: UUID) -> Standing | None:
    """The person's factor that is in force; None where there is none."""
    row = db.execute(
        "SELECT confirmed_at AS since, (SELECT count(*) FROM admin_recovery_codes "
        "WHERE factor_id = factors.id AND used_at IS NULL) AS codes_left "
        "FROM admin_second_factors factors WHERE admin_id = %s AND confirmed_at IS NOT NULL",
        [admin_id],
    ).fetchone()
    return None if row is None else Standing(**row)


def is_waiting(db: Database, admin_id: UUID) -> bool:
    """Whether a factor waits for its confirmation."""
    return _find(db, admin_id, is_confirmed=False) is not None


def accept(db: Database, vault: Vault, admin_id: UUID, code: str) -> str | None:
    """Use a code up: `otp` or `recovery_code`, whichever it was; None where it is wrong or used up."""
    row = _find(db, admin_id, is_confirmed=True)
    if row is None:
        return None
    if not _is_otp(code):
        used = db.execute(
            "UPDATE admin_recovery_codes SET used_at = now() "
            "WHERE factor_id = %s AND code_hash = %s AND used_at IS NULL",
            [row["id"], _code_hash(code)],
        )
        return "recovery_code" if used.rowcount else None
    step = _step(_opened(vault, row), code, _now(db), after=row["last_step"])
    if step is None:
        return None
    used = db.execute(
        "UPDATE admin_second_factors SET last_step = %(step)s "
        "WHERE id = %(id)s AND (last_step IS NULL OR last_step < %(step)s)",
        {"id": row["id"], "step": step},
    )
    return "otp" if used.rowcount else None


def _find(db: Database, admin_id: UUID, *, is_confirmed: bool) -> DictRow | None:
    return db.execute(
        "SELECT id, sealed_secret, last_step FROM admin_second_factors "
        "WHERE admin_id = %s AND (confirmed_at IS NOT NULL) = %s",
        [admin_id, is_confirmed],
    ).fetchone()


def _now(db: Database) -> float:
    """The database's clock, which all processes have in common."""
    row = db.execute("SELECT extract(epoch FROM clock_timestamp())::float8 AS now").fetchone()
    assert row is not None, "a SELECT without FROM has one row"  # noqa: S101
    return float(row["now"])


def _opened(vault: Vault, row: DictRow) -> str:
    return vault.open(Sealed(row["sealed_secret"]), **_place(row["id"]))


def _place(factor_id: UUID) -> dict[str, Any]:
    return {"table": "admin_second_factors", "row": str(factor_id), "field": "secret", "version": 1}


def _totp(secret: str) -> TOTP:
    return TOTP(base64.b32decode(secret), _DIGITS, SHA1(), STEP_SECONDS)  # noqa: S303 - see above


def _tidied(code: str) -> str:
    return re.sub(r"[\s-]", "", code).upper()


def _is_otp(code: str) -> bool:
    tidy = _tidied(code)
    return len(tidy) == _DIGITS and tidy.isascii() and tidy.isdigit()


def _step(secret: str, code: str, now: float, *, after: int | None = None) -> int | None:
    """The step whose code this is, if it is later than `after`. All are compared, whichever matches."""
    totp, sent, current = _totp(secret), _tidied(code).encode(), int(now // STEP_SECONDS)
    found = [
        current + offset
        for offset in _STEPS
        if hmac.compare_digest(totp.generate((current + offset) * STEP_SECONDS), sent)
        and (after is None or current + offset > after)
    ]
    return found[0] if found else None


def _new_code() -> str:
    text = base64.b32encode(secrets.token_bytes(_CODE_BYTES)).decode()
    return "-".join(text[start : start + 4] for start in range(0, len(text), 4))


def _code_hash(code: str) -> bytes:
    return hashlib.sha256(_tidied(code).encode()).digest()
