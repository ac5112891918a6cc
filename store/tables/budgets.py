"""Budgets: what people allow a period to cost."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from sqlalchemy import ARRAY, BigInteger, CheckConstraint, Integer, Numeric
from sqlalchemy.orm import Mapped, mapped_column

from store.tables.base import Base, Row


class Budget(Row, Base):
    """What calls may cost in dollars, or take in tokens (input and output together), in a day or month (UTC).

    `scope_id`: a provider's id, a feature's name or an end user; NULL with scope user: each user's own.
    """

    __tablename__ = "budgets"
    __table_args__ = (
        CheckConstraint("scope in ('global', 'provider', 'feature', 'user')", name="scope_known"),
        CheckConstraint(
            "CASE scope WHEN 'global' THEN scope_id IS NULL WHEN 'user' THEN true "
            "ELSE scope_id IS NOT NULL END",
            name="scope_id_fits",
        ),
        CheckConstraint("period in ('day', 'month')", name="period_known"),
        CheckConstraint("action in ('alert', 'downgrade', 'block', 'defer')", name="action_known"),
        CheckConstraint("limit_usd IS NOT NULL OR limit_tokens IS NOT NULL", name="limited"),
        CheckConstraint("least(limit_usd, limit_tokens) > 0", name="limits_positive"),
    )

    scope: Mapped[str]
    scope_id: Mapped[str | None]
    period: Mapped[str]
    limit_usd: Mapped[Decimal | None] = mapped_column(Numeric)
    limit_tokens: Mapped[int | None] = mapped_column(BigInteger)
    action: Mapped[str] = mapped_column(server_default="alert")
    alert_percent: Mapped[list[int]] = mapped_column(ARRAY(Integer), server_default="{80,100}")
    is_active: Mapped[bool] = mapped_column(server_default="true")


class BudgetUsage(Base):
    """What a period has cost so far, by scope; written by the database as calls are recorded."""

    __tablename__ = "budget_usage"

    scope: Mapped[str] = mapped_column(primary_key=True)
    scope_id: Mapped[str] = mapped_column(primary_key=True)
    period: Mapped[str] = mapped_column(primary_key=True)
    starts_at: Mapped[datetime] = mapped_column(primary_key=True)
    usd: Mapped[Decimal] = mapped_column(Numeric, server_default="0")
    tokens: Mapped[int] = mapped_column(BigInteger, server_default="0")
    unpriced_calls: Mapped[int] = mapped_column(BigInteger, server_default="0")
