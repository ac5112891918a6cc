"""No page is large: each is measured as a busy installation fills it, with all that it loads, unpacked."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from psycopg.types.json import Jsonb

from admin_api.pages import route
from store.ids import new_id
from store.settings import Settings
from tests import busy
from tests.admin_api.conftest import Api, Json, People
from tests.admin_api.pages.conftest import Browser
from tests.admin_api.test_jobs import finish
from tests.admin_api.test_schedules import schedule_body
from tests.ui.work import SIGNS
from tests.usage_rows import Ledger
from workers import alerts, presence
from workers.alerts import Alert
from workers.presence import Presence

LARGEST = 60_000  # bytes
MOST_REQUESTS = 8

MORE = (
    *("/jobs?state=failed", "/jobs?provider=anthropic&feature=emergency_assistant&user_id=user-000123"),
    *("/jobs/{chained_id}", "/jobs?group_id={group_id}", "/schedules/new?feature=daily_zodiac_text"),
    *("/jobs?state=queued", "/usage?days=1", "/usage?days=30", "/usage?days=90", "/usage?days=30&by=user"),
    *(
        "/usage?days=30&by=model",
        "/usage?days=30&by=feature",
        "/usage?days=1&by=hour",
        "/usage?days=30&by=day",
    ),
    *("/usage?days=30&provider=anthropic&by=model", "/alerts?acknowledged=any", "/catalog?vendor=openai"),
    *("/models/new?provider={provider_id}", "/playground?feature=emergency_assistant", "/audit?noun=models"),
    *("/setup/provider?vendor=openai", "/setup/model?provider={provider_id}", "/setup/run?feature={feature}"),
    *("/setup/test?provider={provider_id}", "/setup/assign?provider={provider_id}&model={model_id}"),
)
NO_PAGE = re.compile(
    r"artifact|/events$|\.csv|\.json|download|^/static|^/account/second-factor|^/login|^/setup/|^/test/|^/$"
)


def _configured(api: Api) -> list[Json]:
    """Vendors with models, each assigned; integrations and tokens. The models."""
    models = busy.configure(api.made)
    features = api.get("/features?limit=200").json()["items"]
    for at, feature in enumerate(each for each in features if each["capability"] == "text"):
        targets = [{"model_id": models[(at + place) % len(models)]["id"]} for place in range(3)]
        api.made("/feature-assignments", {"feature_name": feature["name"], "targets": targets})
        api.made("/tokens", {"name": f"Application of {feature['name']}", "scopes": ["jobs:enqueue"]})
    for name in ("slack_alerts", "pager", "crm_webhook"):
        body = {"name": name, "type": "webhook", "endpoint": f"https://example.com/{name}"}
        api.made("/integrations", body)
    return models


def _worked(settings: Settings, models: list[Json], features: list[str]) -> None:
    """A past that is counted, jobs that wait and run, worker processes and alerts."""
    ledger = Ledger(settings)
    busy.work(ledger.db, models, features)
    ledger.record()
    for number in range(6):
        worker = Presence(f"worker-7f9c4b{number}:4711", ("standard", "batch"), 64, "1.2.3", 60)
        presence.arrive(ledger.db, worker)
        presence.beat(ledger.db, worker, in_flight=64, is_stopping=False)
    for number in range(600):
        _wait(ledger.db, features[number % len(features)], number)
    told = [Alert("key_refused", "providers", each["id"], f"{each['slug']}: {busy.ERROR}") for each in models]
    alerts.raise_all(ledger.db, told)
    ledger.close()


def _wait(db: psycopg.Connection[Any], feature: str, number: int) -> None:
    is_running = number < 60
    row = {
        "id": new_id(),
        "feature": feature,
        "capability": "text",
        "lane": "standard",
        "input": Jsonb({"message": "What do the stars say about Tuesday?"}),
        "user_id": f"user-{number:06}",
        "state": "running" if is_running else "queued",
        "worker": f"worker-7f9c4b{number % 6}:4711" if is_running else None,
        "started_at": datetime.now(UTC) if is_running else None,
    }
    names, places = ", ".join(row), ", ".join(["%s"] * len(row))
    db.execute(f"INSERT INTO jobs ({names}) VALUES ({places})".encode(), list(row.values()))


def _scheduled(api: Api, people: People) -> dict[str, str]:
    """Schedules that have fired often, the last time with all signs in three languages, text and speech."""
    then = [{"feature_name": "daily_zodiac_tts", "input_map": {"text": "result.text"}}]
    matrix = {"sign": SIGNS, "language": ["en", "de", "ar"], "date": "{{ date }}"}
    made = [
        api.made(
            "/schedules",
            schedule_body(f"Horoscopes of the morning {n}", inputs_matrix=matrix, then=then),
        )
        for n in range(25)
    ]
    group = api.made(f"/schedules/{made[0]['id']}/run-now", {})["group_id"]
    jobs = api.get(f"/jobs?group_id={group}&limit=200").json()["items"]
    for job in jobs:
        result = {"text": "The stars are kind to you today, and tomorrow they will be, too. " * 8}
        finish(people, job["id"], result=Jsonb(result), provider="anthropic", model="claude-haiku-4-5")
    for spoken in api.get(f"/jobs?group_id={group}&state=queued&limit=200").json()["items"]:
        finish(people, spoken["id"], result=Jsonb({"media_type": "audio/wav"}), artifact_key="a/1.wav")
    for days in range(1, 40):
        people.run(
            "INSERT INTO fires (schedule_id, instant, kind, fired_at, error) "
            "SELECT id, now() - %s * interval '1 day', 'scheduled', now(), %s FROM schedules",
            [days, busy.ERROR],
        )
    people.run("UPDATE schedule_state SET next_at = now() + interval '1 h'")
    return {"schedule_id": made[0]["id"], "group_id": group, "chained_id": jobs[0]["id"]}


def _size(desk: Browser, address: str) -> tuple[int, int]:
    """Bytes and requests."""
    answer = desk.get(address)
    assert answer.status_code == 200, address
    files = set(re.findall(r'(?:href|src)="(/static/[^"]+)"', answer.text))
    return len(answer.content) + sum(len(desk.get(file).content) for file in files), 1 + len(files)


@pytest.mark.usefixtures("admin")
def test_every_page_of_a_busy_installation_is_small(
    desk: Browser, api: Api, people: People, settings: Settings
) -> None:
    models = _configured(api)
    features = [each["name"] for each in api.get("/features?limit=200").json()["items"]]
    _worked(settings, models, features)
    ((admin_id,),) = people.run("SELECT id FROM admins ORDER BY id LIMIT 1")
    ((failed,),) = people.run(
        "SELECT id FROM job_history WHERE state = 'failed' ORDER BY finished_at LIMIT 1"
    )
    ids = {
        "job_id": failed,
        "provider_id": models[0]["provider_id"],
        "model_id": models[0]["id"],
        "feature": "emergency_assistant",
        "name": "emergency_assistant",
        "admin_id": admin_id,
        "integration_id": api.get("/integrations").json()["items"][0]["id"],
        "table_name": "job_history",
        "budget_id": api.made("/budgets", {"scope": "global", "period": "day", "limit_usd": "9"})["id"],
        **_scheduled(api, people),
        "entry_id": api.get("/audit?noun=models").json()["items"][0]["id"],
    }
    paths = [*(path for path in route.pages() if not NO_PAGE.search(path)), *MORE]
    addresses = [re.sub(r"{(\w+)}", lambda key: quote(str(ids[key[1]])), path) for path in paths]
    sizes = {address: _size(desk, address) for address in addresses}
    print(
        *(f"{size:6} {requests} {at}" for at, (size, requests) in sorted(sizes.items(), key=_by_size)),
        sep="\n",
    )
    assert {at: each for at, each in sizes.items() if each[0] > LARGEST or each[1] > MOST_REQUESTS} == {}


def _by_size(pair: tuple[str, tuple[int, int]]) -> int:
    return pair[1][0]
