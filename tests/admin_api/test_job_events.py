"""Following a job: its text as it is written, its end, and coming back in the middle."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import redis

from store.settings import Settings
from tests.admin_api.conftest import Api, People
from tests.rows import Rows
from tests.sandbox import Sandbox
from workers.doorbells import LANES
from workers.run import WorkerProcess

BODY = {"feature": "chat_assistant", "input": {"message": "Tell me of the moon."}, "stream": True}

Told = tuple[str, str, dict[str, Any]]


@pytest.fixture
def worker(settings: Settings) -> Iterator[WorkerProcess]:
    worker = WorkerProcess(settings, lanes=LANES, threads=2)
    worker.start()
    yield worker
    worker.stop()


def follow(api: Api, job_id: str, *, after: str = "", most: int | None = None) -> list[Told]:
    """(id, event, data) of what is told after an event, until the stream ends or `most` events came."""
    url = f"http://{api.host}:{api.port}/api/v1/jobs/{job_id}/events"
    told: list[Told] = []
    sent = {"Authorization": f"Bearer {api.token}", **({"Last-Event-ID": after} if after else {})}
    with httpx.Client(timeout=30, trust_env=False) as http, http.stream("GET", url, headers=sent) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")
        place = ""
        for line in answer.iter_lines():
            if line.startswith("id: "):
                place = line[4:]
            elif line.startswith("event: "):
                event = line[7:]
            elif line.startswith("data: "):
                told.append((place, event, json.loads(line[6:])))
                if most is not None and len(told) >= most:
                    return told
    return told


def words(told: list[Told]) -> str:
    return "".join(data["text"] for _, event, data in told if event == "text")


def test_the_text_comes_as_it_is_written_and_who_comes_back_misses_and_repeats_nothing(
    api: Api, rows: Rows, sandbox: Sandbox, worker: WorkerProcess
) -> None:
    rows.assign("chat_assistant", rows.model(rows.provider("p", sandbox.openai), "m"), user="{{ message }}")
    sandbox.fault("drip", protocol="openai", seconds=0.0005)
    job_id = api.post("/jobs", BODY).json()["id"]

    begun = follow(api, job_id, most=3)
    rest = follow(api, job_id, after=begun[-1][0])
    again = follow(api, job_id)

    job = api.get(f"/jobs/{job_id}").json()
    assert job["state"] == "succeeded"
    assert rest[-1][1:] == ("done", {"state": "succeeded"})
    assert words(begun) + words(rest) == job["result"]["text"]
    assert again == [*begun, *rest]


def test_a_job_that_does_not_stream_is_told_when_it_ends(
    api: Api, rows: Rows, sandbox: Sandbox, worker: WorkerProcess
) -> None:
    rows.assign("chat_assistant", rows.model(rows.provider("p", sandbox.openai), "m"), user="{{ message }}")
    job_id = api.post("/jobs", {**BODY, "stream": False}).json()["id"]

    told = follow(api, job_id)

    text = api.get(f"/jobs/{job_id}").json()["result"]["text"]
    assert [(event, data) for _, event, data in told] == [
        ("text", {"text": text}),
        ("done", {"state": "succeeded"}),
    ]


def test_a_stream_that_was_lost_is_told_whole(
    api: Api, settings: Settings, rows: Rows, sandbox: Sandbox, worker: WorkerProcess
) -> None:
    rows.assign("chat_assistant", rows.model(rows.provider("p", sandbox.openai), "m"), user="{{ message }}")
    job_id = api.post("/jobs", BODY).json()["id"]
    begun = follow(api, job_id)
    with redis.Redis.from_url(settings.redis()) as client:
        client.flushdb()

    told = follow(api, job_id, after=begun[0][0])

    assert [event for _, event, _ in told] == ["restarted", "text", "done"]
    assert words(told) == words(begun)


def test_only_whose_job_it_is_may_follow_it(api: Api, people: People, rows: Rows, sandbox: Sandbox) -> None:
    rows.assign("chat_assistant", rows.model(rows.provider("p", sandbox.openai), "m"), user="{{ message }}")
    job_id = api.post("/jobs", BODY).json()["id"]

    assert people.application().get(f"/jobs/{job_id}/events").status_code == 404
    bad = api.get(f"/jobs/{job_id}/events", headers={"Last-Event-ID": "the third"})
    assert (bad.status_code, bad.json()["errors"][0]["field"]) == (422, "Last-Event-ID")
