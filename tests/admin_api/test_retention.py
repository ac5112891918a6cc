"""Policies of retention, and erasing an end user's data, over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from store.settings import Settings
from tests.admin_api.conftest import Api, Json, People
from tests.canaries import told
from tests.rows import Rows
from tests.sandbox import Sandbox
from tests.workers.conftest import until
from workers.doorbells import LANES
from workers.run import WorkerProcess

CANARY = "Ada Lovelace of St James's Square"
FEATURE = "chat_assistant"
SPEECH = "notifications_tts"


# --- policies -----------------------------------------------------------------------------------------


def test_everything_is_kept_until_a_policy_says_otherwise(api: Api, people: People) -> None:
    assert [(one["table_name"], one["keep_days"]) for one in api.get("/retention").json()["items"]] == [
        ("ai_usage_analytics", None),
        ("job_history", None),
    ]

    changed = api.patch("/retention/job_history", {"keep_days": 90})

    assert changed.json()["keep_days"] == 90
    assert changed.json()["updated_by"] is not None
    kept = {one["table_name"]: one["keep_days"] for one in api.get("/retention").json()["items"]}
    assert kept == {"ai_usage_analytics": None, "job_history": 90}
    assert api.patch("/retention/job_history", {"keep_days": None}).json()["keep_days"] is None
    audited = people.run("SELECT noun_id, before, after FROM audit_log WHERE noun = 'retention' ORDER BY id")
    assert audited == [
        ("job_history", {"keep_days": None}, {"keep_days": 90}),
        ("job_history", {"keep_days": 90}, {"keep_days": None}),
    ]


@pytest.mark.parametrize(
    ("table", "keep_days", "status"),
    [
        ("job_history", 0, 422),
        ("job_history", 36_501, 422),
        ("job_history", "90", 422),
        ("job_history", 1, 200),
        ("ai_usage_analytics", 30, 422),
        ("ai_usage_analytics", 31, 200),
        ("audit_log", 90, 404),
    ],
)
def test_what_a_policy_may_be(api: Api, table: str, keep_days: Any, status: int) -> None:
    """Monthly limits of personal keys are summed up from a month's calls."""
    answer = api.patch(f"/retention/{table}", {"keep_days": keep_days})
    assert answer.status_code == status
    if status == 422:
        assert answer.json()["errors"][0]["field"] == "keep_days"


def test_the_version_of_the_configuration_stays(api: Api, people: People) -> None:
    before = people.run("SELECT version FROM config_state")
    api.patch("/retention/job_history", {"keep_days": 5})
    assert people.run("SELECT version FROM config_state") == before


def test_a_feature_says_what_is_kept_of_its_jobs(api: Api) -> None:
    made = api.get(f"/features/{FEATURE}").json()
    assert (made["keep_days"], made["store_input"], made["store_output"]) == (None, True, True)
    changed = api.patch(f"/features/{FEATURE}", {"keep_days": 7, "store_input": False}).json()
    assert (changed["keep_days"], changed["store_input"], changed["store_output"]) == (7, False, True)
    refused = api.patch(f"/features/{FEATURE}", {"keep_days": 0})
    assert refused.status_code == 422


# --- erasure ------------------------------------------------------------------------------------------


@pytest.fixture
def worker(settings: Settings, rows: Rows, sandbox: Sandbox) -> Iterator[WorkerProcess]:
    provider = rows.provider("p", sandbox.openai)
    rows.assign(FEATURE, rows.model(provider, "m"), user="{{ message }}")
    rows.assign(SPEECH, rows.model(provider, "s", capabilities=["speech"]), parameters={"voice": "alloy"})
    worker = WorkerProcess(settings, lanes=LANES, threads=4)
    worker.start()
    yield worker
    worker.stop()


def ran(api: Api, feature: str = FEATURE, **members: Any) -> Json:
    """A job of Ada's that has ended."""
    asked = {"text": CANARY} if feature == SPEECH else {"message": f"Hello, I am {CANARY}."}
    body = {"feature": feature, "input": asked, "user_id": "ada", "metadata": {"of": CANARY}, **members}
    job = api.made("/jobs", body)
    until(lambda: api.get(f"/jobs/{job['id']}").json()["finished_at"] is not None)
    ended: Json = api.get(f"/jobs/{job['id']}").json()
    return ended


