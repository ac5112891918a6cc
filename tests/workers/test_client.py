"""Enqueueing: what is refused, what is safe, and what a lost Redis changes (nothing but time)."""

from __future__ import annotations

import socket
import subprocess
import sys
from uuid import UUID, uuid4

import pytest
from pydantic import SecretStr

from routing.errors import ConfigurationError, InputRejected, UnknownFeature
from store.settings import Settings
from store.tables import AIModel, AIProvider
from tests.rows import Rows
from tests.sandbox import Sandbox
from tests.workers.conftest import until
from workers.client import Client
from workers.doorbells import Doorbells
from workers.records import JobFilter
from workers.run import WorkerProcess

TEXT = "daily_zodiac_text"
ARIES = {"sign": "aries"}


@pytest.fixture
def model(rows: Rows, sandbox: Sandbox) -> UUID:
    model = rows.model(rows.provider("primary", sandbox.openai), "text-1")
    rows.assign(TEXT, model, user="Horoscope for {{ sign }}")
    return model


def test_unknown_features_and_broken_inputs_are_refused_by_name(client: Client, model: UUID) -> None:
    with pytest.raises(UnknownFeature, match="daily_zodiac_txt"):
        client.enqueue("daily_zodiac_txt", ARIES)
    with pytest.raises(InputRejected) as wrong:
        client.enqueue(TEXT, {"sign": "ariess"})
    assert wrong.value.field == "input/sign"
    with pytest.raises(InputRejected) as missing:
        client.enqueue(TEXT, {})
    assert missing.value.field == "input/sign"
    with pytest.raises(InputRejected, match="sing"):
        client.enqueue(TEXT, {**ARIES, "sing": 1})
    with pytest.raises(InputRejected) as wrong_date:
        client.enqueue(TEXT, {**ARIES, "date": "tomorrow"})
    assert wrong_date.value.field == "input/date"
    assert client.jobs(JobFilter()) == []


def test_what_nothing_can_serve_is_refused_with_the_row_to_mend(
    client: Client, rows: Rows, model: UUID
) -> None:
    with pytest.raises(ConfigurationError, match=r"cv_draft.*no assignment"):
        client.enqueue("cv_draft", {"profile": "p", "job": "j"})
    rows.change(AIModel, model, is_active=False)
    with pytest.raises(ConfigurationError, match=r"text-1.*Activate it"):
        client.enqueue(TEXT, ARIES)
    rows.change(AIModel, model, is_active=True)
    assert client.enqueue(TEXT, ARIES), "a refusal is never a stale one"
    rows.change_feature(TEXT, is_active=False)
    with pytest.raises(ConfigurationError, match="inactive"):
        client.enqueue(TEXT, ARIES)


def test_with_redis_down_a_job_is_accepted_and_runs_when_redis_is_back(
    settings: Settings, model: UUID
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    silent = settings.model_copy(update={"redis_url": SecretStr(f"redis://127.0.0.1:{port}/0")})
    client = Client(silent)
    worker = WorkerProcess(settings, lanes=["batch"], threads=1)
    try:
        job_id = client.enqueue(TEXT, ARIES)
        worker.start()
        assert client.result(job_id).state == "succeeded"
    finally:
        worker.stop()
        client.close()


def test_a_wiped_redis_loses_no_job(
    client: Client, settings: Settings, model: UUID, sandbox: Sandbox, engines: object
) -> None:
    ids = [client.enqueue(TEXT, ARIES) for _ in range(20)]
    doorbells = Doorbells(settings.redis())
    until(lambda: doorbells.waiting("batch") == 20)
    doorbells._redis.flushdb()
    worker = WorkerProcess(settings, lanes=["batch"], threads=4)
    worker.start()
    try:
        assert {client.result(job_id).state for job_id in ids} == {"succeeded"}
    finally:
        worker.stop()
        doorbells.close()
    assert sandbox.calls()["count"] == 20


def test_the_window_bounds_the_doorbells_and_the_feeder_rings_for_the_rest(
    settings: Settings, model: UUID
) -> None:
    narrow = settings.model_copy(update={"doorbell_window": 5})
    client = Client(narrow)
    doorbells = Doorbells(settings.redis())
    ids = [client.enqueue(TEXT, ARIES) for _ in range(12)]
    assert doorbells.waiting("batch") == 5
    worker = WorkerProcess(narrow, lanes=["batch"], threads=2)
    worker.start()
    try:
        assert {client.result(job_id).state for job_id in ids} == {"succeeded"}
    finally:
        worker.stop()
        doorbells.close()
        client.close()


def test_lists_are_newest_first_filtered_and_paged_over_live_and_ended_jobs(
    client: Client, settings: Settings, model: UUID
) -> None:
    ended = client.enqueue(TEXT, ARIES, user_id="ann")
    worker = WorkerProcess(settings, lanes=["batch"], threads=1)
    worker.start()
    client.result(ended)
    worker.stop()
    queued = [client.enqueue(TEXT, {"sign": "leo"}, user_id="bob%") for _ in range(3)]
    everything = [job.id for job in client.jobs(JobFilter())]
    assert everything == [*reversed(queued), ended]
    assert [job.id for job in client.jobs(JobFilter(), limit=2, before=queued[2])] == [queued[1], queued[0]]
    assert [job.id for job in client.jobs(JobFilter(state="succeeded"))] == [ended]
    assert len(client.jobs(JobFilter(user_id="bob%"))) == 3
    assert [job.id for job in client.jobs(JobFilter(q="aries"))] == [ended]
    assert len(client.jobs(JobFilter(q="b%"))) == 3
    assert len(client.jobs(JobFilter(q="b_b"))) == 0, "wildcards are letters"
    assert client.jobs(JobFilter(token_id=uuid4())) == []


def test_an_id_that_nobody_made_is_not_found(client: Client) -> None:
    assert client.job(uuid4()) is None
    assert client.job(UUID(int=2**128 - 1)) is None
    with pytest.raises(LookupError):
        client.result(uuid4(), timeout=1)


def test_a_waiting_caller_learns_that_the_job_has_not_ended(client: Client, model: UUID) -> None:
    with pytest.raises(TimeoutError):
        client.result(client.enqueue(TEXT, ARIES), timeout=0.2)


def test_an_inactive_provider_is_named(client: Client, rows: Rows, sandbox: Sandbox) -> None:
    provider = rows.provider("idle", sandbox.openai, is_active=False)
    rows.assign(TEXT, rows.model(provider, "text-1"))
    with pytest.raises(ConfigurationError, match="'idle' is inactive"):
        client.enqueue(TEXT, ARIES)
    rows.change(AIProvider, provider, is_active=True)
    assert client.enqueue(TEXT, ARIES)


def test_a_forked_process_has_connections_of_its_own(
    settings: Settings, model: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As prefork servers do: import and use before the fork."""
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    script = """
import os
from workers.client import enqueue, result
ids = [enqueue("daily_zodiac_text", {"sign": "aries"}) for _ in range(3)]
children = []
for _ in range(3):
    child = os.fork()
    if child == 0:
        for _ in range(10):
            enqueue("daily_zodiac_text", {"sign": "leo"})
        os._exit(0)
    children.append(child)
for _ in range(10):
    enqueue("daily_zodiac_text", {"sign": "virgo"})
assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    client = Client(settings)
    assert len(client.jobs(JobFilter(), limit=100)) == 43
    client.close()
