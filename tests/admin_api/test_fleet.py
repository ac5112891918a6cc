"""What holds for all workers now: seen in a provider's health, in explain and in the metrics."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from uuid import UUID

import httpx
import pytest

from routing.breaker import Breakers, circuit
from routing.cooldowns import Cooldowns
from routing.errors import AuthFailed, NotFound, RateLimited, ServerError
from routing.values import Call
from store.settings import Settings
from tests.admin_api.conftest import Api, Json
from tests.admin_api.nouns import KEY, assigned, model_body, provider_body
from tests.admin_api.test_explain import explained
from tests.routing import factories
from tests.workers.conftest import until
from workers.fleet import Fleet, look
from workers.line import Line


class Worker:
    """As much of a worker process as the others hear of."""

    def __init__(self, settings: Settings) -> None:
        self.line = Line(settings.redis())
        self.fleet = Fleet(self.line, "host:1")
        self.breakers = Breakers(cooldown=30, fleet=self.fleet)
        self.cooldowns = Cooldowns(board=self.fleet)
        self.fleet.start(self.breakers, self.cooldowns)

    def close(self) -> None:
        self.fleet.stop()
        self.line.close()


@pytest.fixture
def worker(settings: Settings) -> Iterator[Worker]:
    worker = Worker(settings)
    yield worker
    worker.close()


def call_of(provider: Json, model: Json) -> Call:
    """A call that a worker would make of these rows."""
    owner = factories.provider(
        provider["base_url"], slug=provider["slug"], key_version=provider["key_version"]
    )
    owner = replace(owner, id=UUID(provider["id"]))
    route = factories.route(owner)
    return factories.call(
        to=replace(route, model=replace(route.model, id=UUID(model["id"]), model_id=model["model_id"]))
    )


def test_a_providers_health_tells_limits_breaker_and_what_rests(
    api: Api, http: httpx.Client, worker: Worker
) -> None:
    provider = api.made("/providers", provider_body("acme", api_key=KEY, requests_per_minute=600))
    model = api.made("/models", model_body(provider))
    path = f"/providers/{provider['id']}/health"
    before = api.get(path).json()
    assert before["limits"] == {
        "requests_per_minute": 600,
        "tokens_per_minute": None,
        "max_concurrency": None,
    }
    assert (before["fleet_breaker"], before["resting"]) == (None, [])
    call = call_of(provider, model)
    for _ in range(5):
        worker.breakers.admit(circuit(call.route.provider), probe_seconds=1).failed(
            ServerError("x", status=500)
        )
    worker.cooldowns.refused(call, AuthFailed("no", status=401))
    worker.cooldowns.refused(call, RateLimited("slow", status=429, retry_after=9))
    until(lambda: len(look(worker.line).resting) == 2 and look(worker.line).open)
    found = api.get(path).json()
    assert found["fleet_breaker"]["opened_by"] == "host:1"
    assert sorted((one["what"], one["error_class"], one["model"]) for one in found["resting"]) == [
        ("key", "auth", None),
        ("route", "rate_limited", "acme-1"),
    ]
    metrics = http.get("/metrics").text
    assert 'orrery_provider_breaker_open{provider="acme"} 1.0' in metrics
    assert 'orrery_provider_resting{error_class="auth",provider="acme"} 1.0' in metrics


def test_explain_passes_over_what_rests_until_the_key_is_replaced(api: Api, worker: Worker) -> None:
    assignment = assigned(api, models=2)
    provider = api.get("/providers").json()["items"][0]
    models = {one["model_id"]: one for one in api.get("/models").json()["items"]}
    worker.cooldowns.refused(call_of(provider, models["m0"]), NotFound("no such model", status=404))
    until(lambda: len(look(worker.line).resting) == 1)
    found = explained(api, assignment)
    assert found["winner"]["model"] == "m1"
    first = found["candidates"][0]
    assert (first["verdict"], first["error_class"]) == ("passed_over", "not_found")
    assert "passed over until" in first["reason"]
    worker.cooldowns.refused(call_of(provider, models["m1"]), AuthFailed("no", status=401))
    until(lambda: len(look(worker.line).resting) == 2)
    assert explained(api, assignment)["winner"] is None
    api.patch(f"/providers/{provider['id']}", {"api_key": KEY})
    assert explained(api, assignment)["winner"]["model"] == "m1"
