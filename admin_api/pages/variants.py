"""How the variants of a weighted assignment have been doing, beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from admin_api.assignments import Assignment
from admin_api.pages.model_names import Models
from admin_api.services import Services
from admin_api.usage import Row, StatsQuery, counted

DAYS = 7


@dataclass(frozen=True, slots=True)
class Variant:
    """A model and its calls. `weight` and `share` are shares of 1: wanted, and had of the variants' calls."""

    name: str
    weight: float
    share: float | None
    sums: Row | None

    @property
    def mean_cost(self) -> Decimal | None:
        """Dollars a call, of those whose cost is known."""
        priced = self.sums.calls - self.sums.unpriced_calls if self.sums else 0
        return Decimal(self.sums.cost_usd) / priced if self.sums and priced else None


def variants(assignment: Assignment, models: Models, using: Services) -> Sequence[Variant]:
    """The variants of the last days, in the order of the targets; none under another strategy."""
    if assignment.strategy != "weighted":
        return []
    query = StatsQuery(days=DAYS, group_by="provider,model", feature=assignment.feature_name)
    found = {(row.provider, row.model): row for row in counted(query, using).items}
    chain = {model.id: model for model in models.chain(each.model_id for each in assignment.targets)}
    targets = [(chain[each.model_id], each.weight) for each in assignment.targets if each.model_id in chain]
    rows = [found.get((model.provider, model.model_id)) for model, _ in targets]
    calls, weights = sum(row.calls for row in rows if row), sum(weight for _, weight in targets)
    return [
        Variant(
            name=model.name,
            weight=weight / weights if weights else 0,
            share=(row.calls if row else 0) / calls if calls else None,
            sums=row,
        )
        for (model, weight), row in zip(targets, rows, strict=True)
    ]