def test_nothing_of_an_end_user_is_left_but_that_jobs_ran(
    api: Api, people: People, settings: Settings, worker: WorkerProcess
) -> None:
    text = ran(api, callback_url="https://hooks.example.com/x")
    heard = ran(api, SPEECH)
    other = ran(api, user_id="ben")
    waiting = api.made(
        "/jobs",
        {
            "feature": FEATURE,
            "input": {"message": CANARY},
            "user_id": "ada",
            "run_at": "2999-01-01T00:00:00Z",
        },
    )
    assert (text["state"], heard["state"]) == ("succeeded", "succeeded"), heard["error"]
    before = people.run("SELECT sum(cost_usd), count(*) FROM ai_usage_analytics WHERE user_id = 'ada'")

    answer = api.post("/erasures", {"user_id": "ada"})

    assert answer.json() == {"jobs": 3, "artifacts": 1}
    for job_id in (text["id"], heard["id"], waiting["id"]):
        job = api.get(f"/jobs/{job_id}").json()
        assert (job["input"], job["metadata"], job["result"]) == ({}, {}, None)
        assert job["erased_at"] is not None
        assert job["user_id"] == "ada"
    assert api.get(f"/jobs/{waiting['id']}").json()["state"] == "cancelled"
    assert api.get(f"/jobs/{heard['id']}/artifact").status_code == 404
    assert api.get(f"/jobs/{text['id']}").json()["cost_usd"] == text["cost_usd"]
    usage = people.run("SELECT sum(cost_usd), count(*) FROM ai_usage_analytics WHERE user_id = 'ada'")
    assert usage == before
    assert api.get(f"/jobs/{other['id']}").json()["metadata"] == {"of": CANARY}
    people.run("DELETE FROM job_history WHERE user_id = 'ben'")
    assert _left(people, settings) == []
    assert api.post("/erasures", {"user_id": "ada"}).json() == {"jobs": 0, "artifacts": 0}
    acts = people.run("SELECT action, noun_id FROM audit_log WHERE noun = 'erasures' ORDER BY id")
    assert acts == [("erase", "ada")] * 2


def _left(people: People, settings: Settings) -> list[str]:
    """Where the canary still stands."""
    rows = {
        table: str(people.run(f"SELECT row_to_json({table})::text FROM {table}"))
        for table in ("jobs", "job_history", "notices", "ai_usage_analytics", "audit_log", "idempotency_keys")
    }
    files = {
        str(path): path.read_bytes().hex()
        for path in Path(settings.artifacts_url).rglob("*")
        if path.is_file()
    }
    assert rows["notices"] != "[]"
    return [line for place, content in rows.items() for line in told(place, content, [CANARY])] + list(files)


def test_an_erased_job_is_not_run_again(api: Api, worker: WorkerProcess) -> None:
    job = ran(api)
    api.post("/erasures", {"user_id": "ada"})

    refused = api.post(f"/jobs/{job['id']}/retry")

    assert refused.status_code == 422
    assert "erased" in refused.json()["detail"]
    many = api.post("/jobs/retry", {"user_id": "ada", "state": "succeeded"}).json()
    assert (many["retried"], [one["id"] for one in many["refused"]]) == (0, [job["id"]])


def test_many_jobs_are_erased_page_by_page(api: Api, people: People) -> None:
    people.run(
        "INSERT INTO job_history (id, feature, capability, lane, priority, state, input, metadata, user_id, "
        "created_at, run_at, finished_at, run, retries, calls, result, error_message) "
        "SELECT new_id(), 'cv_draft', 'text', 'batch', 0, 'succeeded', '{\"a\": 1}', '{\"b\": 1}', "
        "CASE WHEN n <= 450 THEN 'ada' ELSE 'adam' END, now(), now(), now(), 1, 0, 1, '{\"c\": 1}', 'x' "
        "FROM generate_series(1, 500) AS n"
    )

    assert api.post("/erasures", {"user_id": "ada"}).json() == {"jobs": 450, "artifacts": 0}

    left = people.run("SELECT DISTINCT user_id FROM job_history WHERE input <> '{}' OR error_message = 'x'")
    assert left == [("adam",)]


def test_only_a_super_admin_with_a_second_factor_erases(people: People) -> None:
    for caller in (people.admin(mfa=False), people.admin("admin"), people.application()):
        assert caller.post("/erasures", {"user_id": "ada"}).status_code == 403
    assert people.run("SELECT FROM audit_log WHERE noun = 'erasures'") == []


def test_a_policy_has_an_address_of_its_own(api: Api) -> None:
    shown = api.get("/retention/job_history")

    assert shown.json()["table_name"] == "job_history"
    assert shown.headers["ETag"]
    changed = api.patch("/retention/job_history", {"keep_days": 90})
    assert changed.headers["ETag"] != shown.headers["ETag"]
    assert api.get("/retention/jobs").status_code == 404
