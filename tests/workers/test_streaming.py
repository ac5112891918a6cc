"""A job that streams: its text is told while the provider writes it, and its record is what was told."""

from __future__ import annotations

import json
import threading
import time
from typing import Any
from uuid import UUID

import pytest
import redis

from store.settings import Settings
from tests.rows import Rows
from tests.sandbox import Sandbox
from workers.client import Client
from workers.events import key
from workers.requests import JobRequest
from workers.run import WorkerProcess

FEATURE, INPUT = "chat_assistant", {"message": "Tell me of the moon."}


def said(settings: Settings, job_id: UUID) -> list[tuple[str, dict[str, str]]]:
    """What the job's stream holds."""
    client = redis.Redis.from_url(settings.redis())
    entries: Any = client.xrange(key(job_id))
    client.close()
    return [(fields[b"event"].decode(), json.loads(fields[b"data"])) for _, fields in entries]


def told(events: list[tuple[str, dict[str, str]]]) -> str:
    """The answer, as who followed it has it in the end."""
    text = ""
    for event, data in events:
        if event == "restarted":
            text = ""
        elif event == "text":
            text += data["text"]
    return text


@pytest.mark.parametrize(
    ("type_", "path", "style"),
    [
        ("openai_compatible", "openai/v1", "chat"),
        ("openai_compatible", "openai/v1", "responses"),
        ("anthropic", "anthropic", "chat"),
        ("gemini", "gemini", "chat"),
    ],
)
def test_what_is_told_is_what_is_recorded(
    type_: str,
    path: str,
    style: str,
    settings: Settings,
    rows: Rows,
    sandbox: Sandbox,
    client: Client,
    worker: WorkerProcess,
) -> None:
    provider = rows.provider("p", f"{sandbox.url}/{path}", type=type_)
    rows.assign(FEATURE, rows.model(provider, "m", api_style=style), user="{{ message }}")

    streamed = client.result(client.put(JobRequest(FEATURE, INPUT, stream=True)).job_id)
    whole = client.result(client.put(JobRequest(FEATURE, INPUT)).job_id)

    assert streamed.state == "succeeded", streamed.error_message
    assert streamed.result is not None
    events = said(settings, streamed.id)
    assert events[-1] == ("done", {"state": "succeeded"})
    assert [event for event, _ in events].count("text") > 1
    assert told(events) == streamed.result["text"]
    assert not streamed.tokens_estimated
    assert streamed.input_tokens == whole.input_tokens
    assert streamed.cost_usd is not None
    assert said(settings, whole.id) == []


def test_a_stream_that_breaks_off_begins_anew_at_the_backup(
    settings: Settings, rows: Rows, sandbox: Sandbox, client: Client, worker: WorkerProcess
) -> None:
    broken = rows.provider("broken", sandbox.openai)
    sound = rows.provider("sound", sandbox.anthropic, type="anthropic")
    rows.assign(FEATURE, rows.model(broken, "m"), rows.model(sound, "m"), user="{{ message }}", max_retries=0)
    sandbox.fault("truncate", protocol="openai")

    job = client.result(client.put(JobRequest(FEATURE, INPUT, stream=True)).job_id)

    assert job.state == "succeeded", job.error_message
    assert job.result is not None
    assert job.provider == "sound"
    events = said(settings, job.id)
    kinds = [event for event, _ in events]
    assert "restarted" in kinds
    assert told(events) == job.result["text"]


def test_one_that_fails_before_its_first_word_is_not_restarted(
    settings: Settings, rows: Rows, sandbox: Sandbox, client: Client, worker: WorkerProcess
) -> None:
    down = rows.provider("down", sandbox.openai)
    sound = rows.provider("sound", sandbox.anthropic, type="anthropic")
    rows.assign(FEATURE, rows.model(down, "m"), rows.model(sound, "m"), user="{{ message }}", max_retries=0)
    sandbox.fault("status", protocol="openai", status=503)

    job = client.result(client.put(JobRequest(FEATURE, INPUT, stream=True)).job_id)

    assert job.provider == "sound"
    assert {event for event, _ in said(settings, job.id)} == {"text", "done"}


def test_a_model_that_cannot_stream_is_told_at_once(
    settings: Settings, rows: Rows, sandbox: Sandbox, client: Client, worker: WorkerProcess
) -> None:
    model = rows.model(rows.provider("p", sandbox.openai), "m", supports_streaming=False)
    rows.assign(FEATURE, model, user="{{ message }}")

    job = client.result(client.put(JobRequest(FEATURE, INPUT, stream=True)).job_id)

    assert job.result is not None
    assert said(settings, job.id) == [
        ("text", {"text": job.result["text"]}),
        ("done", {"state": "succeeded"}),
    ]


def test_words_come_while_the_provider_still_writes(
    settings: Settings, rows: Rows, sandbox: Sandbox, client: Client, worker: WorkerProcess
) -> None:
    provider = rows.provider("p", sandbox.openai, timeout_seconds=3)  # less than a worker that stops waits
    rows.assign(FEATURE, rows.model(provider, "m"), user="{{ message }}")
    sandbox.fault("drip", protocol="openai", seconds=0.001)
    job_id = client.put(JobRequest(FEATURE, INPUT, stream=True)).job_id
    seen = threading.Event()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and not seen.is_set():
        if any(event == "text" for event, _ in said(settings, job_id)):
            seen.set()
        time.sleep(0.02)

    assert seen.is_set()
    assert not client.is_finished(job_id)
    sandbox.heal()
    client.cancel(job_id)
