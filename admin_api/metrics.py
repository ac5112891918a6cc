"""Prometheus metrics, out of the rollups: true whichever process is asked, and across restarts of all."""

from __future__ import annotations

import ipaddress
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    UnknownMetricFamily,
)
from prometheus_client.registry import Collector

from admin_api.errors import PROBLEM_RESPONSES
from admin_api.security import Actor, Rule, Scope, authenticate
from admin_api.services import Services, Using
from routing.breaker import circuit_at
from workers import alerts, fleet, lanes, presence, totals
from workers.histogram import BOUNDS_MS
from workers.lanes import LaneState
from workers.presence import WorkerState
from workers.totals import Totals

router = APIRouter(tags=["metrics"])

_RULE = Rule(frozenset(Actor), scope=Scope.METRICS)
_FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip")


@router.get(
    "/metrics",
    responses={
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Prometheus text"},
        **PROBLEM_RESPONSES,
    },
    response_class=Response,
    openapi_extra={**_RULE.openapi, "security": [{"bearer": []}, {}]},
)
def get_metrics(request: Request, using: Using) -> Response:
    """Metrics as Prometheus text: for callers on this machine, and for tokens with the scope `metrics`.

    Counters come from sums in the database that only grow: restarts and retention leave them alone.
    """
    if not _is_local(request):
        _RULE.check(authenticate(using, request.headers))
    registry = CollectorRegistry()
    registry.register(_Collected(_read(using)))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


def _is_local(request: Request) -> bool:
    """Whether the caller is on this machine. Behind a proxy here all seem to be, but it says it is one."""
    if request.client is None or any(name in request.headers for name in _FORWARDED):
        return False
    try:
        return ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class _Reading:
    totals: list[Totals]
    error_rates: dict[str, float]
    lanes: list[LaneState]
    workers: list[WorkerState]
    open_alerts: dict[str, int]
    open_breakers: dict[str, bool]
    resting: dict[tuple[str, str], int]


def _read(using: Services) -> _Reading:
    sight = fleet.look(using.line)
    with using.pool.connection() as db:
        providers = db.execute("SELECT id, slug, base_url FROM ai_providers").fetchall()
        slugs = {row["id"]: row["slug"] for row in providers}
        alerts.raise_unserved_lanes(db)
        return _Reading(
            totals=totals.since_the_beginning(db),
            error_rates=totals.error_rates(db),
            lanes=lanes.states(db, using.doorbells),
            workers=presence.states(db),
            open_alerts=alerts.count_open(db),
            open_breakers={
                row["slug"]: circuit_at(row["id"], row["base_url"]) in sight.open for row in providers
            },
            resting=Counter(
                (slugs[each.provider_id], each.error_class)
                for each in sight.resting
                if each.provider_id in slugs
            ),
        )


class _Collected(Collector):
    def __init__(self, reading: _Reading) -> None:
        self._reading = reading

    def describe(self) -> Iterable[Metric]:
        """Nothing: a registry that knows names would have to collect once to learn them."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All metrics."""
        yield from _calls(self._reading.totals)
        yield _latency(self._reading.totals)
        rate = GaugeMetricFamily(
            "ai_provider_error_rate", "Failed calls of the last five minutes, of 1.", labels=["provider"]
        )
        for provider, value in self._reading.error_rates.items():
            rate.add_metric([provider], value)
        yield rate
        yield from _fleet(self._reading)
        yield from _queues(self._reading.lanes)
        yield from _workers(self._reading.workers)
        opened = GaugeMetricFamily("orrery_alerts_open", "Alerts nobody has acknowledged.", labels=["kind"])
        for kind, count in self._reading.open_alerts.items():
            opened.add_metric([kind], count)
        yield opened


