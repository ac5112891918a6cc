"""Schedules and what they have fired."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import (
    CheckConstraint,
    ForeignKey,
    Index,
    Integer,
    Numeric,
    SmallInteger,
    UniqueConstraint,
    func,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from store.tables.base import Base, Row


class Schedule(Row, Base):
    """Jobs of one feature at times: cron in a time zone, for each combination of `inputs_matrix`.

    `then`: the steps that follow each job. `catch_up`: which instants fire that nobody was there for.
    """

    __tablename__ = "schedules"
    __table_args__ = (
        UniqueConstraint("name"),
        CheckConstraint("catch_up in ('latest', 'all', 'none')", name="catch_up_known"),
        CheckConstraint("deadline_minutes > 0", name="deadline_positive"),
        Index("ix_schedules_feature_name", "feature_name"),
    )

    name: Mapped[str]
    cron: Mapped[str]
    timezone: Mapped[str] = mapped_column(server_default="UTC")
    feature_name: Mapped[str] = mapped_column(ForeignKey("features.name"))
    inputs_matrix: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    then: Mapped[list[dict[str, Any]]] = mapped_column(JSONB, server_default="[]")
    priority: Mapped[int] = mapped_column(SmallInteger, server_default="0")
    plan: Mapped[str | None]
    catch_up: Mapped[str] = mapped_column(server_default="latest")
    use_batch_api: Mapped[bool] = mapped_column(server_default="false")
    deadline_minutes: Mapped[int | None]
    callback_url: Mapped[str | None]
    is_active: Mapped[bool] = mapped_column(server_default="true")


class ScheduleState(Base):
    """How far a schedule is. It changes by itself, so it is no part of the configuration."""

    __tablename__ = "schedule_state"

    schedule_id: Mapped[UUID] = mapped_column(
        ForeignKey("schedules.id", ondelete="CASCADE"), primary_key=True
    )
    cursor_at: Mapped[datetime]
    next_at: Mapped[datetime | None]
    retry_at: Mapped[datetime | None]


class Fire(Base):
    """An instant of a schedule that was fired, or could not be (`error`)."""

    __tablename__ = "fires"
    __table_args__ = (CheckConstraint("kind in ('scheduled', 'manual')", name="kind_known"),)

    schedule_id: Mapped[UUID] = mapped_column(
        ForeignKey("schedules.id", ondelete="CASCADE"), primary_key=True
    )
    instant: Mapped[datetime] = mapped_column(primary_key=True)
    kind: Mapped[str]
    fired_at: Mapped[datetime] = mapped_column(server_default=func.now())
    group_id: Mapped[UUID | None]
    jobs: Mapped[int] = mapped_column(Integer, server_default="0")
    error: Mapped[str | None]


class JobGroup(Base):
    """The jobs of a firing, counted by the database as they end."""

    __tablename__ = "job_groups"
    __table_args__ = (Index("ix_job_groups_schedule_id_id", "schedule_id", "id"),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    schedule_id: Mapped[UUID | None]
    name: Mapped[str]
    instant: Mapped[datetime]
    expected: Mapped[int]
    total: Mapped[int]
    succeeded: Mapped[int] = mapped_column(server_default="0")
    failed: Mapped[int] = mapped_column(server_default="0")
    cancelled: Mapped[int] = mapped_column(server_default="0")
    skipped: Mapped[int] = mapped_column(server_default="0")
    cost_usd: Mapped[Decimal] = mapped_column(Numeric, server_default="0")
    unpriced_jobs: Mapped[int] = mapped_column(server_default="0")
    callback_url: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    deadline_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
