"""Retention: how long finished jobs and their calls are kept."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, func
from sqlalchemy.orm import Mapped, mapped_column

from store.tables.base import Base


class Retention(Base):
    """Days that a partitioned table keeps, counted from the end of each; None = for ever."""

    __tablename__ = "retention"
    __table_args__ = (
        CheckConstraint("table_name in ('job_history', 'ai_usage_analytics')", name="table_name_known"),
        CheckConstraint(
            "keep_days between CASE table_name WHEN 'ai_usage_analytics' THEN 31 ELSE 1 END and 36500",
            name="keep_days_range",
        ),
    )

    table_name: Mapped[str] = mapped_column(primary_key=True)
    keep_days: Mapped[int | None]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now(), onupdate=func.now())
    updated_by: Mapped[UUID | None]
