"""People and application tokens, made at the machine itself as the database's owner."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from admin_api.security import Scope
from admin_api.tokens import mint_admin_jwt, new_app_token
from store.orm import engine
from store.settings import Settings
from store.tables import Admin, AppToken
from store.vault import Keyring

logger = logging.getLogger(__name__)


class PeopleError(Exception):
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


def hash_password(password: str) -> str:
    """An Argon2id PHC string; 19 MiB, 2 passes, 1 lane, as OWASP recommends for interactive logins."""
    kdf = Argon2id(salt=secrets.token_bytes(16), length=32, iterations=2, lanes=1, memory_cost=19 * 1024)
    return kdf.derive_phc_encoded(password.encode())


def create_admin(settings: Settings, *, email: str, role: str, password: str) -> UUID:
    """Add a person. Raises PeopleError for an address that is taken or malformed, or a short password."""
    address = email.strip().lower()
    if "@" not in address.strip("@") or any(c.isspace() for c in address):
        raise PeopleError(f"--email {email!r} is not an e-mail address.")
    if role not in ("super_admin", "admin"):
        raise PeopleError(f"--role must be super_admin or admin, not {role!r}.")
    if len(password) < 12:
        raise PeopleError("The password must have at least 12 characters.")
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
    """An admin's access token for scripts, valid for 60 minutes. Raises PeopleError for an unknown admin."""
    with _owner(settings) as session:
        admin = _active_admin(session, email)
        logger.info("An admin token was minted for %s at this machine.", admin.email)
        return mint_admin_jwt(Keyring.load(settings), admin, mfa=mfa)


def create_token(settings: Settings, *, name: str, owner: str | None, scopes: Sequence[str]) -> str:
    """Add an application token; the clear token is returned once and never kept."""
    clear, digest, last4 = new_app_token()
    unknown = set(scopes) - set(Scope)
    if unknown:
        raise PeopleError(f"--scope must be one of {', '.join(Scope)}, not {', '.join(sorted(unknown))}.")
    with _owner(settings) as session:
        session.add(
            AppToken(
                name=name,
                owner_admin_id=_active_admin(session, owner).id if owner else None,
                scopes=list(scopes or (Scope.ENQUEUE, Scope.READ)),
                token_hash=digest,
                token_last4=last4,
            )
        )
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
    admin = session.scalar(select(Admin).where(Admin.email == email.strip().lower()))
    if admin is None or not admin.is_active:
        raise PeopleError(f"There is no active admin {email!r}; `orrery admin create` adds one.")
    return admin


@contextmanager
def _owner(settings: Settings) -> Iterator[Session]:
    """A session of the database's owner, committed at the end."""
    owner = engine(settings.database())
    try:
        with Session(owner, expire_on_commit=False) as session, session.begin():
            yield session
    finally:
        owner.dispose()
