"""Sessions of people: how they begin, go on and end.

A browser's session is held by a cookie (`browser.py`), a program's by one refresh token at a time. Each
refresh uses it up and makes the next; one that comes a second time was stolen, or its thief was faster, so
the session ends, whichever of the two it is. There is no grace period for a client whose answer was lost:
within it a thief would be that client. It logs in again.

Access tokens name their session, and every request looks at it: what is revoked here is refused at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

import psycopg
from psycopg.rows import DictRow

from admin_api import second_factors, throttles
from admin_api.credentials import checked_email, hash_password, is_password, tidied_email
from admin_api.refusals import (
    CodeRequired,
    CodeWrong,
    Conflict,
    Forbidden,
    Invalid,
    Unauthenticated,
    WrongCredentials,
)
from admin_api.security import Principal, SecondFactor
from admin_api.services import Services
from admin_api.tokens import SESSION_MINUTES, mint_admin_jwt, new_refresh_token, token_hash
from store import audit
from store.audit import Event
from store.ids import new_id
from store.tables import Admin

IDLE_DAYS, LONGEST_DAYS = 7, 30
"""How long a session lives without being refreshed, and at most."""

_KNOWN_DAYS = 90  # how long a network is remembered
_KEPT_DAYS = 90  # how long ended sessions are

Database = psycopg.Connection[DictRow]
Held = TypeVar("Held")


@dataclass(frozen=True, slots=True)
class Client:
    """Where a request comes from."""

    address: str | None
    user_agent: str | None

    @property
    def network(self) -> str:
        """What is throttled."""
        return throttles.network_of(self.address)


@dataclass(frozen=True, slots=True, repr=False)
class Issued:
    """A session's tokens, to be shown once."""

    access_token: str
    refresh_token: str

    def __repr__(self) -> str:
        return "<Issued>"


# `factor` changes whenever a code is used up.
_FIND = """
SELECT id, email, role, is_active, password_hash, factor IS NOT NULL AS has_factor, factor,
       EXISTS (
           SELECT FROM admin_networks WHERE admin_id = admins.id AND network = %(network)s
             AND last_login_at > now() - make_interval(days => %(days)s)
       ) AS is_known
FROM admins LEFT JOIN LATERAL (
    SELECT concat_ws(' ', id, last_step, (
        SELECT count(*) FROM admin_recovery_codes WHERE factor_id = factors.id AND used_at IS NULL
    )) AS factor
    FROM admin_second_factors factors WHERE admin_id = admins.id AND confirmed_at IS NOT NULL
) confirmed ON true
WHERE email = %(email)s"""


def log_in(using: Services, client: Client, *, email: str, password: str, code: str | None) -> Issued:
    """Begin a program's session. Raises WrongCredentials, CodeRequired, CodeWrong or TooOften."""
    person = recognised(using, client, email=email, password=password)

    def issued(db: Database, session_id: UUID) -> Issued:
        return _issue(db, using, session_id, person, mfa=person["has_factor"])

    return begun(using, client, person, code, issued)


def find(db: Database, client: Client, email: str) -> DictRow | None:
    """What logging in wants to know of the person with this address, tidied."""
    return db.execute(_FIND, {"email": email, "network": client.network, "days": _KNOWN_DAYS}).fetchone()


def recognised(using: Services, client: Client, *, email: str, password: str) -> DictRow:
    """The person whose password this is, as `find` knows them. Raises WrongCredentials or TooOften.

    It takes as long, and says the same, whether there is no such person or the password is wrong.
    """
    address = tidied_email(email)
    with using.pool.connection() as db:
        found = find(db, client, address)
    is_known = found is not None and found["is_known"]
    counted = throttles.for_password(address, client.network, is_known=is_known)
    throttles.count(using.pool, counted)
    is_right = is_password(password, None if found is None else found["password_hash"])
    if found is None or not is_right or not found["is_active"]:
        _note_failure(using, client, address, found, "password" if found and not is_right else "account")
        raise WrongCredentials
    throttles.forgive(using.pool, counted)
    return found


def begun(
    using: Services,
    client: Client,
    person: DictRow,
    code: str | None,
    hold: Callable[[Database, UUID], Held],
) -> Held:
    """Begin the session of somebody recognised; answers what `hold`, in its transaction, makes to hold it by.

    Raises CodeRequired, CodeWrong or TooOften; WrongCredentials where the person was changed meanwhile.
    """
    how = "password"
    if person["has_factor"]:
        if code is None:
            raise CodeRequired
        how = _checked_code(using, client, person, code)
    with using.pool.connection() as db, db.transaction():
        session_id = _begin(db, client, person, how)
        held = hold(db, session_id)
    failed_before = throttles.for_password(person["email"], client.network, is_known=True)[:1]
    throttles.forgive(using.pool, failed_before, forget=[throttles.PAIR])
    return held


