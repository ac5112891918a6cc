"""Outcome → rows of `ai_usage_analytics`, and the totals that the job's own record keeps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from operator import attrgetter
from typing import Any
from uuid import UUID

from routing.values import Attempt, AttemptOutcome, Plan, Price


@dataclass(frozen=True, slots=True)
class AttemptRow:
    """One row of `ai_usage_analytics`; members are its columns. (job_id, run, n) makes it unique.

    `failover`: the first try of a route, after another route of the same run.
    """

    job_id: UUID
    run: int
    n: int
    started_at: datetime
    finished_at: datetime
    feature: str
    capability: str
    lane: str
    user_id: str | None
    caller_admin_id: UUID | None
    provider_id: UUID
    provider: str
    model_row_id: UUID
    model: str
    served_model: str | None
    outcome: str
    called: bool
    failover: bool
    breaker: str
    error_class: str | None
    error_message: str | None
    status: int | None
    request_id: str | None
    latency_ms: int | None
    input_tokens: int | None
    output_tokens: int | None
    cached_tokens: int | None
    cache_write_tokens: int | None
    reasoning_tokens: int | None
    characters: int | None
    seconds: float | None
    images: int | None
    tokens_estimated: bool
    raw_usage: Mapping[str, Any] | None
    price: Mapping[str, Any] | None
    cost_usd: Decimal | None
    config_version: int
    assignment_id: UUID
    prompt_version: int | None
    key_version: int
    worker: str

    def as_json(self) -> dict[str, Any]:
        """What `jsonb_populate_recordset` reads back into the columns' types."""
        return _members(self)


def rows(
    attempts: Sequence[Attempt],
    plan: Plan,
    *,
    job_id: UUID,
    run: int,
    user_id: str | None,
    caller_admin_id: UUID | None,
    worker: str,
) -> list[AttemptRow]:
    """The run's attempts as rows, with the configuration each ran with."""
    prompt = plan.assignment.prompt
    return [
        AttemptRow(
            job_id=job_id,
            run=run,
            n=attempt.n,
            started_at=attempt.started_at,
            finished_at=attempt.finished_at,
            feature=plan.feature.name,
            capability=plan.feature.capability,
            lane=plan.feature.lane,
            user_id=user_id,
            caller_admin_id=caller_admin_id,
            provider_id=attempt.route.provider.id,
            provider=attempt.route.provider.slug,
            model_row_id=attempt.route.model.id,
            model=attempt.route.model.model_id,
            served_model=attempt.served_model,
            outcome=attempt.outcome,
            called=attempt.called,
            failover=before is not None and before.route is not attempt.route,
            breaker=attempt.breaker,
            error_class=attempt.error_class,
            error_message=attempt.error_message,
            status=attempt.status,
            request_id=attempt.request_id,
            latency_ms=attempt.latency_ms,
            input_tokens=attempt.usage.input_tokens,
            output_tokens=attempt.usage.output_tokens,
            cached_tokens=attempt.usage.cached_tokens,
            cache_write_tokens=attempt.usage.cache_write_tokens,
            reasoning_tokens=attempt.usage.reasoning_tokens,
            characters=attempt.usage.characters,
            seconds=attempt.usage.seconds,
            images=attempt.usage.images,
            tokens_estimated=attempt.usage.estimated,
            raw_usage=attempt.usage.raw,
            price=_price(attempt.route.price),
            cost_usd=attempt.cost_usd,
            config_version=plan.config_version,
            assignment_id=plan.assignment.id,
            prompt_version=prompt.version if prompt else None,
            key_version=attempt.route.key_version,
            worker=worker,
        )
        for before, attempt in zip((None, *attempts), attempts, strict=False)
    ]


def superseded(rows: Iterable[AttemptRow]) -> list[AttemptRow]:
    """The same rows for a run that lost its lease: what succeeded was paid for, but is not the result."""
    return [
        replace(row, outcome=AttemptOutcome.SUPERSEDED) if row.outcome == AttemptOutcome.SUCCEEDED else row
        for row in rows
    ]


def known_cost(attempts: Iterable[Attempt]) -> Decimal:
    """Dollars that are known to have been spent."""
    return sum((a.cost_usd for a in attempts if a.cost_usd is not None), start=Decimal(0))


def run_cost(attempts: Sequence[Attempt]) -> Decimal | None:
    """What a run cost: None where its answer's price is unknown, for unknown is not free."""
    answered = (a for a in attempts if a.outcome is AttemptOutcome.SUCCEEDED)
    return None if any(a.cost_usd is None for a in answered) else known_cost(attempts)


def _price(price: Price | None) -> dict[str, Any] | None:
    return None if price is None else _members(price)


def _members(row: AttemptRow | Price) -> dict[str, Any]:
    """What is set. `dataclasses.asdict` copies deeply, which took 12 % of a worker's time."""
    values = zip(row.__slots__, _values[type(row)](row), strict=True)
    return {name: value for name, value in values if value is not None}


_values = {kind: attrgetter(*kind.__slots__) for kind in (AttemptRow, Price)}
