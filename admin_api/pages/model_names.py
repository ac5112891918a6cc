"""Models by the names that people know them by: `provider/model`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from uuid import UUID

from sqlalchemy.orm import Session

from admin_api.models import Model, ModelQuery, list_models
from admin_api.pagination import every
from admin_api.providers import ProviderQuery, list_providers
from admin_api.refusals import Invalid

_AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class NamedModel:
    """A model and its provider's slug. `obstacle`: why it cannot be assigned now; "" where it can."""

    id: UUID
    provider: str
    model_id: str
    capabilities: frozenset[str]
    is_default: bool
    obstacle: str

    @property
    def name(self) -> str:
        """What it is called where providers stand beside each other."""
        return f"{self.provider}/{self.model_id}"


class Models:
    """All models of the configuration, in the order that their rows ask for."""

    def __init__(self, found: Iterable[NamedModel]) -> None:
        self._by_id = {model.id: model for model in found}
        self._by_name = {model.name: model for model in self._by_id.values()}

    def __bool__(self) -> bool:
        return bool(self._by_id)

    def chain(self, ids: Iterable[UUID]) -> list[NamedModel]:
        """The models with these ids, in this order; one that is gone is left out."""
        return [self._by_id[each] for each in ids if each in self._by_id]

    def called(self, names: Iterable[str]) -> list[NamedModel]:
        """The models with these names, each once; names that are none are left out."""
        return [self._by_name[each] for each in dict.fromkeys(names) if each in self._by_name]

    def named(self, name: str, *, field: str) -> NamedModel:
        """The model with this name. Raises Invalid."""
        model = self._by_name.get(name)
        if model is None:
            raise Invalid(f"There is no model {name!r} any more. Choose another.", field=field)
        return model

    def fit(self, capability: str) -> list[NamedModel]:
        """Those that a feature with this need can be assigned to now, the defaults first."""
        fit = [each for each in self._by_id.values() if capability in each.capabilities and not each.obstacle]
        return sorted(fit, key=lambda model: not model.is_default)


def known_models(session: Session) -> Models:
    """The models as they are committed now."""
    providers = {
        provider.id: provider
        for provider in every(
            lambda cursor: list_providers(ProviderQuery(limit=_AT_ONCE, cursor=cursor), session)
        )
    }
    models = every(lambda cursor: list_models(ModelQuery(limit=_AT_ONCE, cursor=cursor), session))
    today = datetime.now(UTC).date()
    return Models(
        NamedModel(
            id=model.id,
            provider=providers[model.provider_id].slug,
            model_id=model.model_id,
            capabilities=frozenset(model.capabilities),
            is_default=model.is_default,
            obstacle=_obstacle(model, is_provided=providers[model.provider_id].is_active, today=today),
        )
        for model in models
        if model.provider_id in providers  # added since they were read
    )


def names(models: Sequence[NamedModel]) -> list[str]:
    """Their names."""
    return [model.name for model in models]


def _obstacle(model: Model, *, is_provided: bool, today: date) -> str:
    if not is_provided:
        return "provider inactive"
    if not model.is_active:
        return "inactive"
    return "retired" if model.retires_at is not None and model.retires_at < today else ""
