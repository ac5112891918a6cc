"""Integrations: where the platform sends what people should know, and how the last try went."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from store.tables.base import Base, Row


class SystemIntegration(Row, Base):
    """A webhook, a mail server, a Slack channel or a bucket; at most one of each type is the default.

    `sealed_credentials` is a sealed JSON object, deferred and hidden from the API's database role by column
    grant; `credential_names` are its members; `credentials_version` counts the objects this row has held and
    is bound into the seal.
    """

    __tablename__ = "system_integrations"
    __table_args__ = (
        CheckConstraint("type in ('webhook', 'email', 'slack', 's3')", name="type_known"),
        Index("uq_system_integrations_default", "type", unique=True, postgresql_where=text("is_default")),
    )

    name: Mapped[str] = mapped_column(unique=True)
    type: Mapped[str]
    category: Mapped[str | None]
    provider_name: Mapped[str | None]
    endpoint: Mapped[str | None]
    sealed_credentials: Mapped[bytes | None] = mapped_column(deferred=True, deferred_raiseload=True)
    credentials_version: Mapped[int] = mapped_column(server_default="0")
    credential_names: Mapped[list[str]] = mapped_column(server_default="{}")
    settings: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    is_default: Mapped[bool] = mapped_column(server_default="false")
    is_active: Mapped[bool] = mapped_column(server_default="true")

    health: Mapped[IntegrationHealth | None] = relationship(lazy="raise", viewonly=True)


class IntegrationHealth(Base):
    """How an integration's last test went. `last_latency_ms`: milliseconds; `last_error` None = it worked."""

    __tablename__ = "integration_health"

    integration_id: Mapped[UUID] = mapped_column(
        ForeignKey("system_integrations.id", ondelete="CASCADE"), primary_key=True
    )
    last_test_at: Mapped[datetime]
    last_ok: Mapped[bool]
    last_latency_ms: Mapped[int]
    last_error: Mapped[str | None]
