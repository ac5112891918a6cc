"""Personal keys: what an admin brings along for a provider."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from store.tables.base import Base, Row
from store.tables.providers import AIProvider


class AdminProviderSetting(Row, Base):
    """An admin's own key for a provider, and whether it comes before the shared one.

    `sealed_key` is deferred and hidden from the API's database role by column grant; `key_version` counts
    the keys this row has held and is bound into the seal; `monthly_limit` counts tokens of a calendar month
    (UTC).
    """

    __tablename__ = "admin_provider_settings"
    __table_args__ = (
        UniqueConstraint("admin_id", "provider_id"),
        CheckConstraint("key_version > 0", name="key_version_positive"),
        CheckConstraint("monthly_limit > 0", name="monthly_limit_positive"),
    )

    admin_id: Mapped[UUID] = mapped_column(ForeignKey("admins.id", ondelete="CASCADE"))
    provider_id: Mapped[UUID] = mapped_column(ForeignKey("ai_providers.id", ondelete="CASCADE"), index=True)
    sealed_key: Mapped[bytes] = mapped_column(deferred=True, deferred_raiseload=True)
    key_version: Mapped[int]
    key_last4: Mapped[str]
    use_shared_api: Mapped[bool] = mapped_column(server_default="false")
    monthly_limit: Mapped[int | None] = mapped_column(BigInteger)
    is_active: Mapped[bool] = mapped_column(server_default="true")

    provider: Mapped[AIProvider] = relationship(lazy="raise")
