"""Jobs from outside: accepted, refused, watched, fetched."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import psycopg
import pytest
from psycopg.types.json import Jsonb
from pydantic import SecretStr

from store.settings import Settings
from tests.admin_api.conftest import Api, Json, People
from tests.admin_api.nouns import assigned, provider_body
from tests.workers.conftest import until
from workers.artifacts import Artifacts

JOB: Json = {"feature": "tarot_reading", "input": {"cards": ["The Fool"]}}
CLOSED_PORT = 1
KEPT = (
    "id, feature, capability, lane, priority, input, user_id, plan, metadata, token_id, created_at, run_at, "
    "group_id, parent_id, chain_id, follow_ups, callback_url"
)


def finish(people: People, job_id: str, **columns: Any) -> None:
    """End a queued job as a worker's completing statement does."""
    ending = {"state": "succeeded", "finished_at": datetime.now(UTC), **columns}
    people.run(
        "WITH ended AS (DELETE FROM jobs WHERE id = %s RETURNING *) "
        f"INSERT INTO job_history ({KEPT}, run, retries, calls, {', '.join(ending)}) "
        f"SELECT {KEPT}, 1, 0, 1, {', '.join(['%s'] * len(ending))} FROM ended",
        [job_id, *ending.values()],
    )


def test_a_job_is_accepted(api: Api, people: People) -> None:
    assigned(api)
    later = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    members = {"user_id": "u1", "plan": "free", "priority": -5, "metadata": {"order": 7}}
    made = api.post("/jobs", JOB | members | {"run_at": later.isoformat(), "deadline_seconds": 7200})
    assert made.status_code == 202
    job = made.json()
    assert made.headers["location"] == f"/api/v1/jobs/{job['id']}"
    assert UUID(job["id"]).version == 7
    assert job["state"] == "queued"
    assert {name: job[name] for name in members} == members
    assert datetime.fromisoformat(job["run_at"]) == later

    read = api.get(f"/jobs/{job['id']}").json()
    assert {name for name in job if job[name] != read[name]} <= {"created_at"}
    ((deadline, caller),) = people.run("SELECT deadline_at - run_at, caller_admin_id FROM jobs")
    assert deadline == timedelta(hours=2)
    assert caller is not None
    listed = api.get("/jobs").json()["items"]
    assert [item["id"] for item in listed] == [job["id"]]
    assert not {"result", "attempts", "input"} & listed[0].keys()


def test_a_bad_job_names_field_and_fix(api: Api, people: People) -> None:
    cases: list[tuple[Json, str, str]] = [
        ({"feature": "nothing"}, "feature", "no feature"),
        ({"feature": "cv_draft", "input": {}}, "feature", "Assign a model"),
        ({"priority": 101}, "priority", "100"),
        ({"run_at": "2030-01-01T00:00:00"}, "run_at", "timezone"),
        ({"run_at": "0001-01-01T00:00:00+14:00"}, "run_at", "2000"),
        ({"deadline_seconds": 0}, "deadline_seconds", "greater"),
        ({"metadata": []}, "metadata", "dictionary"),
        ({"user_id": ""}, "user_id", "1"),
        ({"provider": "acme"}, "provider", "no such field"),
    ]
    for members, field, said in cases:
        refused = api.post("/jobs", JOB | members)
        assert refused.status_code == 422, members
        (error,) = refused.json()["errors"]
        assert error["field"] == field
        assert said in error["message"]

    assignment = assigned(api)
    for input_, field in (
        ({}, "input/cards"),
        ({"cards": 7}, "input/cards"),
        ({"cards": [1]}, "input/cards/0"),
    ):
        refused = api.post("/jobs", JOB | {"input": input_})
        assert refused.status_code == 422
        assert refused.json()["errors"][0]["field"] == field

    for path, fix in (
        (f"/models/{assignment['model_id']}", "Model"),
        (f"/feature-assignments/{assignment['id']}", "assignment"),
        ("/features/tarot_reading", "Feature"),
    ):
        api.patch(path, {"is_active": False})
        refused = api.post("/jobs", JOB)
        assert refused.status_code == 422
        assert refused.json()["type"] == "urn:orrery:problem:configuration"
        assert refused.json()["errors"][0]["field"] == "feature"
        assert fix in refused.json()["detail"]
        assert "Activate it" in refused.json()["detail"]
        api.patch(path, {"is_active": True})
    assert people.run("SELECT FROM jobs") == []
    assert api.post("/jobs", JOB).status_code == 202


