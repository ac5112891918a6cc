"""Alerts, as people see and acknowledge them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from store.settings import Settings
from tests.admin_api.conftest import Api, Json, People
from tests.rows import Rows
from tests.usage_rows import Ledger, call
from workers.client import Client


@pytest.fixture
def ledger(settings: Settings) -> Iterator[Ledger]:
    ledger = Ledger(settings)
    yield ledger
    ledger.close()


def listed(api: Api, query: str = "") -> list[Json]:
    answer = api.get(f"/alerts{query}")
    assert answer.status_code == 200, answer.text
    items: list[Json] = answer.json()["items"]
    return items


def test_an_alert_is_raised_listed_and_acknowledged(api: Api, ledger: Ledger) -> None:
    ledger.record(call(cost_usd=None), call(cost_usd=None))
    [alert] = listed(api)
    assert (alert["kind"], alert["noun"], alert["count"]) == ("unknown_price", "models", 2)
    assert "Add a price" in alert["message"]
    done = api.post(f"/alerts/{alert['id']}/acknowledge")
    assert done.status_code == 200, done.text
    assert done.json()["acknowledged_at"] is not None
    assert api.post(f"/alerts/{alert['id']}/acknowledge").json() == done.json()
    assert listed(api, "?acknowledged=false") == []
    assert listed(api, "?acknowledged=true&kind=unknown_price&noun=models") == [done.json()]
    assert listed(api, "?kind=poison_job") == []
    [entry] = api.get("/audit?noun=alerts").json()["items"]
    assert (entry["action"], entry["noun_id"]) == ("acknowledge", alert["id"])


def test_pages_are_newest_first(api: Api, ledger: Ledger) -> None:
    ledger.db.execute(
        "INSERT INTO alerts (kind, noun, noun_id, message, first_seen_at) "
        "SELECT 'poison_job', 'jobs', n::text, 'x', now() - n / 2 * interval '1 min' "
        "FROM generate_series(1, 9) AS n"
    )
    first = api.get("/alerts?limit=5").json()
    second = api.get(f"/alerts?limit=5&cursor={first['next_cursor']}").json()
    items = [*first["items"], *second["items"]]
    assert second["next_cursor"] is None
    assert len({item["id"] for item in items}) == 9
    times = [item["first_seen_at"] for item in items]
    assert times == sorted(times, reverse=True)


def test_where_no_worker_runs_whoever_looks_is_told(
    api: Api, rows: Rows, client: Client, ledger: Ledger
) -> None:
    rows.assign("cv_draft", rows.model(rows.provider("acme", "http://127.0.0.1:9/v1"), "m"))
    client.enqueue("cv_draft", {"profile": {"name": "Ada"}, "job": "Astronomer"})
    ledger.db.execute("UPDATE jobs SET run_at = now() - interval '1 min'")
    [alert] = listed(api)
    assert (alert["kind"], alert["noun"], alert["noun_id"]) == ("lane_unserved", "queues", "standard")


def test_acknowledging_takes_a_super_admin_with_a_second_factor(people: People, ledger: Ledger) -> None:
    ledger.record(call(cost_usd=None))
    [alert] = listed(people.admin("admin"))
    path = f"/alerts/{alert['id']}/acknowledge"
    assert people.admin("admin").post(path).status_code == 403
    assert people.admin(mfa=False).post(path).status_code == 403
    assert people.application().get("/alerts").status_code == 403
    missing = people.admin().post("/alerts/00000000-0000-7000-8000-000000000009/acknowledge")
    assert missing.status_code == 404
