"""Configuration rows for tests, written as the database's owner."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from store.ids import new_id
from store.orm import engine
from store.settings import Settings
from store.tables import (
    AIModel,
    AIProvider,
    AssignmentTarget,
    Feature,
    FeatureAIAssignment,
    ModelPrice,
    PromptTemplate,
)
from store.vault import Keyring, Vault

CANARY = "sk-canary-7f3a91c2d4e5b6a7"


class Rows:
    """Adds and changes rows; each call is one transaction, so one new configuration version at least."""

    def __init__(self, settings: Settings) -> None:
        self._engine = engine(settings.database())
        self._vault = Vault(Keyring.load(settings))

    def close(self) -> None:
        self._engine.dispose()

    def provider(self, slug: str, base_url: str, *, key: str | None = CANARY, **columns: Any) -> UUID:
        """A provider on this machine, speaking the OpenAI protocol unless `type` says otherwise."""
        row = AIProvider(
            id=new_id(),
            slug=slug,
            name=slug,
            base_url=base_url,
            **{"type": "openai_compatible", "allow_private_network": True, **columns},
        )
        if key is not None:
            row.key_version = 1
            row.key_last4 = key[-4:]
            row.sealed_key = self._vault.seal(
                key, table="ai_providers", row=str(row.id), field="api_key", version=1
            ).blob
        with self._session() as session:
            session.add(row)
        return row.id

    def model(
        self,
        provider_id: UUID,
        model_id: str,
        *,
        prices: tuple[str, str] | None = ("0.001", "0.002"),
        **columns: Any,
    ) -> UUID:
        """A model with prices per 1,000 input and output tokens, or None for unknown ones."""
        row = AIModel(
            id=new_id(),
            provider_id=provider_id,
            model_id=model_id,
            name=model_id,
            **{"capabilities": ["text"], **columns},
        )
        with self._session() as session:
            session.add(row)
            if prices is not None:
                session.add(
                    ModelPrice(
                        model_id=row.id,
                        input_price_per_1k=Decimal(prices[0]),
                        output_price_per_1k=Decimal(prices[1]),
                    )
                )
        return row.id

    def assign(
        self, feature: str, *models: UUID, user: str | None = None, system: str | None = None, **columns: Any
    ) -> UUID:
        """Assign models to a feature, the first one primary, replacing what was assigned."""
        with self._session() as session:
            feature_id = session.scalars(select(Feature.id).where(Feature.name == feature)).one()
            session.query(FeatureAIAssignment).filter_by(feature_id=feature_id).delete()
            row = FeatureAIAssignment(id=new_id(), feature_id=feature_id, **columns)
            if user is not None or system is not None:
                row.prompt_template_id = self._prompt(session, feature_id, system, user)
            session.add(row)
            session.flush()
            session.add_all(
                AssignmentTarget(assignment_id=row.id, position=position, model_id=model)
                for position, model in enumerate(models)
            )
        return row.id

    def change(self, table: type[Any], row_id: UUID, **columns: Any) -> None:
        """Change columns of one row."""
        with self._session() as session:
            session.execute(update(table).where(table.id == row_id).values(**columns))

    def change_feature(self, name: str, **columns: Any) -> None:
        """Change columns of a feature."""
        with self._session() as session:
            session.execute(update(Feature).where(Feature.name == name).values(**columns))

    def _prompt(self, session: Session, feature_id: UUID, system: str | None, user: str | None) -> UUID:
        newest = session.scalar(
            select(func.max(PromptTemplate.version)).where(PromptTemplate.feature_id == feature_id)
        )
        row = PromptTemplate(
            id=new_id(),
            feature_id=feature_id,
            version=(newest or 0) + 1,
            system_template=system,
            user_template=user,
        )
        session.add(row)
        session.flush()
        return row.id

    @contextmanager
    def _session(self) -> Iterator[Session]:
        with Session(self._engine, expire_on_commit=False) as session, session.begin():
            yield session