def test_a_finished_job_is_shown_whole(api: Api, people: People) -> None:
    assigned(api)
    job = api.made("/jobs", JOB)
    finish(
        people,
        job["id"],
        result=Jsonb({"text": "You will travel.", "data": {"luck": 3}}),
        provider="acme",
        model="m0",
        config_version=17,
        input_tokens=10,
        output_tokens=20,
        cost_usd="0.0000012",
        latency_ms=431,
    )
    people.run(
        "INSERT INTO ai_usage_analytics (job_id, run, finished_at, started_at, feature, capability, lane, "
        "provider, model, called, cost_usd, n, outcome, error_class, status) "
        "SELECT id, 1, now(), now(), feature, capability, lane, 'acme', 'm0', true, 0.0000006, tried.* "
        "FROM job_history, "
        "(VALUES (1, 'failed', 'overloaded', 503), (2, 'succeeded', NULL, 200)) AS tried"
    )
    shown = api.get(f"/jobs/{job['id']}").json()
    assert shown["state"] == "succeeded"
    assert (shown["result"]["text"], shown["result"]["data"]) == ("You will travel.", {"luck": 3})
    assert shown["result"]["artifact_url"] is None
    assert (shown["provider"], shown["model"], shown["config_version"]) == ("acme", "m0", 17)
    assert (shown["cost_usd"], shown["latency_ms"], shown["error"]) == ("0.0000012", 431, None)
    assert shown["tokens"] == {
        "input": 10,
        "output": 20,
        "cached": None,
        "reasoning": None,
        "estimated": False,
    }
    assert [(a["outcome"], a["error_class"], a["status"]) for a in shown["attempts"]] == [
        ("failed", "overloaded", 503),
        ("succeeded", None, 200),
    ]
    assert shown["attempts"][0]["cost_usd"] == "0.0000006"


def test_a_failed_job_says_why(api: Api, people: People) -> None:
    assigned(api)
    job = api.made("/jobs", JOB)
    finish(people, job["id"], state="failed", error_class="auth", error_message="The key was refused.")
    shown = api.get(f"/jobs/{job['id']}").json()
    assert shown["error"] == {"class": "auth", "message": "The key was refused."}
    assert shown["result"] is None


