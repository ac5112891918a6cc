"""A job goes in, a record comes out: the outcome table of a job, through the real worker and real HTTP."""

from __future__ import annotations

import io
import wave
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from routing.values import Caller
from store.database import Pool
from store.settings import Settings
from store.tables import AIModel, AIProvider
from tests.rows import CANARY, Rows
from tests.sandbox import Sandbox
from tests.workers.conftest import until
from workers import jobs
from workers.artifacts import Artifacts
from workers.client import Client
from workers.run import WorkerProcess

TEXT = "daily_zodiac_text"
ARIES = {"sign": "aries", "language": "en"}
PROMPT = "Write the horoscope for {{ sign }}."


@pytest.fixture
def text_model(rows: Rows, sandbox: Sandbox) -> UUID:
    """A text model that serves daily_zodiac_text."""
    model = rows.model(rows.provider("primary", sandbox.openai), "text-1")
    rows.assign(TEXT, model, user=PROMPT)
    return model


def test_a_text_job_is_recorded_with_route_tokens_cost_and_latency(
    client: Client, worker: WorkerProcess, text_model: UUID
) -> None:
    job_id = client.enqueue(TEXT, ARIES, user_id="u1", plan="free", metadata={"order": 7})
    job = client.result(job_id)
    assert job.state == "succeeded"
    assert job.result is not None
    assert "Aries" in job.result["text"]
    assert (job.provider, job.model, job.user_id, job.plan) == ("primary", "text-1", "u1", "free")
    assert job.metadata == {"order": 7}
    assert job.input_tokens
    assert job.output_tokens
    assert job.cost_usd == (job.input_tokens * Decimal("0.001") + job.output_tokens * Decimal("0.002")) / 1000
    [attempt] = job.attempts
    assert (attempt.outcome, attempt.status, attempt.breaker) == ("succeeded", 200, "closed")
    assert attempt.cost_usd == job.cost_usd
    assert job.attempt_count == 1
    assert job.latency_ms is not None


def test_speech_lies_in_the_artifact_store_and_not_in_the_record(
    client: Client, worker: WorkerProcess, rows: Rows, sandbox: Sandbox, settings: Settings
) -> None:
    provider = rows.provider("voice", sandbox.openai)
    model = rows.model(
        provider,
        "speech-1",
        capabilities=["speech"],
        default_parameters={"voice": "alloy", "response_format": "wav"},
    )
    rows.assign("daily_zodiac_tts", model)
    job = client.result(client.enqueue("daily_zodiac_tts", {"text": "The stars are kind to you today."}))
    assert job.state == "succeeded", job.error_message
    assert job.result is not None
    assert job.result["media_type"] == "audio/wav"
    assert job.artifact_key is not None
    audio = b"".join(Artifacts(settings.artifacts_url).stream(job.artifact_key))
    with wave.open(io.BytesIO(audio)) as sound:
        assert sound.getnframes() / sound.getframerate() > 1


