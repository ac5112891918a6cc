"""Prometheus reads the truth, whichever process it asks, and only who may."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from store.settings import Settings
from tests.admin_api.conftest import Api, People
from tests.usage_rows import Ledger, call

LABELS = {"provider": "acme", "model": "acme-1", "feature": "cv_draft"}


@pytest.fixture
def ledger(settings: Settings) -> Iterator[Ledger]:
    ledger = Ledger(settings)
    yield ledger
    ledger.close()


def scraped(http: httpx.Client) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    answer = http.get("/metrics")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def value(http: httpx.Client, name: str, **labels: str) -> float:
    return scraped(http)[name, frozenset(labels.items())]


def test_counters_are_the_sums_of_all_calls(http: httpx.Client, ledger: Ledger) -> None:
    ledger.record(
        call(latency_ms=100),
        call(latency_ms=101),
        call(outcome="failed", error_class="timeout", cost_usd=None, latency_ms=400_000),
        call(outcome="failed", error_class="overloaded", called=False, cost_usd=0),
    )
    found = scraped(http)

    def at(name: str, **labels: str) -> float:
        return found[name, frozenset(labels.items())]

    assert at("ai_provider_requests_total", **LABELS, outcome="succeeded", error_class="") == 2
    assert at("ai_provider_requests_total", **LABELS, outcome="failed", error_class="timeout") == 1
    assert at("ai_provider_tokens_used", **LABELS, kind="input") == 400
    assert at("ai_provider_cost_usd", **LABELS) == pytest.approx(0.02)
    assert at("ai_provider_unpriced_requests_total", **LABELS) == 1
    by_model = {"provider": "acme", "model": "acme-1"}
    assert at("ai_provider_latency_ms_bucket", **by_model, le="75.0") == 0
    assert at("ai_provider_latency_ms_bucket", **by_model, le="100.0") == 1
    assert at("ai_provider_latency_ms_bucket", **by_model, le="300000.0") == 2
    assert at("ai_provider_latency_ms_bucket", **by_model, le="+Inf") == 3
    assert at("ai_provider_latency_ms_count", **by_model) == 3
    assert at("ai_provider_latency_ms_sum", **by_model) == 400_201
    assert at("orrery_queue_jobs", lane="batch", state="queued") == 0
    assert at("orrery_workers", state="running") == 0


def test_counters_survive_restarts_and_retention(
    http: httpx.Client, settings: Settings, serve: Callable[..., httpx.Client], ledger: Ledger
) -> None:
    ledger.record(call())
    ledger.db.execute("TRUNCATE usage_hourly, ai_usage_analytics")
    ledger.record(call())
    for process in (http, serve(settings)):
        assert (
            value(process, "ai_provider_requests_total", **LABELS, outcome="succeeded", error_class="") == 2
        )


def test_the_error_rate_is_of_the_last_minutes(api: Api, http: httpx.Client, ledger: Ledger) -> None:
    provider = api.made(
        "/providers",
        {"slug": "acme", "name": "Acme", "type": "openai_compatible", "base_url": "http://127.0.0.1:9/v1"},
    )
    made = {"provider_id": provider["id"]}
    ledger.record(*(call(**made) for _ in range(3)), call(**made, outcome="failed", error_class="timeout"))
    assert value(http, "ai_provider_error_rate", provider="acme") == 0.25


def test_only_this_machine_and_tokens_with_the_scope_may_read(http: httpx.Client, people: People) -> None:
    behind = {"X-Forwarded-For": "203.0.113.7"}

    def status(caller: Api, **headers: str) -> int:
        token = {"Authorization": f"Bearer {caller.token}"} if caller.token else {}
        return http.get("/metrics", headers={**token, **headers}).status_code

    assert status(people.nobody()) == 200
    assert status(people.nobody(), **behind) == 401
    assert status(people.application(), **behind) == 403
    assert status(people.application("metrics"), **behind) == 200
    assert status(people.admin("admin"), **behind) == 200
    assert people.application("metrics").get("/jobs").status_code == 403
