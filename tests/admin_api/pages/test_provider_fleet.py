"""What holds for all workers now, on a provider's page."""

from __future__ import annotations

from contextlib import closing

from routing.breaker import circuit
from routing.errors import AuthFailed, NotFound, ServerError
from store.settings import Settings
from tests.admin_api.conftest import Api
from tests.admin_api.nouns import KEY, model_body, provider_body
from tests.admin_api.pages.conftest import Browser, said
from tests.admin_api.test_fleet import Worker, call_of
from tests.workers.conftest import until
from workers.fleet import look


def test_the_page_tells_limits_the_fleets_breaker_and_what_rests(
    api: Api, reader: Browser, settings: Settings
) -> None:
    provider = api.made("/providers", provider_body("acme", api_key=KEY, requests_per_minute=600))
    call = call_of(provider, api.made("/models", model_body(provider)))
    with closing(Worker(settings)) as worker:
        for _ in range(5):
            permit = worker.breakers.admit(circuit(call.route.provider), probe_seconds=1)
            permit.failed(ServerError("broken", status=500))
        worker.cooldowns.refused(call, AuthFailed("no", status=401))
        worker.cooldowns.refused(call, NotFound("no such model", status=404))
        until(lambda: len(look(worker.line).resting) == 2 and look(worker.line).open)
        page = said(reader.get(f"/providers/{provider['id']}"))
    for words in (
        "600 requests a minute",
        "Open for all workers",
        "host:1",
        "Passed over",
        "the key",
        "acme-1",
    ):
        assert words in page
    assert "not enforced" not in page