def test_audio_is_not_bought_again_while_the_artifact_store_is_away(
    client: Client,
    worker: WorkerProcess,
    rows: Rows,
    sandbox: Sandbox,
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = rows.model(
        rows.provider("voice", sandbox.openai),
        "speech-1",
        capabilities=["speech"],
        default_parameters={"voice": "alloy", "response_format": "wav"},
    )
    rows.assign("daily_zodiac_tts", model)
    store = Path(settings.artifacts_url)
    if store.exists():
        store.rename(store.with_name("elsewhere"))
    store.write_text("in the way")
    job_id = client.enqueue("daily_zodiac_tts", {"text": "The stars are patient."})
    until(lambda: "waits to keep its artifact" in caplog.text)
    store.unlink()
    job = client.result(job_id)
    assert job.state == "succeeded", job.error_message
    assert [attempt.outcome for attempt in job.attempts] == ["succeeded"]


def test_moderation_and_embedding_fill_their_members(
    client: Client, worker: WorkerProcess, rows: Rows, sandbox: Sandbox
) -> None:
    provider = rows.provider("judge", sandbox.openai)
    rows.assign("content_moderation", rows.model(provider, "mod-1", capabilities=["moderation"]))
    rows.assign("text_embedding", rows.model(provider, "emb-1", capabilities=["embedding"]))
    kind = client.result(client.enqueue("content_moderation", {"text": "I love this sunny garden."}))
    cruel = client.result(client.enqueue("content_moderation", {"text": "I will kill you."}))
    assert kind.result is not None
    assert cruel.result is not None
    assert (kind.result["flagged"], cruel.result["flagged"]) == (False, True)
    several = client.result(client.enqueue("text_embedding", {"texts": ["moon", "sun"]}))
    assert several.result is not None
    assert several.result["embeddings"][0] == several.result["embedding"]
    assert len(several.result["embeddings"]) == 2


def test_failover_uses_the_backup_and_shows_the_failed_call(
    client: Client, worker: WorkerProcess, rows: Rows, sandbox: Sandbox, db: Pool
) -> None:
    primary = rows.model(rows.provider("primary", sandbox.openai), "text-1")
    backup = rows.model(rows.provider("backup", sandbox.anthropic, type="anthropic"), "text-2")
    rows.assign(TEXT, primary, backup, user=PROMPT, max_retries=0)
    sandbox.fault("status", protocol="openai", status=503)
    job = client.result(client.enqueue(TEXT, ARIES))
    assert job.state == "succeeded"
    assert (job.provider, job.model) == ("backup", "text-2")
    assert [(a.provider, a.outcome, a.error_class, a.status) for a in job.attempts] == [
        ("primary", "failed", "overloaded", 503),
        ("backup", "succeeded", None, 200),
    ]
    with db.connection() as connection:
        told = connection.execute("SELECT failover FROM ai_usage_analytics ORDER BY n").fetchall()
    assert [row["failover"] for row in told] == [False, True]


def test_a_retryable_failure_goes_back_to_the_queue_and_succeeds_later(
    client: Client, worker: WorkerProcess, rows: Rows, sandbox: Sandbox
) -> None:
    model = rows.model(rows.provider("primary", sandbox.openai), "text-1")
    rows.assign(TEXT, model, user=PROMPT, max_retries=3, retry_delay_seconds=0.05)
    sandbox.fault("status", status=429, count=2, retry_after=3)
    job_id = client.enqueue(TEXT, ARIES)
    until(lambda: sandbox.calls()["count"] >= 1)
    sandbox.heal()
    job = client.result(job_id)
    assert job.state == "succeeded"
    assert [a.error_class for a in job.attempts] == ["rate_limited", None]
    assert job.attempt_count == 2


def test_retries_end_and_the_job_fails_with_the_last_class(
    client: Client, worker: WorkerProcess, rows: Rows, sandbox: Sandbox
) -> None:
    model = rows.model(rows.provider("primary", sandbox.openai), "text-1")
    rows.assign(TEXT, model, user=PROMPT, max_retries=1, retry_delay_seconds=0.01)
    sandbox.fault("status", status=500)
    job = client.result(client.enqueue(TEXT, ARIES))
    assert (job.state, job.error_class) == ("failed", "server_error")
    assert {a.outcome for a in job.attempts} == {"failed"}
    assert job.cost_usd == 0


def test_what_only_shows_at_run_time_fails_as_configuration_and_names_the_row(
    client: Client, worker: WorkerProcess, rows: Rows, sandbox: Sandbox, settings: Settings
) -> None:
    provider = rows.provider("primary", sandbox.openai)
    rows.assign(TEXT, rows.model(provider, "text-1"), user="Hello {{ nobody }}")
    missing_variable = client.result(client.enqueue(TEXT, ARIES))
    assert (missing_variable.state, missing_variable.error_class) == ("failed", "configuration")
    assert missing_variable.error_message is not None
    assert "nobody" in missing_variable.error_message
    rows.assign(TEXT, rows.model(provider, "text-2"), user=PROMPT)
    rows.change(AIProvider, provider, sealed_key=b"\x01\x02k9 not an envelope", key_version=2)
    unsealable = client.result(client.enqueue(TEXT, ARIES))
    assert (unsealable.state, unsealable.error_class) == ("failed", "configuration")
    assert unsealable.error_message is not None
    assert "primary" in unsealable.error_message
    assert sandbox.calls()["count"] == 0


def test_a_model_switched_off_after_enqueueing_fails_the_job_with_the_row_to_mend(
    client: Client, settings: Settings, rows: Rows, text_model: UUID
) -> None:
    job_id = client.enqueue(TEXT, ARIES)
    rows.change(AIModel, text_model, is_active=False)
    worker = WorkerProcess(settings, lanes=["batch"], threads=1)
    worker.start()
    try:
        job = client.result(job_id)
    finally:
        worker.stop()
    assert (job.state, job.error_class) == ("failed", "configuration")
    assert job.error_message is not None
    assert "text-1" in job.error_message
    assert "Activate it" in job.error_message


def test_a_key_the_provider_refuses_ends_the_job_as_auth_without_retry(
    client: Client, worker: WorkerProcess, rows: Rows, sandbox: Sandbox
) -> None:
    rows.assign(TEXT, rows.model(rows.provider("primary", sandbox.openai, key="bad-key"), "t"), user=PROMPT)
    job = client.result(client.enqueue(TEXT, ARIES))
    assert (job.state, job.error_class, job.attempt_count) == ("failed", "auth", 1)


def test_a_normal_admins_job_needs_a_shared_key(
    client: Client, worker: WorkerProcess, rows: Rows, sandbox: Sandbox
) -> None:
    provider = rows.provider("primary", sandbox.openai)
    rows.assign(TEXT, rows.model(provider, "text-1"), user=PROMPT)
    nobody = Caller(admin_id=uuid4(), role="super_admin")  # an admin whose row is gone counts as a normal one
    job_id = client.enqueue(TEXT, ARIES, caller=nobody, run_at=datetime.now(UTC) + timedelta(seconds=1))
    rows.change(AIProvider, provider, allow_shared_for_normal_admins=False)
    job = client.result(job_id)
    assert (job.state, job.error_class) == ("failed", "no_access")


def test_unstorable_characters_of_a_model_do_not_stop_the_record(
    client: Client, db: Pool, text_model: UUID
) -> None:
    job_id = client.enqueue(TEXT, ARIES)
    with db.connection() as connection:
        claimed = jobs.claim(connection, job_id, lease_seconds=30, worker="test")
        assert claimed is not None
        ending = jobs.Ending(state="succeeded", result={"text": "nul \x00 surrogate \ud800 end", "k\x00": 1})
        assert jobs.complete(connection, [jobs.Completion(claimed, ending, [])]) == {job_id}
    job = client.job(job_id)
    assert job is not None
    assert job.result == {"text": "nul � surrogate � end", "k�": 1}


def test_a_job_runs_not_before_its_time(client: Client, worker: WorkerProcess, text_model: UUID) -> None:
    due = datetime.now(UTC) + timedelta(seconds=1.2)
    job = client.result(client.enqueue(TEXT, ARIES, run_at=due))
    assert job.state == "succeeded"
    assert job.attempts[0].started_at >= due


def test_a_deadline_that_passed_in_the_queue_ends_the_job_without_a_call(
    client: Client, settings: Settings, sandbox: Sandbox, text_model: UUID
) -> None:
    job_id = client.enqueue(TEXT, ARIES, deadline_seconds=0.05)
    passed = datetime.now(UTC) + timedelta(seconds=0.1)
    until(lambda: datetime.now(UTC) > passed)
    worker = WorkerProcess(settings, lanes=["batch"], threads=1)
    worker.start()
    try:
        job = client.result(job_id)
    finally:
        worker.stop()
    assert (job.state, job.error_class) == ("failed", "deadline")
    assert sandbox.calls()["count"] == 0


def test_keys_reach_the_provider_and_nothing_else(
    client: Client,
    worker: WorkerProcess,
    text_model: UUID,
    sandbox: Sandbox,
    settings: Settings,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG")
    client.result(client.enqueue(TEXT, ARIES))
    assert sandbox.calls()["calls"][-1]["key"].endswith(CANARY[-4:])
    assert CANARY not in caplog.text


def test_a_limited_job_waits_for_its_turn_and_that_is_no_retry(
    client: Client, worker: WorkerProcess, rows: Rows, sandbox: Sandbox, db: Pool
) -> None:
    provider = rows.provider("limited", sandbox.openai, requests_per_minute=90)
    rows.assign(TEXT, rows.model(provider, "text-1"), user=PROMPT, max_retries=0)
    jobs_ = [client.result(job_id) for job_id in [client.enqueue(TEXT, ARIES) for _ in range(4)]]
    assert {job.state for job in jobs_} == {"succeeded"}
    called = sorted(attempt.started_at for job in jobs_ for attempt in job.attempts if attempt.status)
    assert (called[-1] - called[0]).total_seconds() >= 2.0  # 90 a minute, after a start without a burst
    waited = [attempt for job in jobs_ for attempt in job.attempts if attempt.error_class == "rate_wait"]
    assert len(waited) >= 3
    assert all("passed over until" in (attempt.error_message or "") for attempt in waited)
    assert {job.attempt_count for job in jobs_} == {1}
    with db.connection() as connection:
        assert connection.execute("SELECT DISTINCT retries FROM job_history").fetchall() == [{"retries": 0}]


def test_what_a_limit_does_not_let_through_goes_to_the_backup_at_once(
    client: Client, worker: WorkerProcess, rows: Rows, sandbox: Sandbox
) -> None:
    limited = rows.model(rows.provider("limited", sandbox.openai, requests_per_minute=1), "text-1")
    backup = rows.model(rows.provider("backup", sandbox.anthropic, type="anthropic"), "text-2")
    rows.assign(TEXT, limited, backup, user=PROMPT, max_retries=0)
    jobs_ = [client.result(client.enqueue(TEXT, ARIES)) for _ in range(3)]
    assert [job.provider for job in jobs_] == ["limited", "backup", "backup"]


def test_nobody_calls_before_retry_after(
    client: Client, worker: WorkerProcess, rows: Rows, sandbox: Sandbox
) -> None:
    model = rows.model(rows.provider("primary", sandbox.openai), "text-1")
    rows.assign(TEXT, model, user=PROMPT, max_retries=1, retry_delay_seconds=0.05)
    sandbox.fault("status", status=429, count=1, retry_after=3)
    ids = [client.enqueue(TEXT, ARIES)]
    until(lambda: sandbox.calls()["count"] == 1)
    ids += [client.enqueue(TEXT, ARIES) for _ in range(6)]
    assert {client.result(job_id).state for job_id in ids} == {"succeeded"}
    first, *others = (datetime.fromisoformat(call["at"]) for call in sandbox.calls()["calls"])
    assert len(others) == 7
    assert min(others) - first >= timedelta(seconds=3)
