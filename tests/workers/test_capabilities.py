"""Jobs of the capabilities beside text and speech, from the input's picture or recording to the record."""

from __future__ import annotations

import base64
from decimal import Decimal

import pytest

from store.settings import Settings
from tests.routing.factories import png
from tests.rows import Rows
from tests.sandbox import Sandbox
from workers.artifacts import Artifacts
from workers.client import Client
from workers.records import Job
from workers.run import WorkerProcess

PICTURE = base64.b64encode(png()).decode()
SCHEMA = {
    "type": "object",
    "properties": {"title": {"type": "string"}, "salary": {"type": "integer", "minimum": 60_000}},
    "required": ["title", "salary"],
    "additionalProperties": False,
}


def _ended(client: Client, feature: str, **values: str) -> Job:
    job = client.result(client.enqueue(feature, values))
    assert job.state == "succeeded", (job.error_class, job.error_message)
    return job


@pytest.mark.parametrize("protocol", ["openai_compatible", "anthropic", "gemini"])
def test_a_picture_is_looked_at(
    client: Client, worker: WorkerProcess, rows: Rows, sandbox: Sandbox, protocol: str
) -> None:
    address = {
        "openai_compatible": sandbox.openai,
        "anthropic": sandbox.anthropic,
        "gemini": sandbox.gemini,
    }[protocol]
    seeing = rows.model(rows.provider("seeing", address, type=protocol), "eyes-1", capabilities=["vision"])
    rows.assign("image_validation", seeing, user="Is this fit to be published?")
    job = _ended(client, "image_validation", image_base64=PICTURE)
    assert job.result is not None
    assert len(job.result["text"]) > 20
    assert (job.provider, job.tokens_estimated) == ("seeing", False)


def test_a_picture_passes_over_models_that_cannot_see_and_answers_fit_the_schema(
    client: Client, worker: WorkerProcess, rows: Rows, sandbox: Sandbox
) -> None:
    provider = rows.provider("p", sandbox.openai)
    blind = rows.model(provider, "blind-1")
    seeing = rows.model(provider, "seeing-1", capabilities=["text", "vision"])
    rows.change_feature("job_extraction", input_schema={}, output_schema=SCHEMA)
    rows.assign("job_extraction", blind, seeing, user="Extract the advertisement.{{ text }}")
    by_picture = _ended(client, "job_extraction", image_base64=PICTURE, text="")
    by_text = _ended(client, "job_extraction", text="We look for an engineer, 75,000 EUR.")
    assert (by_picture.model, by_text.model) == ("seeing-1", "blind-1")
    for job in (by_picture, by_text):
        assert job.result is not None
        assert set(job.result["data"]) == {"title", "salary"}
        assert job.result["data"]["salary"] >= 60_000


def test_what_was_spoken_is_written_down(
    client: Client, worker: WorkerProcess, rows: Rows, sandbox: Sandbox, settings: Settings
) -> None:
    voices = rows.provider("voices", sandbox.elevenlabs, type="elevenlabs")
    speaks = rows.model(
        voices,
        "voice-1",
        capabilities=["speech"],
        default_parameters={"voice": "v1", "response_format": "pcm"},
    )
    hears = rows.model(rows.provider("ears", sandbox.openai), "ears-1", capabilities=["transcription"])
    rows.assign("notifications_tts", speaks)
    rows.assign("audio_transcription", hears)
    spoken = _ended(client, "notifications_tts", text="The doors are open.")
    assert spoken.result is not None
    assert spoken.result["media_type"] == "audio/wav"
    sound = b"".join(Artifacts(settings.artifacts_url).stream(spoken.artifact_key or ""))
    assert sound.startswith(b"RIFF")
    written = _ended(client, "audio_transcription", audio_base64=base64.b64encode(sound).decode())
    assert written.result is not None
    assert len(written.result["text"]) > 10
    assert (written.cost_usd or 0) > 0


def test_a_drawn_picture_lies_in_the_artifact_store(
    client: Client, worker: WorkerProcess, rows: Rows, sandbox: Sandbox, settings: Settings
) -> None:
    draws = rows.model(
        rows.provider("painter", sandbox.gemini, type="gemini"), "brush-1", capabilities=["image"]
    )
    rows.assign("image_generation", draws)
    job = _ended(client, "image_generation", prompt="A calm night sky", size="1536x1024")
    assert job.result is not None
    assert job.result["media_type"] == "image/png"
    assert str(job.artifact_key).endswith(".png")
    body = b"".join(Artifacts(settings.artifacts_url).stream(job.artifact_key or ""))
    assert body.startswith(b"\x89PNG")
    assert (job.cost_usd or Decimal(0)) > 0


def test_an_input_that_is_no_picture_fails_the_job_without_a_call(
    client: Client, worker: WorkerProcess, rows: Rows, sandbox: Sandbox
) -> None:
    seeing = rows.model(rows.provider("p", sandbox.openai), "eyes-1", capabilities=["vision"])
    rows.assign("image_validation", seeing)
    wrong = client.result(client.enqueue("image_validation", {"image_url": f"{sandbox.url}/x.png"}))
    assert (wrong.state, wrong.error_class, wrong.attempts) == ("failed", "input", ())
    assert "ORRERY_PRIVATE_INPUTS" in str(wrong.error_message)
    assert sandbox.calls()["count"] == 0
