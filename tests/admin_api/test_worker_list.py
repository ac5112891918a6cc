"""The list of worker processes, and the health of providers."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from store.database import Role, open_pool
from store.settings import Settings
from tests.admin_api.conftest import Api, People
from tests.admin_api.nouns import provider_body
from tests.usage_rows import Ledger, call
from workers import presence
from workers.presence import Presence


@pytest.fixture
def ledger(settings: Settings) -> Iterator[Ledger]:
    ledger = Ledger(settings)
    yield ledger
    ledger.close()


def arrive(settings: Settings, *names: str) -> None:
    with open_pool(settings.database(), Role.WORKER, size=1) as pool, pool.connection() as db:
        for name in names:
            presence.arrive(db, Presence(name, ["batch", "standard"], 8, "1.2", beat_seconds=10))


def test_workers_are_listed_by_id_with_their_state(
    api: Api, people: People, settings: Settings, ledger: Ledger
) -> None:
    arrive(settings, "a:1", "b:2", "c:3")
    ledger.db.execute("UPDATE workers SET last_seen_at = now() - interval '31 s' WHERE id = 'b:2'")
    first = api.get("/workers?limit=2").json()
    second = api.get(f"/workers?limit=2&cursor={first['next_cursor']}").json()
    items = [*first["items"], *second["items"]]
    assert second["next_cursor"] is None
    assert [(item["id"], item["state"]) for item in items] == [
        ("a:1", "running"),
        ("b:2", "lost"),
        ("c:3", "running"),
    ]
    assert items[0]["lanes"] == ["batch", "standard"]
    assert (items[0]["threads"], items[0]["in_flight"], items[0]["version"]) == (8, 0, "1.2")
    assert people.admin("admin").get("/workers").status_code == 200
    assert people.application().get("/workers").status_code == 403


def test_health_comes_from_recent_calls(api: Api, settings: Settings, ledger: Ledger) -> None:
    provider = api.made("/providers", provider_body())
    path = f"/providers/{provider['id']}/health"
    unknown = api.get(path).json()
    assert unknown["status"] == "unknown"
    assert unknown["windows"]["5m"] == {
        "calls": 0,
        "failed": 0,
        "error_rate": None,
        "errors": {},
        "p50_ms": None,
        "p95_ms": None,
    }
    made, now = {"provider_id": provider["id"]}, datetime.now(UTC)
    bad = {**made, "outcome": "failed", "error_class": "server_error", "error_message": "boom"}
    ledger.record(
        *(call(**made, latency_ms=100) for _ in range(19)),
        call(**bad, finished_at=now - timedelta(seconds=30)),
        call(**made, finished_at=now - timedelta(minutes=20)),
        call(**made, finished_at=now - timedelta(hours=3)),
        call(**bad, finished_at=now - timedelta(hours=30)),
        call(**{**bad, "called": False}),
        call(),
    )
    health = api.get(path).json()
    assert {name: window["calls"] for name, window in health["windows"].items()} == {
        "5m": 20,
        "1h": 21,
        "24h": 22,
    }
    assert health["windows"]["5m"]["errors"] == {"server_error": 1}
    assert health["windows"]["5m"]["error_rate"] == 0.05
    assert 75 <= health["windows"]["5m"]["p50_ms"] <= 100
    assert health["status"] == "healthy"
    assert health["last_error"]["class"] == "server_error"
    assert health["last_error"]["message"] == "boom"
    assert health["last_success_at"] > health["last_error"]["at"]


def test_breakers_of_living_workers_decide(api: Api, settings: Settings, ledger: Ledger) -> None:
    provider = api.made("/providers", provider_body())
    path = f"/providers/{provider['id']}/health"
    arrive(settings, "a:1", "b:2")
    ledger.db.execute(
        "INSERT INTO worker_breakers (worker_id, provider_id, state) VALUES ('a:1', %s, 'open'), "
        "('b:2', %s, 'half_open')",
        [provider["id"], provider["id"]],
    )
    health = api.get(path).json()
    assert health["status"] == "down"
    assert [(b["worker"], b["state"]) for b in health["breakers"]] == [("a:1", "open"), ("b:2", "half_open")]
    ledger.db.execute("UPDATE workers SET last_seen_at = now() - interval '1 h' WHERE id = 'a:1'")
    assert api.get(path).json()["status"] == "degraded"
    ledger.db.execute("DELETE FROM workers WHERE id = 'b:2'")
    assert api.get(path).json() | {"status": "unknown"} == api.get(path).json()
    assert api.get("/providers/00000000-0000-7000-8000-000000000009/health").status_code == 404
