"""Lanes: the queues of the platform, as far as people change them."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, func
from sqlalchemy.orm import Mapped, mapped_column

from store.tables.base import Base


class Lane(Base):
    """A lane. While it is paused no job of it is claimed; what runs goes on.

    Doorbells rung before `resumed_at` count as lost: whoever answered them found the lane paused.
    """

    __tablename__ = "lanes"
    __table_args__ = (CheckConstraint("name in ('interactive', 'standard', 'batch')", name="name"),)

    name: Mapped[str] = mapped_column(primary_key=True)
    is_paused: Mapped[bool] = mapped_column(server_default="false")
    resumed_at: Mapped[datetime | None]
    changed_at: Mapped[datetime] = mapped_column(server_default=func.now())
    changed_by: Mapped[UUID | None]
