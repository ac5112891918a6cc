"""Providers, their models and the models' prices."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Numeric, UniqueConstraint, func
from sqlalchemy.orm import Mapped, mapped_column, relationship

from store.ids import new_id
from store.tables.base import Base, Row


class AIProvider(Row, Base):
    """An account at a vendor, or a server of one's own. `type` names the wire protocol.

    `sealed_key` is deferred and hidden from the API's database role by column grant; `key_last4` is what
    people see; `key_version` counts the keys stored so far and is bound into the seal.
    """

    __tablename__ = "ai_providers"
    __table_args__ = (
        CheckConstraint(r"slug ~ '^[a-z0-9][a-z0-9_-]*$'", name="slug_form"),
        CheckConstraint("timeout_seconds > 0", name="timeout_positive"),
    )

    slug: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]
    display_name: Mapped[str | None]
    type: Mapped[str]
    organization: Mapped[str | None]
    base_url: Mapped[str]
    api_version: Mapped[str | None]
    sealed_key: Mapped[bytes | None] = mapped_column(deferred=True, deferred_raiseload=True)
    key_version: Mapped[int] = mapped_column(server_default="0")
    key_last4: Mapped[str | None]
    capabilities: Mapped[list[str]] = mapped_column(server_default="{}")
    settings: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    requests_per_minute: Mapped[int | None]
    tokens_per_minute: Mapped[int | None]
    max_concurrency: Mapped[int | None]
    daily_token_limit: Mapped[int | None] = mapped_column(BigInteger)
    monthly_token_limit: Mapped[int | None] = mapped_column(BigInteger)
    allow_shared_for_normal_admins: Mapped[bool] = mapped_column(server_default="true")
    allow_private_network: Mapped[bool] = mapped_column(server_default="false")
    timeout_seconds: Mapped[float | None]
    is_active: Mapped[bool] = mapped_column(server_default="true")
    sort_order: Mapped[int] = mapped_column(server_default="0")
    website: Mapped[str | None]
    description: Mapped[str | None]


class AIModel(Row, Base):
    """A model that a provider serves; `model_id` is the vendor's name for it."""

    __tablename__ = "ai_models"
    __table_args__ = (
        UniqueConstraint("provider_id", "model_id"),
        CheckConstraint("context_window > 0", name="context_window_positive"),
        CheckConstraint("max_output_tokens > 0", name="max_output_tokens_positive"),
    )

    provider_id: Mapped[UUID] = mapped_column(ForeignKey("ai_providers.id"), index=True)
    model_id: Mapped[str]
    name: Mapped[str]
    display_name: Mapped[str | None]
    version: Mapped[str | None]
    api_style: Mapped[str] = mapped_column(server_default="chat")
    capabilities: Mapped[list[str]] = mapped_column(server_default="{text}")
    context_window: Mapped[int | None]
    max_output_tokens: Mapped[int | None]
    supports_streaming: Mapped[bool] = mapped_column(server_default="true")
    retires_at: Mapped[date | None]
    default_parameters: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    constraints: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    is_default: Mapped[bool] = mapped_column(server_default="false")
    is_active: Mapped[bool] = mapped_column(server_default="true")
    sort_order: Mapped[int] = mapped_column(server_default="0")

    provider: Mapped[AIProvider] = relationship(lazy="raise")
    prices: Mapped[list[ModelPrice]] = relationship(
        back_populates="model", lazy="raise", order_by="ModelPrice.valid_from", cascade="all, delete-orphan"
    )


class ModelPrice(Base):
    """Dollars per 1,000 `price_unit` from `valid_from` on. A change is a new row, so history keeps its cost.

    NULL means unknown; a free model has 0.
    """

    __tablename__ = "model_prices"
    __table_args__ = (
        UniqueConstraint("model_id", "valid_from"),
        CheckConstraint("price_unit in ('tokens', 'characters', 'seconds', 'images')", name="unit_known"),
        CheckConstraint(
            "least(input_price_per_1k, output_price_per_1k, cached_input_price_per_1k, "
            "cache_write_price_per_1k, batch_input_price_per_1k, batch_output_price_per_1k) >= 0",
            name="not_negative",
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    model_id: Mapped[UUID] = mapped_column(ForeignKey("ai_models.id", ondelete="CASCADE"))
    valid_from: Mapped[datetime] = mapped_column(server_default=func.now())
    price_unit: Mapped[str] = mapped_column(server_default="tokens")
    input_price_per_1k: Mapped[Decimal | None] = mapped_column(Numeric)
    output_price_per_1k: Mapped[Decimal | None] = mapped_column(Numeric)
    cached_input_price_per_1k: Mapped[Decimal | None] = mapped_column(Numeric)
    cache_write_price_per_1k: Mapped[Decimal | None] = mapped_column(Numeric)
    batch_input_price_per_1k: Mapped[Decimal | None] = mapped_column(Numeric)
    batch_output_price_per_1k: Mapped[Decimal | None] = mapped_column(Numeric)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    created_by: Mapped[UUID | None]

    model: Mapped[AIModel] = relationship(back_populates="prices", lazy="raise")
