"""People and applications that may speak to the API, and their logins.

Second factors, refresh tokens and throttles are not mapped beyond their columns: every statement that touches
them is SQL in `admin_api/second_factors.py`, `admin_api/logins.py` and `admin_api/throttles.py`.
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Double, ForeignKey, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from store.ids import new_id
from store.tables.base import Base, Row


class Admin(Row, Base):
    """A person. E-mail addresses are kept in lower case.

    `password_hash` is an Argon2id PHC string, deferred and hidden by column grant from all but the login.
    """

    __tablename__ = "admins"
    __table_args__ = (
        CheckConstraint("role in ('super_admin', 'admin')", name="role_known"),
        CheckConstraint("email = lower(email)", name="email_lower"),
    )

    email: Mapped[str] = mapped_column(unique=True)
    password_hash: Mapped[str] = mapped_column(deferred=True, deferred_raiseload=True)
    role: Mapped[str]
    is_active: Mapped[bool] = mapped_column(server_default="true")


class AdminSession(Base):
    """A login. `mfa`: with a second factor. Its access tokens end with it.

    `cookie_hash` is the SHA-256 of the cookie that holds a browser's session; None for a program's.
    """

    __tablename__ = "admin_sessions"
    __table_args__ = (Index("ix_admin_sessions_admin_id_id", "admin_id", "id"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    admin_id: Mapped[UUID] = mapped_column(ForeignKey("admins.id", ondelete="CASCADE"))
    mfa: Mapped[bool] = mapped_column(server_default="false")
    address: Mapped[str | None]
    user_agent: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    last_used_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]
    revoked_because: Mapped[str | None]
    cookie_hash: Mapped[bytes | None] = mapped_column(unique=True, deferred=True, deferred_raiseload=True)

    admin: Mapped[Admin] = relationship(lazy="raise")


class AdminRefreshToken(Base):
    """A refresh token of a session: only its SHA-256 is kept. It is good for one use."""

    __tablename__ = "admin_refresh_tokens"

    token_hash: Mapped[bytes] = mapped_column(primary_key=True)
    session_id: Mapped[UUID] = mapped_column(ForeignKey("admin_sessions.id", ondelete="CASCADE"), index=True)
    issued_at: Mapped[datetime] = mapped_column(server_default=func.now())
    used_at: Mapped[datetime | None]


class AdminSecondFactor(Base):
    """A TOTP secret (RFC 6238), sealed. In force once confirmed; of each kind a person has one at most."""

    __tablename__ = "admin_second_factors"
    __table_args__ = (
        Index(
            "uq_admin_second_factors_confirmed",
            "admin_id",
            unique=True,
            postgresql_where=text("confirmed_at IS NOT NULL"),
        ),
        Index(
            "uq_admin_second_factors_pending",
            "admin_id",
            unique=True,
            postgresql_where=text("confirmed_at IS NULL"),
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    admin_id: Mapped[UUID] = mapped_column(ForeignKey("admins.id", ondelete="CASCADE"))
    sealed_secret: Mapped[bytes] = mapped_column(deferred=True, deferred_raiseload=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    confirmed_at: Mapped[datetime | None]
    last_step: Mapped[int | None] = mapped_column(BigInteger)


class AdminRecoveryCode(Base):
    """A code that replaces a second factor once: only its SHA-256 is kept."""

    __tablename__ = "admin_recovery_codes"

    factor_id: Mapped[UUID] = mapped_column(
        ForeignKey("admin_second_factors.id", ondelete="CASCADE"), primary_key=True
    )
    code_hash: Mapped[bytes] = mapped_column(primary_key=True)
    used_at: Mapped[datetime | None]


class AdminNetwork(Base):
    """Where a person has logged in from."""

    __tablename__ = "admin_networks"

    admin_id: Mapped[UUID] = mapped_column(ForeignKey("admins.id", ondelete="CASCADE"), primary_key=True)
    network: Mapped[str] = mapped_column(primary_key=True)
    last_login_at: Mapped[datetime] = mapped_column(server_default=func.now())


class LoginThrottle(Base):
    """Failed logins of an account, from a network, or both; `key` is a hash of which."""

    __tablename__ = "login_throttles"

    key: Mapped[bytes] = mapped_column(primary_key=True)
    failures: Mapped[float] = mapped_column(Double, server_default="0")
    failed_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)
    blocked_until: Mapped[datetime] = mapped_column(server_default=func.now())


class AppToken(Base):
    """An application's token: only its SHA-256 is kept. Without owner it is the application itself."""

    __tablename__ = "app_tokens"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    name: Mapped[str]
    owner_admin_id: Mapped[UUID | None] = mapped_column(ForeignKey("admins.id"))
    scopes: Mapped[list[str]]
    token_hash: Mapped[bytes] = mapped_column(unique=True, deferred=True, deferred_raiseload=True)
    token_last4: Mapped[str]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    created_by: Mapped[UUID | None]

    use: Mapped[AppTokenUse | None] = relationship(lazy="raise", viewonly=True)
    owner: Mapped[Admin | None] = relationship(lazy="raise", viewonly=True)


class AppTokenUse(Base):
    """When a token was last used, to the minute."""

    __tablename__ = "app_token_uses"

    token_id: Mapped[UUID] = mapped_column(ForeignKey("app_tokens.id", ondelete="CASCADE"), primary_key=True)
    last_used_at: Mapped[datetime] = mapped_column(server_default=func.now())
