"""People and application tokens, made at the machine itself as the database's owner."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import psycopg
from psycopg.rows import dict_row
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from admin_api import logins
from admin_api.credentials import checked_email, checked_password, hash_password, tidied_email
from admin_api.security import Scope
from admin_api.token_names import checked_name
from admin_api.token_routes import DEFAULT_SCOPES, made
from admin_api.tokens import OPERATOR_MINUTES, mint_admin_jwt
from standalone.errors import CommandError
from store import audit
from store.audit import Event
from store.database import conninfo
from store.orm import engine
from store.settings import Settings
from store.tables import Admin, AppToken
from store.vault import Keyring

_ACTOR = "cli"


class PeopleError(CommandError):
    """What was asked cannot be done; the message names the argument and the fix."""


@dataclass(frozen=True, slots=True)
class TokenLine:
    """One token as `orrery token list` prints it."""

    id: UUID
    name: str
    owner: str | None
    scopes: Sequence[str]
    last4: str
    state: str


def create_admin(settings: Settings, *, email: str, role: str, password: str) -> UUID:
    """Add a person. Raises PeopleError for an address that is taken or malformed, or a short password."""
    try:
        address = checked_email(email)
    except ValueError:
        raise PeopleError(f"--email {email!r} is not an e-mail address.") from None
    if role not in ("super_admin", "admin"):
        raise PeopleError(f"--role must be super_admin or admin, not {role!r}.")
    try:
        checked_password(password)
    except ValueError as error:
        raise PeopleError(str(error)) from None
    admin = Admin(email=address, role=role, password_hash=hash_password(password))
    try:
        with _owner(settings) as session:
            session.add(admin)
            session.flush()
            return admin.id
    except IntegrityError:
        raise PeopleError(f"--email {address!r} belongs to an admin already.") from None


def ensure_first_admin(settings: Settings, *, email: str) -> str | None:
    """Create a super admin where there is nobody yet; returns the password, which is shown once."""
    with _owner(settings) as session:
        if session.scalar(select(func.count()).select_from(Admin)):
            return None
    password = secrets.token_urlsafe(15)
    try:
        create_admin(settings, email=email, role="super_admin", password=password)
    except PeopleError:  # another first start was faster, and has told its user
        return None
    return password


def oldest_super_admin(settings: Settings) -> str:
    """The e-mail address of the oldest active super admin. Raises PeopleError where there is none."""
    with _owner(settings) as session:
        wanted = select(Admin.email).where(Admin.role == "super_admin", Admin.is_active)
        email = session.scalar(wanted.order_by(Admin.id).limit(1))
    if email is None:
        raise PeopleError("There is no active super admin; `orrery admin create` adds one.")
    return email


def admin_jwt(settings: Settings, *, email: str, mfa: bool) -> str:
    """An admin's access token for scripts, valid for 60 minutes, without a session.

    Raises PeopleError for an unknown admin.
    """
    with _owner(settings) as session:
        admin = _active_admin(session, email)
        minted = mint_admin_jwt(Keyring.load(settings), admin, mfa=mfa, minutes=OPERATOR_MINUTES)
        after = {"mfa": mfa, "minutes": OPERATOR_MINUTES}
        audit.record(session, Event("token_minted", "admins", admin.id, actor=_ACTOR, after=after))
        return minted


def reset_second_factor(settings: Settings, *, email: str) -> None:
    """Remove an admin's second factor, say of a phone that is lost, and end their sessions.

    Raises PeopleError for an unknown admin.
    """
    with psycopg.connect(conninfo(settings.database()), row_factory=dict_row) as db:
        row = db.execute("SELECT id FROM admins WHERE email = %s", [tidied_email(email)]).fetchone()
        if row is None:
            raise PeopleError(f"There is no admin {email!r}; `orrery admin create` adds one.")
        logins.reset_second_factor(db, row["id"], actor=_ACTOR)


def create_token(settings: Settings, *, name: str, owner: str | None, scopes: Sequence[str]) -> str:
    """Add an application token; the clear token is returned once and never kept.

    Raises PeopleError for a name that is none, an unknown scope, or an owner who is no active admin.
    """
    try:
        name = checked_name(name)
    except ValueError as error:
        raise PeopleError(f"--name: {error}") from None
    unknown = set(scopes) - set(Scope)
    if unknown:
        raise PeopleError(f"--scope must be one of {', '.join(Scope)}, not {', '.join(sorted(unknown))}.")
    wanted = [Scope(scope) for scope in scopes] or list(DEFAULT_SCOPES)
    with _owner(settings) as session:
        clear, row = made(name, _active_admin(session, owner).id if owner else None, wanted)
        session.add(row)
    return clear


def list_tokens(settings: Settings) -> list[TokenLine]:
    """All tokens, oldest first."""
    now = datetime.now(UTC)
    with _owner(settings) as session:
        rows = session.execute(
            select(AppToken, Admin.email)
            .outerjoin(Admin, Admin.id == AppToken.owner_admin_id)
            .order_by(AppToken.id)
        )
        return [
            TokenLine(token.id, token.name, owner, token.scopes, token.token_last4, _state(token, now))
            for token, owner in rows
        ]


def revoke_token(settings: Settings, token_id: UUID) -> None:
    """Revoke a token; it is refused from now on. Raises PeopleError where there is none."""
    with _owner(settings) as session:
        token = session.get(AppToken, token_id)
        if token is None:
            raise PeopleError(f"There is no token {token_id}; `orrery token list` shows them.")
        token.revoked_at = token.revoked_at or datetime.now(UTC)


def _state(token: AppToken, now: datetime) -> str:
    if token.revoked_at is not None:
        return "revoked"
    return "expired" if token.expires_at is not None and token.expires_at <= now else "active"


def _active_admin(session: Session, email: str) -> Admin:
    admin = session.scalar(select(Admin).where(Admin.email == tidied_email(email)))
    if admin is None or not admin.is_active:
        raise PeopleError(f"There is no active admin {email!r}; `orrery admin create` adds one.")
    return admin


@contextmanager
def _owner(settings: Settings) -> Iterator[Session]:
    """A session of the database's owner, committed at the end."""
    owner = engine(settings.database())
    try:
        with Session(owner, expire_on_commit=False) as session, session.begin():
            audit.acting(session, _ACTOR)
            yield session
    finally:
        owner.dispose()
