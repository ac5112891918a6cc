"""Overview: how everything is, on one page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from fastapi import APIRouter, Request, Response
from markupsafe import Markup

from admin_api import provider_health, usage
from admin_api.alerts import AlertQuery, list_alerts
from admin_api.job_bodies import JobQuery, ListedJob
from admin_api.jobs import list_jobs
from admin_api.pages.charts import Chart, Series, bars, sparkline
from admin_api.pages.render import page
from admin_api.pages.route import PageRoute
from admin_api.pages.upcoming import upcoming
from admin_api.pagination import PageQuery
from admin_api.provider_health import ProviderHealth
from admin_api.providers import Provider, ProviderQuery, list_providers
from admin_api.queues import Queue, list_queues
from admin_api.security import Current, allow_reading
from admin_api.services import Services, Using
from admin_api.sessions import Reading
from admin_api.usage import StatsQuery, Sums
from admin_api.workers import list_workers
from workers import totals
from workers.provider_health import healths
from workers.totals import Minute

router = APIRouter(route_class=PageRoute)

_MINUTES = 60
_FEW = 5
_LATE_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Backlog:
    """The jobs of all lanes."""

    waiting: int
    is_exact: bool
    running: int
    oldest_seconds: float | None

    @property
    def is_late(self) -> bool:
        """Whether somebody has waited for more than a minute."""
        return (self.oldest_seconds or 0) > _LATE_SECONDS


@dataclass(frozen=True, slots=True)
class Traffic:
    """The calls of the last hour, by the minute."""

    chart: Chart
    calls: int
    failed: int
    per_minute: float
    """Of the last five whole minutes."""
    spark: Markup

    @property
    def error_rate(self) -> float | None:
        """The share that failed; None without calls."""
        return self.failed / self.calls if self.calls else None


@router.get("/overview")
@allow_reading
def overview(request: Request, session: Reading, caller: Current, using: Using) -> Response:
    """Backlog, throughput, failures, spend, schedules, providers and alerts."""
    lanes = list_queues(using).items
    workers = list_workers(PageQuery(limit=200), using).items
    providers = list_providers(ProviderQuery(limit=100), session).items
    failed = JobQuery(state="failed", limit=_FEW)
    return page(
        request,
        "overview.html",
        lanes=lanes,
        backlog=_backlog(lanes),
        alive=[worker for worker in workers if worker.state == "running"],
        traffic=_traffic(using),
        today=_spent(using, days=1),
        week=_spent(using, days=7),
        providers=_strip(using, providers),
        upcoming=upcoming(session),
        alerts=list_alerts(AlertQuery(acknowledged=False, limit=_FEW), request, using).items,
        failures=_failures(list_jobs(failed, caller, using).items),
    )


def _backlog(lanes: Sequence[Queue]) -> Backlog:
    ages = [lane.oldest_age_seconds for lane in lanes if lane.oldest_age_seconds is not None]
    return Backlog(
        waiting=sum(lane.queued for lane in lanes),
        is_exact=all(lane.is_exact for lane in lanes),
        running=sum(lane.running for lane in lanes),
        oldest_seconds=max(ages, default=None),
    )


def _spent(using: Services, *, days: int) -> Sums:
    return usage.counted(StatsQuery(days=days), using).totals


def _strip(using: Services, providers: Sequence[Provider]) -> list[tuple[Provider, ProviderHealth]]:
    with using.pool.connection() as db:
        found = healths(db, [provider.id for provider in providers])
    return [(provider, provider_health.shown(provider.id, found[provider.id])) for provider in providers]


def _failures(jobs: Sequence[ListedJob]) -> list[ListedJob]:
    """Those of the last day: older ones are history."""
    since = datetime.now(UTC) - timedelta(days=1)
    return [job for job in jobs if job.finished_at is not None and job.finished_at > since]


def _traffic(using: Services) -> Traffic:
    with using.pool.connection() as db:
        counted = {each.minute: each for each in totals.by_minute(db, _MINUTES)}
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    times = [now - timedelta(minutes=back) for back in range(_MINUTES - 1, -1, -1)]
    found = [counted.get(time, Minute(time, 0, 0)) for time in times]
    calls, failed = sum(each.calls for each in found), sum(each.failed for each in found)
    whole = found[-6:-1]
    return Traffic(
        chart=bars(
            "Provider calls by the minute",
            times if calls else [],
            [
                Series("succeeded", [each.calls - each.failed for each in found] if calls else [], "cyan"),
                Series("failed", [each.failed for each in found] if calls else [], "red"),
            ],
        ),
        calls=calls,
        failed=failed,
        per_minute=sum(each.calls for each in whole) / len(whole),
        spark=sparkline("Calls a minute", [each.calls for each in found]),
    )