def test_jobs_can_be_found(api: Api, people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    assigned(api)
    assigned(api, "cv_draft")
    ids = [api.made("/jobs", JOB | {"user_id": f"u{n % 2}"})["id"] for n in range(5)]
    other = api.made("/jobs", {"feature": "cv_draft", "input": {"profile": "Ada", "job": "x"}})["id"]
    finish(people, ids[0], state="failed", error_class="auth", error_message="No 100% luck")

    def found(**params: Any) -> list[str]:
        seen, cursor = [], None
        while True:
            page = api.get("/jobs", params={**params, "limit": 2, **({"cursor": cursor} if cursor else {})})
            seen += [item["id"] for item in page.json()["items"]]
            cursor = page.json()["next_cursor"]
            if cursor is None:
                return seen

    assert found() == [other, *reversed(ids)]
    assert found(feature="cv_draft") == [other]
    assert found(state="failed") == [ids[0]]
    assert found(user_id="u1") == [ids[3], ids[1]]
    assert found(q="100%") == [ids[0]]
    assert found(q="ada") == [other]
    assert found(q=ids[2]) == [ids[2]]
    monkeypatch.setattr("admin_api.jobs._READ_SECONDS", 0)
    monkeypatch.setattr("workers.lists._AT_ONCE", 1)
    first = api.get("/jobs", params={"q": "100%"}).json()
    assert first["items"] == [], "there was no time for more than one job"
    assert first["next_cursor"] is not None
    assert found(q="100%") == [ids[0]]
    for name, value in (("state", "lost"), ("q", "a\0b"), ("cursor", "e30")):
        refused = api.get("/jobs", params={name: value})
        assert refused.status_code == 422
        assert refused.json()["errors"][0]["field"] == name


def test_jobs_are_found_by_the_time_they_were_made(api: Api) -> None:
    assigned(api)
    jobs = []
    for _ in range(3):
        jobs.append(api.made("/jobs", JOB))
        until(
            lambda: datetime.now(UTC) - datetime.fromisoformat(jobs[-1]["created_at"]) > timedelta(0, 0, 2000)
        )
    first, second, third = (job["created_at"] for job in jobs)

    def found(**params: Any) -> list[int]:
        page = api.get("/jobs", params=params)
        assert page.status_code == 200, page.text
        ids = [item["id"] for item in page.json()["items"]]
        return [number for number, job in enumerate(jobs) if job["id"] in ids]

    assert found(since=second) == [1, 2]
    assert found(until=second) == [0]
    assert found(since=second, until=third) == [1]
    assert found(since=first, until="2999-01-01T00:00:00Z") == [0, 1, 2]
    assert found(since="2999-01-01T00:00:00+05:00") == []
    newest = api.get("/jobs", params={"limit": 1, "until": third}).json()
    assert [item["id"] for item in newest["items"]] == [jobs[1]["id"]]
    older = api.get("/jobs", params={"cursor": newest["next_cursor"], "until": third, "since": first}).json()
    assert [item["id"] for item in older["items"]] == [jobs[0]["id"]]
    refused = api.get("/jobs", params={"since": "yesterday"})
    assert refused.json()["errors"][0]["field"] == "since"
    assert api.post("/jobs/cancel", {"since": second, "until": third}).json() == {"cancelled": 1}
    assert api.post("/jobs/retry", {"until": second}).json()["retried"] == 0
    assert api.post("/jobs/retry", {"since": first}).json()["retried"] == 1


def test_a_search_since_a_time_leaves_older_days_alone(
    api: Api, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("admin_api.jobs._SEARCH_SECONDS", 0.5)
    with psycopg.connect(settings.database(), autocommit=True) as owner:
        owner.execute("SELECT ensure_partitions('2020-01-01', 1)")
        with owner.transaction():
            owner.execute("LOCK TABLE job_history_20200101 IN ACCESS EXCLUSIVE MODE")
            assert api.get("/jobs").status_code == 422
            assert api.get("/jobs", params={"since": "2026-01-01T00:00:00Z"}).status_code == 200


def test_a_search_that_takes_too_long_asks_for_a_narrower_one(
    api: Api, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("admin_api.jobs._SEARCH_SECONDS", 0.2)
    with psycopg.connect(settings.database()) as owner:
        owner.execute("LOCK TABLE job_history IN ACCESS EXCLUSIVE MODE")
        refused = api.get("/jobs", params={"q": "aries"})
        owner.rollback()
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["field"] == "q"
    assert "by time" in refused.json()["detail"]
    assert api.get("/jobs", params={"q": "aries"}).json()["items"] == []


def test_waiting_ends_with_the_job_and_holds_nobody_up(api: Api, people: People) -> None:
    assigned(api)
    job = api.made("/jobs", JOB)
    path = f"/jobs/{job['id']}"
    assert api.get(path, params={"wait": 61}).status_code == 422
    assert api.get(path, params={"wait": 0.2}).json()["state"] == "queued"
    # More waiting callers than the server has threads or connections.
    with ThreadPoolExecutor(60) as pool:
        waiting = [pool.submit(api.get, path, params={"wait": 25}) for _ in range(60)]
        assert api.get("/providers").status_code == 200
        assert not any(answer.done() for answer in waiting)
        finish(people, job["id"], result=Jsonb({"text": "Done."}))
        answers = [answer.result() for answer in waiting]
    assert {answer.json()["state"] for answer in answers} == {"succeeded"}
    assert {answer.json()["result"]["text"] for answer in answers} == {"Done."}


def test_an_artifact_can_be_fetched_and_sought_in(api: Api, people: People, settings: Settings) -> None:
    assigned(api)
    job = api.made("/jobs", JOB)
    path = f"/jobs/{job['id']}/artifact"
    early = api.get(path)
    assert early.status_code == 404
    assert "queued" in early.json()["detail"]

    audio = bytes(range(256)) * 10_000
    key = Artifacts(settings.artifacts_url).write(UUID(job["id"]), 1, audio, "audio/wav")
    finish(people, job["id"], artifact_key=key, result=Jsonb({"media_type": "audio/wav"}))
    shown = api.get(f"/jobs/{job['id']}").json()
    assert shown["result"]["artifact_url"] == f"/api/v1{path}"

    whole = api.get(path)
    assert whole.content == audio
    assert whole.headers["content-type"] == "audio/wav"
    assert whole.headers["content-length"] == str(len(audio))
    assert whole.headers["content-disposition"].startswith("inline; filename=")
    assert api.get(path, headers={"if-none-match": whole.headers["etag"]}).status_code == 304
    for asked, start, end in (
        ("bytes=10-19", 10, 20),
        ("bytes=2559990-", 2_559_990, len(audio)),
        ("bytes=-5", len(audio) - 5, len(audio)),
        ("bytes=100-99999999", 100, len(audio)),
    ):
        part = api.get(path, headers={"range": asked})
        assert part.status_code == 206, asked
        assert part.content == audio[start:end]
        assert part.headers["content-range"] == f"bytes {start}-{end - 1}/{len(audio)}"
    assert api.get(path, headers={"range": f"bytes={len(audio)}-"}).status_code == 416
    assert api.get(path, headers={"range": "lines=1-2"}).status_code == 200

    people.run("UPDATE job_history SET result = %s", [Jsonb({"media_type": "text/html"})])
    assert api.get(path).headers["content-type"] == "application/octet-stream"
    for file in Path(settings.artifacts_url).rglob("*.wav"):
        file.unlink()
    assert api.get(path).status_code == 404


def test_without_redis_jobs_are_accepted(
    settings: Settings, people: People, serve: Callable[..., httpx.Client]
) -> None:
    deaf = SecretStr(f"redis://127.0.0.1:{CLOSED_PORT}/0")
    http = serve(settings.model_copy(update={"redis_url": deaf}))
    api = Api(http, people.admin().token)
    assigned(api)
    assert api.post("/jobs", JOB).status_code == 202
    assert people.run("SELECT state, rung_at FROM jobs") == [("queued", None)]
    ready = http.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (200, "degraded")


def test_without_postgresql_the_answer_is_503(
    settings: Settings, people: People, serve: Callable[..., httpx.Client]
) -> None:
    nowhere = SecretStr(f"postgresql://orrery@127.0.0.1:{CLOSED_PORT}/orrery")
    http = serve(settings.model_copy(update={"database_url": nowhere}))
    api = Api(http, people.admin().token)
    with ThreadPoolExecutor() as pool:  # each waits its five seconds for a connection
        answers = pool.map(
            lambda call: call(),
            [
                lambda: api.post("/jobs", JOB),
                lambda: api.get("/providers"),
                lambda: api.post("/providers", provider_body()),
                lambda: http.get("/readyz"),
            ],
        )
        for answer in answers:
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) > 0
            assert answer.headers["content-type"] == "application/problem+json"
    assert http.get("/healthz").status_code == 200


@pytest.mark.parametrize("path", [f"/jobs/{UUID(int=7)}", f"/jobs/{UUID(int=7)}?wait=20"])
def test_an_unknown_job_is_not_waited_for(api: Api, path: str) -> None:
    assert api.get(path).status_code == 404
