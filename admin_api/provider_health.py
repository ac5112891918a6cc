"""How a provider has been doing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel, Field

from admin_api import fields
from admin_api.refusals import NotFound
from admin_api.security import GuardedRoute, allow_reading
from admin_api.services import Services, Using
from workers import provider_health
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


class Breaker(BaseModel):
    """A worker process's breaker. Those that have been closed since their process started are left out."""

    worker: str
    state: Literal["closed", "open", "half_open"]
    changed_at: datetime


class ProviderHealth(BaseModel):
    """A provider's health, from the calls that were made anyway: nothing is called to find out.

    `down`: a worker's breaker is open, or no call of the last five minutes succeeded. `degraded`: a tenth of
    them failed, or a breaker is half-open. `unknown`: there were none.
    """

    provider_id: UUID
    status: Literal["healthy", "degraded", "down", "unknown"]
    windows: Annotated[dict[str, Window], Field(description="By length: `5m`, `1h` and `24h`.")]
    last_success_at: datetime | None
    last_error: LastError | None
    breakers: list[Breaker]


@router.get("/{provider_id}/health")
@allow_reading
def get_provider_health(provider_id: UUID, using: Using) -> ProviderHealth:
    """A provider's recent calls and breakers."""
    with using.pool.connection() as db:
        if db.execute("SELECT FROM ai_providers WHERE id = %s", [provider_id]).fetchone() is None:
            raise NotFound(f"There is no provider {provider_id}.")
        return shown(provider_id, provider_health.health(db, provider_id))


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
    )


def _status(found: Health) -> Literal["healthy", "degraded", "down", "unknown"]:
    states = {breaker.state for breaker in found.breakers}
    recent = found.windows["5m"]
    if "open" in states or (recent.calls and recent.failed == recent.calls):
        return "down"
    if "half_open" in states or (recent.error_rate or 0) >= _DEGRADED:
        return "degraded"
    return "healthy" if recent.calls else "unknown"