def _calls(rows: list[Totals]) -> Iterator[Metric]:
    by = ["provider", "model", "feature"]
    requests = CounterMetricFamily(
        "ai_provider_requests", "Calls that reached a provider.", labels=[*by, "outcome", "error_class"]
    )
    # Without `_total`, which the exposition would add to the name of a counter.
    tokens = UnknownMetricFamily(
        "ai_provider_tokens_used", "Tokens, counting up; input includes cached ones.", labels=[*by, "kind"]
    )
    cost = UnknownMetricFamily("ai_provider_cost_usd", "Known costs in dollars, counting up.", labels=by)
    unpriced = CounterMetricFamily(
        "ai_provider_unpriced_requests", "Calls that cost nobody knows how much.", labels=by
    )
    sums: dict[tuple[str, ...], list[float]] = defaultdict(lambda: [0, 0, 0, 0, 0, 0, 0])
    for row in rows:
        names: tuple[str, ...] = (row.provider or "", row.model or "", row.feature)
        if row.calls:
            requests.add_metric([*names, row.outcome, row.error_class or ""], row.calls)
        for place, value in enumerate([*row.tokens.values(), float(row.cost_usd), row.unpriced_calls]):
            sums[names][place] += value
    for names, values in sums.items():
        for kind, value in zip(totals.TOKENS, values, strict=False):
            tokens.add_metric([*names, kind], value)
        cost.add_metric(names, values[-2])
        unpriced.add_metric(names, values[-1])
    yield from (requests, tokens, cost, unpriced)


def _latency(rows: list[Totals]) -> Metric:
    latency = HistogramMetricFamily(
        "ai_provider_latency_ms", "Milliseconds of calls that ended.", labels=["provider", "model"]
    )
    counts: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0] * (len(BOUNDS_MS) + 1))
    sums: dict[tuple[str, str], int] = defaultdict(int)
    for row in rows:
        if row.provider is not None and any(row.histogram):
            names = (row.provider, row.model or "")
            counts[names] = [a + b for a, b in zip(counts[names], row.histogram, strict=True)]
            sums[names] += row.latency_ms_sum
    bounds = [*(f"{float(bound)}" for bound in BOUNDS_MS), "+Inf"]
    for names, histogram in counts.items():
        heaped = [sum(histogram[: place + 1]) for place in range(len(histogram))]
        latency.add_metric(names, list(zip(bounds, heaped, strict=True)), sums[names])
    return latency


def _fleet(reading: _Reading) -> Iterator[Metric]:
    opened = GaugeMetricFamily(
        "orrery_provider_breaker_open", "1 while no worker calls the provider.", labels=["provider"]
    )
    for provider, is_open in reading.open_breakers.items():
        opened.add_metric([provider], is_open)
    resting = GaugeMetricFamily(
        "orrery_provider_resting",
        "Keys, models and routes passed over for a while after a refusal.",
        labels=["provider", "error_class"],
    )
    for names, count in reading.resting.items():
        resting.add_metric(list(names), count)
    yield from (opened, resting)


def _queues(states: list[LaneState]) -> Iterator[Metric]:
    jobs = GaugeMetricFamily("orrery_queue_jobs", "Jobs that have not ended.", labels=["lane", "state"])
    age = GaugeMetricFamily(
        "orrery_queue_oldest_age_seconds",
        "How long the first job of the queue has been due.",
        labels=["lane"],
    )
    paused = GaugeMetricFamily("orrery_queue_paused", "1 where the lane is paused.", labels=["lane"])
    doorbells = GaugeMetricFamily("orrery_queue_doorbells", "Doorbells not yet heard.", labels=["lane"])
    for lane in states:
        for state in ("queued", "scheduled", "running"):
            jobs.add_metric([lane.lane, state], getattr(lane, state))
        age.add_metric([lane.lane], lane.oldest_age_seconds or 0)
        paused.add_metric([lane.lane], lane.is_paused)
        if lane.doorbells is not None:
            doorbells.add_metric([lane.lane], lane.doorbells)
    yield from (jobs, age, paused, doorbells)


def _workers(states: list[WorkerState]) -> Iterator[Metric]:
    processes = GaugeMetricFamily("orrery_workers", "Worker processes.", labels=["state"])
    threads = GaugeMetricFamily("orrery_worker_threads", "Threads of a worker process.", labels=["worker"])
    running = GaugeMetricFamily("orrery_worker_jobs", "Jobs that run in a worker process.", labels=["worker"])
    for state in ("running", "stopping", "lost"):
        processes.add_metric([state], sum(worker.state == state for worker in states))
    for worker in states:
        if worker.state != "lost":
            threads.add_metric([worker.id], worker.threads)
            running.add_metric([worker.id], worker.in_flight)
    yield from (processes, threads, running)
