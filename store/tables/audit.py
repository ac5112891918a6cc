"""The audit log, as far as it is read: only the database's own functions write it."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Index
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from store.tables.base import Base


class AuditEntry(Base):
    """One act. `id` counts without gaps, `at` rises with it, `hash` is of everything else in the row."""

    __tablename__ = "audit_log"
    __table_args__ = (
        Index("ix_audit_log_actor_id", "actor", "id"),
        Index("ix_audit_log_action_id", "action", "id"),
        Index("ix_audit_log_noun_id", "noun", "id"),
        Index("ix_audit_log_noun_id_id", "noun_id", "id"),
    )

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    at: Mapped[datetime] = mapped_column(index=True)
    actor: Mapped[str]
    admin_id: Mapped[UUID | None] = mapped_column(index=True)
    action: Mapped[str]
    noun: Mapped[str]
    noun_id: Mapped[str | None]
    before: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    after: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    request_id: Mapped[str | None]
    previous_hash: Mapped[bytes] = mapped_column(deferred=True, deferred_raiseload=True)
    hash: Mapped[bytes]
