"""Features, and which models and prompts serve them."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from store.ids import new_id
from store.tables.base import Base, Row
from store.tables.providers import AIModel


class Feature(Row, Base):
    """What applications ask for by name. Never names a provider or a model.

    `max_queued` caps its unfinished jobs; beyond it enqueueing is refused for the moment. What its finished
    jobs were given and made is erased after `keep_days` days; without `store_input` what they were given is
    erased as they end, without `store_output` what they made an hour later.
    """

    __tablename__ = "features"
    __table_args__ = (
        CheckConstraint(r"name ~ '^[a-z][a-z0-9_]*$'", name="name_form"),
        CheckConstraint(
            "capability in ('text', 'vision', 'speech', 'transcription', 'moderation', 'embedding', 'image')",
            name="capability_known",
        ),
        CheckConstraint("lane in ('interactive', 'standard', 'batch')", name="lane_known"),
        CheckConstraint("max_queued > 0", name="max_queued_positive"),
        CheckConstraint("keep_days between 1 and 36500", name="keep_days_range"),
        Index("ix_features_name_unstored", "name", postgresql_where=text("NOT store_input")),
    )

    name: Mapped[str] = mapped_column(unique=True)
    category: Mapped[str | None]
    description: Mapped[str | None]
    capability: Mapped[str]
    lane: Mapped[str] = mapped_column(server_default="standard")
    input_schema: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    output_schema: Mapped[dict[str, Any] | None]
    max_queued: Mapped[int | None]
    keep_days: Mapped[int | None]
    store_input: Mapped[bool] = mapped_column(server_default="true")
    store_output: Mapped[bool] = mapped_column(server_default="true")
    is_active: Mapped[bool] = mapped_column(server_default="true")


class PromptTemplate(Base):
    """One version of a feature's prompt. Rows are never changed: an edit is the next version."""

    __tablename__ = "prompt_templates"
    __table_args__ = (UniqueConstraint("feature_id", "version"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    feature_id: Mapped[UUID] = mapped_column(ForeignKey("features.id", ondelete="CASCADE"))
    version: Mapped[int]
    system_template: Mapped[str | None]
    user_template: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    created_by: Mapped[UUID | None]


class FeatureAIAssignment(Row, Base):
    """Which models serve a feature, in which order, with which prompt and parameters."""

    __tablename__ = "feature_ai_assignments"
    __table_args__ = (
        CheckConstraint(
            "strategy in ('priority', 'weighted', 'cheapest', 'fastest', 'least_used')", name="strategy_known"
        ),
        CheckConstraint("max_retries between 0 and 20", name="max_retries_range"),
        CheckConstraint("retry_delay_seconds >= 0", name="retry_delay_not_negative"),
        CheckConstraint("timeout_seconds > 0", name="timeout_positive"),
        CheckConstraint("deadline_seconds > 0", name="deadline_positive"),
    )

    feature_id: Mapped[UUID] = mapped_column(ForeignKey("features.id", ondelete="CASCADE"), unique=True)
    strategy: Mapped[str] = mapped_column(server_default="priority")
    prompt_template_id: Mapped[UUID | None] = mapped_column(ForeignKey("prompt_templates.id"))
    parameters: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    max_retries: Mapped[int] = mapped_column(server_default="3")
    retry_delay_seconds: Mapped[float] = mapped_column(server_default="2")
    timeout_seconds: Mapped[float | None]
    deadline_seconds: Mapped[float | None]
    use_any_active_model: Mapped[bool] = mapped_column(server_default="false")
    is_active: Mapped[bool] = mapped_column(server_default="true")

    feature: Mapped[Feature] = relationship(lazy="raise")
    prompt_template: Mapped[PromptTemplate | None] = relationship(lazy="raise")
    targets: Mapped[list[AssignmentTarget]] = relationship(
        back_populates="assignment",
        lazy="raise",
        order_by="AssignmentTarget.position",
        cascade="all, delete-orphan",
    )


class AssignmentTarget(Base):
    """One model of an assignment. `conditions`: when it is tried at all (`plan`, `budget_burn_percent`)."""

    __tablename__ = "assignment_targets"
    __table_args__ = (
        CheckConstraint("position >= 0", name="position_not_negative"),
        CheckConstraint("weight >= 0", name="weight_not_negative"),
    )

    assignment_id: Mapped[UUID] = mapped_column(
        ForeignKey("feature_ai_assignments.id", ondelete="CASCADE"), primary_key=True
    )
    position: Mapped[int] = mapped_column(primary_key=True)
    model_id: Mapped[UUID] = mapped_column(ForeignKey("ai_models.id"), index=True)
    weight: Mapped[float] = mapped_column(server_default="1")
    conditions: Mapped[dict[str, Any]] = mapped_column(server_default="{}")

    assignment: Mapped[FeatureAIAssignment] = relationship(back_populates="targets", lazy="raise")
    model: Mapped[AIModel] = relationship(lazy="raise")


class AssignmentVersion(Base):
    """A state that an assignment was saved in. Written by the database's trigger alone, never changed.

    `state` is what the assignment does, with its prompt and targets; `names` its models by id.
    """

    __tablename__ = "assignment_versions"

    assignment_id: Mapped[UUID] = mapped_column(
        ForeignKey("feature_ai_assignments.id", ondelete="CASCADE"), primary_key=True
    )
    version: Mapped[int] = mapped_column(primary_key=True)
    state: Mapped[dict[str, Any]]
    names: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    created_by: Mapped[UUID | None]
