"""Schedules and groups over HTTP; when they fire is in tests/workers."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from store.database import Pool, Role, open_pool
from store.settings import Settings
from tests.admin_api.conftest import Api, Json, People
from tests.admin_api.nouns import assigned, feature_body
from tests.rows import Rows
from tests.sandbox import Sandbox
from tests.usage_rows import Ledger, call
from tests.workers.conftest import until
from workers.doorbells import LANES
from workers.run import WorkerProcess
from workers.scheduler import Scheduler

TTS = {"feature_name": "daily_zodiac_tts", "input_map": {"text": "result.text"}}


def schedule_body(name: str = "Morning", **members: Any) -> Json:
    return {
        "name": name,
        "cron": "0 6 * * *",
        "timezone": "Europe/Berlin",
        "feature_name": "daily_zodiac_text",
        "inputs_matrix": {"sign": ["aries", "leo"], "date": "{{ date }}"},
        **members,
    }


def test_a_schedule_is_made_read_changed_and_deleted(api: Api) -> None:
    made = api.made("/schedules", schedule_body(then=[TTS], callback_url="https://app.example/hook"))

    path = f"/schedules/{made['id']}"
    assert api.get(path).json() == made
    assert made["then"] == [{**TTS, "on_failure": "stop"}]
    assert (made["catch_up"], made["is_active"], made["last_fire"]) == ("latest", True, None)
    assert datetime.fromisoformat(made["next_fire_at"]).hour in (4, 5)
    paused = api.patch(path, {"is_active": False, "cron": "@hourly"}).json()
    assert (paused["cron"], paused["next_fire_at"]) == ("0 * * * *", None)
    assert api.put(path, schedule_body("Evening")).json()["then"] == []
    assert [one["id"] for one in api.get("/schedules?feature_name=daily_zodiac_text").json()["items"]] == [
        made["id"]
    ]
    assert api.get("/schedules?feature_name=tarot_reading").json()["items"] == []
    assert api.delete(path).status_code == 204
    assert api.get(path).status_code == 404


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"cron": "0 6 * *"}, "cron"),
        ({"cron": "99 6 * * *"}, "cron"),
        ({"cron": "0 0 31 2 *"}, "cron"),
        ({"timezone": "Mars/Olympus"}, "timezone"),
        ({"feature_name": "no_such"}, "feature_name"),
        ({"inputs_matrix": {"sign": ["aries", "dragon"]}}, "inputs_matrix/sign"),
        ({"inputs_matrix": {}}, "inputs_matrix/sign"),
        ({"inputs_matrix": {"sign": []}}, "inputs_matrix/sign"),
        ({"inputs_matrix": {"sign": "leo", "date": "{{ tomorrow }}"}}, "inputs_matrix/date"),
        ({"inputs_matrix": {"sign": "leo", "date": "{{ date"}}, "inputs_matrix/date"),
        ({"inputs_matrix": {"sign": ["leo"] * 101, "date": ["2026-01-01"] * 100}}, "inputs_matrix"),
        ({"then": [{"feature_name": "no_such"}]}, "then/0/feature_name"),
        ({"then": [{**TTS, "input_map": {"language": "en"}}]}, "then/0/input_map/text"),
        ({"then": [{**TTS, "when": "always"}]}, "then/0/when"),
        ({"catch_up": "some"}, "catch_up"),
        (
            {"feature_name": "chat_assistant", "inputs_matrix": {"message": "Hi."}, "use_batch_api": True},
            "use_batch_api",
        ),
        ({"deadline_minutes": 0}, "deadline_minutes"),
        ({"callback_url": "ftp://app.example/"}, "callback_url"),
        ({"callback_url": "https://user:word@app.example/"}, "callback_url"),
        ({"name": " "}, "name"),
        ({"priority": 101}, "priority"),
    ],
)
def test_what_is_wrong_is_named(members: Json, field: str, api: Api) -> None:
    refused = api.post("/schedules", schedule_body(**members))
    assert refused.status_code == 422, refused.text
    assert refused.json()["errors"][0]["field"] == field
    assert api.get("/schedules").json()["items"] == []


def test_a_name_is_taken_once(api: Api) -> None:
    api.made("/schedules", schedule_body())
    refused = api.post("/schedules", schedule_body())
    assert refused.status_code == 409
    assert refused.json()["errors"][0]["field"] == "name"


def test_a_preview_shows_the_change_of_the_clocks(api: Api) -> None:
    shown = api.post(
        "/schedules/preview",
        {"cron": "30 2 * * *", "timezone": "Europe/Berlin", "after": "2027-03-27T12:00:00Z"},
    ).json()
    assert shown["items"][:2] == ["2027-03-28T01:00:00Z", "2027-03-29T00:30:00Z"]
    assert shown["local"][:2] == ["2027-03-28T03:00:00+02:00", "2027-03-29T02:30:00+02:00"]
    assert len(shown["items"]) == len(shown["local"]) == 10
    refused = api.post("/schedules/preview", {"cron": "soon", "timezone": "UTC"})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["field"] == "cron"


def test_a_feature_that_a_schedule_needs_stays(api: Api) -> None:
    api.made("/features", feature_body())
    made = api.made("/schedules", schedule_body(feature_name="greeting", inputs_matrix={}))
    refused = api.delete("/features/greeting")
    assert refused.status_code == 409
    assert "Morning" in refused.json()["detail"]
    assert api.delete(f"/schedules/{made['id']}").status_code == 204
    assert api.delete("/features/greeting").status_code == 204


def test_run_now_and_the_progress_of_its_group(
    api: Api, rows: Rows, sandbox: Sandbox, settings: Settings
) -> None:
    provider = rows.provider("p", sandbox.openai)
    rows.assign("daily_zodiac_text", rows.model(provider, "m"), user="{{ sign }}")
    rows.assign(
        "daily_zodiac_tts",
        rows.model(provider, "tts", capabilities=["speech"]),
        user="{{ text }}",
        parameters={"voice": "alloy"},
    )
    made = api.made("/schedules", schedule_body(then=[TTS], is_active=False))
    path = f"/schedules/{made['id']}"

    answer = api.post(f"{path}/run-now")

    assert answer.status_code == 202, answer.text
    fire = answer.json()
    assert (fire["kind"], fire["jobs"], fire["error"]) == ("manual", 2, None)
    group = api.get(f"/groups/{fire['group_id']}").json()
    assert (group["state"], group["expected"], group["total"], group["done"]) == ("running", 4, 2, 0)
    assert group["name"] == "Morning"
    worker = WorkerProcess(settings, lanes=LANES, threads=2)
    worker.start()
    try:
        until(lambda: api.get(f"/groups/{fire['group_id']}").json()["state"] == "finished")
    finally:
        worker.stop()
    group = api.get(f"/groups/{fire['group_id']}").json()
    assert (group["total"], group["done"], group["succeeded"], group["failed"]) == (4, 4, 4, 0)
    jobs = api.get(f"/jobs?group_id={fire['group_id']}").json()["items"]
    assert sorted(job["feature"] for job in jobs) == ["daily_zodiac_text"] * 2 + ["daily_zodiac_tts"] * 2
    spoken = api.get(f"/jobs/{jobs[0]['id']}").json()
    assert [link["id"] for link in spoken["chain"]] == [spoken["parent_id"], spoken["id"]]
    assert spoken["result"]["artifact_url"]
    assert api.get(path).json()["last_fire"] == fire
    assert api.get("/groups").json()["items"] == [group]
    second = api.post(f"{path}/run-now").json()
    first_page = api.get(f"{path}/fires?limit=1").json()
    assert first_page["items"] == [second]
    assert api.get(f"{path}/fires?cursor={first_page['next_cursor']}").json()["items"] == [fire]


def test_what_cannot_run_now_says_why(api: Api) -> None:
    made = api.made("/schedules", schedule_body())
    refused = api.post(f"/schedules/{made['id']}/run-now")
    assert refused.status_code == 422, refused.text
    assert "daily_zodiac_text" in refused.json()["detail"]
    assert api.get(f"/schedules/{made['id']}/fires").json()["items"] == []


@pytest.fixture
def db(settings: Settings) -> Iterator[Pool]:
    pool = open_pool(settings.database(), Role.WORKER, size=2)
    yield pool
    pool.close()


def test_a_scheduler_fires_what_the_api_was_told(api: Api, db: Pool) -> None:
    assigned(api, "daily_zodiac_text", prompt_template={"user": "{{ sign }}"})
    made = api.made("/schedules", schedule_body(cron="* * * * *"))
    scheduler = Scheduler(db)
    scheduler.start()
    try:
        until(lambda: api.get(f"/schedules/{made['id']}").json()["last_fire"], seconds=70)
    finally:
        scheduler.stop()
    fire = api.get(f"/schedules/{made['id']}").json()["last_fire"]
    assert (fire["kind"], fire["jobs"]) == ("scheduled", 2)


def test_applications_see_no_schedules_and_follow_their_own_chains(
    api: Api, people: People, sandbox: Sandbox
) -> None:
    assigned(api, "daily_zodiac_text", prompt_template={"user": "{{ sign }}"})
    application = people.application()
    assert application.get("/schedules").status_code == 403
    body = {
        "feature": "daily_zodiac_text",
        "input": {"sign": "leo"},
        "then": [TTS],
        "callback_url": "https://app.example/hook",
    }
    job = application.post("/jobs", body).json()
    assert (job["chain_id"], job["then"]) == (job["id"], [{**TTS, "on_failure": "stop"}])
    application.post(f"/jobs/{job['id']}/cancel")
    ended = application.get(f"/jobs/{job['id']}").json()
    assert ended["chain"] == [
        {"id": job["id"], "parent_id": None, "feature": "daily_zodiac_text", "state": "cancelled"}
    ]
    [callback] = ended["callbacks"]
    assert (callback["event"], callback["url"]) == ("job.finished", "https://app.example/hook")


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"then": [{"feature_name": "no_such"}]}, "then/0/feature_name"),
        ({"then": [{**TTS, "input_map": {"text": "{{ nowhere }}"}}]}, "then/0/input_map/text"),
        ({"then": {}}, "then"),
        ({"then": [TTS] * 11}, "then"),
        ({"callback_url": "javascript:alert(1)"}, "callback_url"),
    ],
)
def test_what_is_wrong_with_a_chain_is_named(members: Json, field: str, api: Api) -> None:
    assigned(api, "daily_zodiac_text", prompt_template={"user": "{{ sign }}"})
    body = {"feature": "daily_zodiac_text", "input": {"sign": "leo"}, **members}
    refused = api.post("/jobs", body)
    assert refused.status_code == 422, refused.text
    assert refused.json()["errors"][0]["field"] == field
    refused = api.post("/jobs/bulk", [body])
    assert refused.status_code == 422, refused.text
    assert refused.json()["errors"][0]["field"] == f"rows/0/{field}"


@pytest.fixture
def ledger(settings: Settings) -> Iterator[Ledger]:
    ledger = Ledger(settings)
    yield ledger
    ledger.close()


def test_a_forecast_is_firings_times_what_jobs_took_times_prices(api: Api, ledger: Ledger) -> None:
    assignment = assigned(api, "daily_zodiac_text", prompt_template={"user": "{{ sign }}"})
    model = assignment["targets"][0]["model_id"]
    api.patch(
        f"/models/{model}",
        {"input_price_per_1k": "1", "output_price_per_1k": "2", "batch_input_price_per_1k": "0.5",
         "batch_output_price_per_1k": "1"},
    )  # fmt: skip
    api.made("/schedules", schedule_body("Daily", then=[TTS]))
    api.made("/schedules", schedule_body("Cheap", use_batch_api=True, cron="0 12 * * *", timezone="UTC"))
    api.made("/schedules", schedule_body("Paused", is_active=False))
    budget = api.made("/budgets", {"scope": "feature", "scope_id": "daily_zodiac_text", "limit_usd": "1000"})
    nothing = api.get("/forecast?days=10").json()
    assert [item["cost_usd"] for item in nothing["items"]] == [None] * 3
    assert (nothing["cost_usd"], nothing["jobs"], nothing["unknown_jobs"]) == ("0", 60, 60)
    ledger.record(
        *(call(feature="daily_zodiac_text", input_tokens=tokens, output_tokens=200) for tokens in (80, 120))
    )

    found = api.get("/forecast?days=10").json()

    daily, spoken, cheap = found["items"]
    assert (daily["firings"], daily["jobs"], daily["input_tokens"], daily["output_tokens"]) == (
        10,
        20,
        2000,
        4000,
    )
    assert float(daily["cost_usd"]) == pytest.approx(20 * (0.1 * 1 + 0.2 * 2))
    assert float(cheap["cost_usd"]) == pytest.approx(float(daily["cost_usd"]) / 2)
    assert (spoken["feature"], spoken["cost_usd"]) == ("daily_zodiac_tts", None)
    assert float(found["cost_usd"]) == pytest.approx(15)
    assert found["unknown_jobs"] == 20
    [against] = found["budgets"]
    assert against["budget_id"] == budget["id"]
    assert 0 <= float(against["expected_usd"]) <= 15
    assert against["percent"] == pytest.approx(
        (float(against["spent_usd"]) + float(against["expected_usd"])) / 10, abs=0.01
    )


def test_batches_are_listed(api: Api, people: People) -> None:
    people.run(
        "INSERT INTO provider_batches (id, state, feature, provider_id, provider, model_row_id, model, jobs, "
        "config_version, assignment_id, key_version, live_at) "
        "SELECT id::uuid, state, 'tarot_reading', "
        "gen_random_uuid(), 'p', gen_random_uuid(), 'm', 7, 1, gen_random_uuid(), 1, now() FROM (VALUES "
        "('00000000-0000-7000-8000-000000000001', 'submitted'), "
        "('00000000-0000-7000-8000-000000000002', 'over')"
        ") AS made (id, state)"
    )
    newest, oldest = api.get("/batches").json()["items"]
    assert (newest["state"], oldest["state"], oldest["jobs"]) == ("over", "submitted", 7)
    page = api.get("/batches?limit=1").json()
    assert page["items"] == [newest]
    assert api.get(f"/batches?cursor={page['next_cursor']}").json()["items"] == [oldest]
    assert api.get("/batches?state=submitted").json()["items"] == [oldest]
    assert api.get("/batches?feature=none").json()["items"] == []


def test_a_change_is_not_lost_because_the_schedule_fired_meanwhile(api: Api) -> None:
    assigned(api, "daily_zodiac_text", prompt_template={"user": "{{ sign }}"})
    path = f"/schedules/{api.made('/schedules', schedule_body())['id']}"
    read = api.get(path).headers["etag"]
    api.post(f"{path}/run-now")
    assert api.get(path, headers={"If-None-Match": read}).status_code == 200, "what it shows has changed"
    changed = api.call("PATCH", path, {"priority": 5}, headers={"If-Match": read})
    assert changed.status_code == 200, changed.text
    lost = api.call("PATCH", path, {"priority": 6}, headers={"If-Match": read})
    assert lost.status_code == 412
