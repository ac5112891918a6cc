"""How a provider has been doing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel, Field

from admin_api import fields
from admin_api.refusals import NotFound
from admin_api.security import GuardedRoute, allow_reading
from admin_api.services import Services, Using
from routing.breaker import circuit_at
from routing.cooldowns import Cooldown
from workers import fleet, provider_health
from workers.provider_health import Health

router = APIRouter(prefix="/providers", tags=["providers"], route_class=GuardedRoute)

_DEGRADED = 0.1  # of the calls


class Window(BaseModel):
    """The calls of a span of time; `errors` counts the failed ones by class. Null without calls."""

    calls: int
    failed: int
    error_rate: float | None
    errors: dict[str, int]
    p50_ms: int | None
    p95_ms: int | None


class LastError(BaseModel):
    """The newest failed call."""

    at: datetime
    class_: Annotated[str, Field(alias="class")]
    message: str | None


class LastProbe(BaseModel):
    """The newest question for the provider's models, which a worker asks where nobody called it for a while.
    `error`: why it was not answered."""

    at: datetime
    ok: bool
    latency_ms: int
    error: str | None


class Breaker(BaseModel):
    """A worker process's breaker. Those that have been closed since their process started are left out."""

    worker: str
    state: Literal["closed", "open", "half_open"]
    changed_at: datetime


class ProviderHealth(BaseModel):
    """A provider's health: its status comes from the calls that were made anyway.

    `down`: a worker's breaker is open, or no call of the last five minutes succeeded. `degraded`: a tenth of
    them failed, or a breaker is half-open. `unknown`: there were none.
    """

    provider_id: UUID
    status: Literal["healthy", "degraded", "down", "unknown"]
    windows: Annotated[dict[str, Window], Field(description="By length: `5m`, `1h` and `24h`.")]
    last_success_at: datetime | None
    last_error: LastError | None
    breakers: list[Breaker]
    last_probe: LastProbe | None


class Limits(BaseModel):
    """What all workers together keep to. Null: unlimited."""

    requests_per_minute: int | None
    tokens_per_minute: int | None
    max_concurrency: int | None


class Resting(BaseModel):
    """What no worker calls until then, after the provider refused it with an error of this class. `model` is
    null where all models of the key rest; `times`: how often in a row."""

    what: Literal["key", "route", "model"]
    model: str | None
    error_class: str
    until: datetime
    times: int


class OpenBreaker(BaseModel):
    """The breaker that all workers have open: when the next call is tried, and who opened it."""

    probe_at: datetime
    opened_by: str


class DetailedHealth(ProviderHealth):
    """A provider's health, and what holds for all workers now, as far as Redis can be asked."""

    limits: Limits
    fleet_breaker: OpenBreaker | None
    resting: list[Resting]


@router.get("/{provider_id}/health")
@allow_reading
def get_provider_health(provider_id: UUID, using: Using) -> DetailedHealth:
    """A provider's recent calls, its breakers, its limits, and what rests."""
    with using.pool.connection() as db:
        row = db.execute(_PROVIDER, [provider_id]).fetchone()
        if row is None:
            raise NotFound(f"There is no provider {provider_id}.")
        found = shown(provider_id, provider_health.health(db, provider_id))
    sight, now = fleet.look(using.line), datetime.now(UTC)
    opened = sight.open.get(circuit_at(provider_id, row.pop("base_url")))
    return DetailedHealth(
        **dict(found),
        limits=Limits(**row),
        fleet_breaker=opened
        and OpenBreaker(probe_at=now + timedelta(seconds=opened.seconds), opened_by=opened.worker),
        resting=[_resting(each, now) for each in sight.resting if each.provider_id == provider_id],
    )


_PROVIDER = """
SELECT base_url, requests_per_minute, tokens_per_minute, max_concurrency FROM ai_providers WHERE id = %s"""


def _resting(each: Cooldown, now: datetime) -> Resting:
    return Resting.model_validate(
        {
            "what": each.scope.partition(":")[0],
            "model": each.model,
            "error_class": each.error_class,
            "until": now + timedelta(seconds=each.seconds),
            "times": each.times,
        }
    )


def health_of(using: Services, provider_ids: Sequence[UUID]) -> dict[UUID, ProviderHealth]:
    """The health of many providers, by their ids."""
    with using.pool.connection() as db:
        found = provider_health.healths(db, provider_ids)
    return {provider_id: shown(provider_id, health) for provider_id, health in found.items()}


def shown(provider_id: UUID, found: Health) -> ProviderHealth:
    """A provider's health as clients see it."""
    error = found.last_error
    return ProviderHealth(
        provider_id=provider_id,
        status=_status(found),
        windows={name: fields.shown(Window, window) for name, window in found.windows.items()},
        last_success_at=found.last_success_at,
        last_error=error and LastError(**{"class": error.error_class}, at=error.at, message=error.message),
        breakers=[fields.shown(Breaker, breaker) for breaker in found.breakers],
        last_probe=found.last_probe and fields.shown(LastProbe, found.last_probe),
    )


def _status(found: Health) -> Literal["healthy", "degraded", "down", "unknown"]:
    states = {breaker.state for breaker in found.breakers}
    recent = found.windows["5m"]
    if "open" in states or (recent.calls and recent.failed == recent.calls):
        return "down"
    if "half_open" in states or (recent.error_rate or 0) >= _DEGRADED:
        return "degraded"
    return "healthy" if recent.calls else "unknown"