def _checked_code(using: Services, client: Client, admin: DictRow, code: str) -> str:
    counted = throttles.for_code(admin["id"], client.network, is_known=admin["is_known"])
    throttles.count(using.pool, counted)
    with using.pool.connection() as db, db.transaction():
        how = second_factors.accept(db, using.vault, admin["id"], code)
    if how is None:
        _note_failure(using, client, admin["email"], admin, "otp")
        raise CodeWrong
    throttles.forgive(using.pool, counted, forget=[throttles.CODE])
    return how


def _note_failure(using: Services, client: Client, email: str, admin: DictRow | None, reason: str) -> None:
    """People type passwords where the address belongs: only what looks like one is kept."""
    try:
        shown = checked_email(email)
    except ValueError:
        shown = "(no e-mail address)"
    after = {"email": shown, "address": client.address, "wrong": reason}
    who = None if admin is None else admin["id"]
    with using.pool.connection() as db:
        audit.record(db, Event("login_failed", "admins", who, actor="nobody", after=after))


def _begin(db: Database, client: Client, found: DictRow, how: str) -> UUID:
    """The session's rows. Raises WrongCredentials where the person was changed while they were checked."""
    db.execute("SELECT FROM admins WHERE id = %s FOR NO KEY UPDATE", [found["id"]])
    now = find(db, client, found["email"])
    decisive = ("id", "password_hash", "is_active", "has_factor")
    if now is None or any(now[name] != found[name] for name in decisive):
        raise WrongCredentials
    session_id = new_id()
    db.execute(
        "DELETE FROM admin_sessions WHERE admin_id = %s "
        "AND least(revoked_at, expires_at) < now() - make_interval(days => %s)",
        [found["id"], _KEPT_DAYS],
    )
    db.execute(
        "INSERT INTO admin_sessions (id, admin_id, mfa, address, user_agent, expires_at) "
        "VALUES (%s, %s, %s, %s, %s, now() + make_interval(days => %s))",
        [session_id, found["id"], found["has_factor"], client.address, client.user_agent, IDLE_DAYS],
    )
    db.execute(
        "INSERT INTO admin_networks (admin_id, network) VALUES (%s, %s) "
        "ON CONFLICT (admin_id, network) DO UPDATE SET last_login_at = now()",
        [found["id"], client.network],
    )
    after = {"with": how, "mfa": found["has_factor"], "address": client.address}
    audit.record(db, Event("login", "sessions", session_id, admin_id=found["id"], after=after))
    return session_id


def _issue(
    db: Database, using: Services, session_id: UUID, person: Mapping[str, Any], *, mfa: bool
) -> Issued:
    refresh, digest = new_refresh_token()
    db.execute(
        "INSERT INTO admin_refresh_tokens (token_hash, session_id) VALUES (%s, %s)", [digest, session_id]
    )
    admin = Admin(id=person["id"], email=person["email"], role=person["role"])
    access = mint_admin_jwt(using.keyring, admin, mfa=mfa, minutes=SESSION_MINUTES, session_id=session_id)
    return Issued(access, refresh)


_LOCK = """
SELECT admins.id, email, role, mfa, is_active AND revoked_at IS NULL AND expires_at > now() AS lives
FROM admin_sessions JOIN admins ON admins.id = admin_id
WHERE admin_sessions.id = %s FOR NO KEY UPDATE OF admin_sessions"""


def refresh(using: Services, refresh_token: str) -> Issued:
    """Go on with a session. Raises Unauthenticated; a token that was used before ends its session."""
    digest = token_hash(refresh_token)
    with using.pool.connection() as db, db.transaction():
        issued = _rotated(db, using, digest)
    if issued is None:
        raise Unauthenticated(
            "The refresh token is unknown, was used before, or its session has ended. Log in again.",
            presented=False,
        )
    return issued


def _rotated(db: Database, using: Services, digest: bytes) -> Issued | None:
    known = db.execute(
        "SELECT session_id FROM admin_refresh_tokens WHERE token_hash = %s", [digest]
    ).fetchone()
    session = None if known is None else db.execute(_LOCK, [known["session_id"]]).fetchone()
    if known is None or session is None or not session["lives"]:
        return None
    session_id = known["session_id"]
    used = db.execute(
        "UPDATE admin_refresh_tokens SET used_at = now() WHERE token_hash = %s AND used_at IS NULL", [digest]
    )
    if not used.rowcount:
        end(db, session["id"], "refresh_reuse", only=session_id)
        audit.record(db, Event("refresh_reuse", "sessions", session_id, admin_id=session["id"]))
        return None
    db.execute(
        "DELETE FROM admin_refresh_tokens WHERE session_id = %s AND used_at < now() - interval '7 days'",
        [session_id],
    )
    prolong(db, session_id)
    return _issue(db, using, session_id, session, mfa=session["mfa"])


def prolong(db: Database, session_id: UUID) -> None:
    """Note that a session is used: its idle days begin anew, within its longest."""
    db.execute(
        "UPDATE admin_sessions SET last_used_at = now(), expires_at = least("
        "now() + make_interval(days => %s), created_at + make_interval(days => %s)) WHERE id = %s",
        [IDLE_DAYS, LONGEST_DAYS, session_id],
    )


