"""People and applications that may speak to the API."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, func
from sqlalchemy.orm import Mapped, mapped_column

from store.ids import new_id
from store.tables.base import Base, Row


class Admin(Row, Base):
    """A person. `password_hash` is an Argon2id PHC string; e-mail addresses are kept in lower case."""

    __tablename__ = "admins"
    __table_args__ = (
        CheckConstraint("role in ('super_admin', 'admin')", name="role_known"),
        CheckConstraint("email = lower(email)", name="email_lower"),
    )

    email: Mapped[str] = mapped_column(unique=True)
    password_hash: Mapped[str]
    role: Mapped[str]
    is_active: Mapped[bool] = mapped_column(server_default="true")


class AppToken(Base):
    """An application's token: only its SHA-256 is kept. Without owner it is the application itself."""

    __tablename__ = "app_tokens"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    name: Mapped[str]
    owner_admin_id: Mapped[UUID | None] = mapped_column(ForeignKey("admins.id"))
    scopes: Mapped[list[str]]
    token_hash: Mapped[bytes] = mapped_column(unique=True)
    token_last4: Mapped[str]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    created_by: Mapped[UUID | None]