def end(
    db: Database, admin_id: UUID, because: str, *, only: UUID | None = None, but: UUID | None = None
) -> int:
    """End a person's sessions, `only` one, or all `but` one; how many there were."""
    return db.execute(
        "UPDATE admin_sessions SET revoked_at = now(), revoked_because = %(because)s "
        "WHERE admin_id = %(admin_id)s AND revoked_at IS NULL "
        "AND (%(only)s::uuid IS NULL OR id = %(only)s) AND (%(but)s::uuid IS NULL OR id <> %(but)s)",
        {"admin_id": admin_id, "because": because, "only": only, "but": but},
    ).rowcount


def log_out(using: Services, caller: Principal) -> None:
    """End the caller's session. Raises Conflict for an operator's token, which has none."""
    if caller.session_id is None:
        raise Conflict("This token belongs to no session: it was minted at the machine, and expires soon.")
    admin_id = _person(caller)
    with using.pool.connection() as db, db.transaction():
        end(db, admin_id, "logout", only=caller.session_id)
        audit.record(db, Event("logout", "sessions", caller.session_id, admin_id=admin_id))


def enrol(using: Services, caller: Principal) -> second_factors.Enrolment:
    """Make a second factor that waits for its confirmation.

    Raises Forbidden where the caller has one in force and did not give it: no stolen token replaces it.
    """
    if caller.second_factor is SecondFactor.ENROLLED and not caller.mfa:
        raise Forbidden("You have a second factor. Log in with it to replace it.")
    admin_id = _person(caller)
    with using.pool.connection() as db, db.transaction():
        row = db.execute("SELECT email FROM admins WHERE id = %s", [admin_id]).fetchone()
        assert row is not None, "the guard has seen the person"  # noqa: S101
        return second_factors.enrol(db, using.vault, admin_id, row["email"])


def confirm(using: Services, client: Client, caller: Principal, code: str) -> None:
    """Put the waiting second factor in force. The caller's other sessions end; this one has it from now on.

    Raises Conflict where none waits; Invalid for a wrong code; Forbidden as `enrol` does; TooOften.
    """
    if caller.second_factor is SecondFactor.ENROLLED and not caller.mfa:
        raise Forbidden("You have a second factor. Log in with it to replace it.")
    admin_id = _person(caller)
    with using.pool.connection() as db:
        if not second_factors.is_waiting(db, admin_id):
            raise Conflict(
                "No second factor waits to be confirmed. Begin again.",
                hint="POST /auth/mfa/enroll makes one.",
            )
    counted = throttles.for_code(f"confirm {admin_id}", client.network, is_known=False)
    throttles.count(using.pool, counted)
    with using.pool.connection() as db, db.transaction():
        if not second_factors.confirm(db, using.vault, admin_id, code):
            raise Invalid(
                "The code is not that of the new second factor. Wait for the next one.", field="otp"
            )
        db.execute("UPDATE admin_sessions SET mfa = true WHERE id = %s", [caller.session_id])
        end(db, admin_id, "mfa_enrolled", but=caller.session_id)
        audit.record(db, Event("mfa_enrolled", "admins", admin_id, admin_id=admin_id))
    throttles.forgive(using.pool, counted, forget=[throttles.CODE])


def change_password(using: Services, client: Client, caller: Principal, current: str, new: str) -> None:
    """Replace the caller's password. Other sessions end. Raises Invalid for a wrong one; TooOften."""
    admin_id = _person(caller)
    with using.pool.connection() as db:
        row = db.execute("SELECT email, password_hash FROM admins WHERE id = %s", [admin_id]).fetchone()
    assert row is not None, "the guard has seen the person"  # noqa: S101
    counted = throttles.for_password(row["email"], client.network, is_known=True)
    throttles.count(using.pool, counted)
    if not is_password(current, row["password_hash"]):
        raise Invalid("This is not your password.", field="current")
    throttles.forgive(using.pool, counted, forget=[throttles.PAIR])
    kept = hash_password(new)
    with using.pool.connection() as db, db.transaction():
        audit.acting(db, admin_id=admin_id)
        changed = db.execute(
            "UPDATE admins SET password_hash = %s, updated_at = now(), updated_by = id "
            "WHERE id = %s AND password_hash = %s",
            [kept, admin_id, row["password_hash"]],
        )
        if not changed.rowcount:
            raise Conflict("Your password was changed meanwhile.")
        end(db, admin_id, "password_changed", but=caller.session_id)
        audit.record(db, Event("password_changed", "admins", admin_id, admin_id=admin_id))


def reset_second_factor(db: Database, admin_id: UUID, *, actor: str) -> None:
    """Remove a person's second factors and end their sessions, as an operator at the machine may."""
    db.execute("DELETE FROM admin_second_factors WHERE admin_id = %s", [admin_id])
    ended = end(db, admin_id, "mfa_reset")
    audit.record(db, Event("mfa_reset", "admins", admin_id, actor=actor, after={"sessions_ended": ended}))


def _person(caller: Principal) -> UUID:
    assert caller.admin_id is not None, "the rule lets in people only"  # noqa: S101
    return caller.admin_id
