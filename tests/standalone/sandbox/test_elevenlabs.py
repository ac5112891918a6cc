"""ElevenLabs' protocol, as the sandbox speaks it."""

import io
import wave
from collections.abc import Callable
from typing import Any

import httpx
import pytest

KEY = "sandbox-key-1234"


@pytest.fixture
def speak(client: httpx.Client) -> Callable[..., httpx.Response]:
    def ask(
        text: Any = "Hello, stars.", /, key: str | None = KEY, query: str = "", voice: str = "v1", **body: Any
    ) -> httpx.Response:
        headers = {} if key is None else {"xi-api-key": key}
        sent = {"text": text, "model_id": "eleven_v3", **body}
        return client.post(f"/elevenlabs/v1/text-to-speech/{voice}{query}", json=sent, headers=headers)

    return ask


def test_speech_and_what_it_costs(speak: Callable[..., httpx.Response]) -> None:
    answer = speak()
    assert answer.headers["content-type"] == "audio/wav"
    assert answer.headers["character-cost"] == str(len("Hello, stars."))
    assert answer.headers["request-id"]
    with wave.open(io.BytesIO(answer.content)) as sound:
        assert sound.getframerate() == 24_000
        spoken = sound.getnframes()
    samples = speak(query="?output_format=pcm_16000").content
    assert len(samples) / 2 / 16_000 == pytest.approx(spoken / 24_000, abs=0.1)
    assert speak(voice_settings={"speed": 1.2}).status_code == 200


def test_it_hears_what_it_said(client: httpx.Client, speak: Callable[..., httpx.Response]) -> None:
    recording = speak("Good morning, Aries.").content

    def heard(body: bytes) -> Any:
        files = {"file": ("file.wav", body, "audio/wav")}
        return client.post(
            "/elevenlabs/v1/speech-to-text",
            data={"model_id": "scribe_v2"},
            files=files,
            headers={"xi-api-key": KEY},
        ).json()

    assert heard(recording)["text"] == "Good morning, Aries."
    assert heard(recording)["audio_duration_secs"] > 0.5
    assert len(heard(recording[:400])["text"]) > 20  # something invented
    calls = client.get("/_sandbox/calls").json()
    assert (calls["by_model"]["scribe_v2"], calls["by_protocol"]["elevenlabs"]) == (3, 4)


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        ({"key": None}, 401, "missing_api_key"),
        ({"key": "bad-key"}, 401, "invalid_api_key"),
        ({"query": "?output_format=mp3_44100_128"}, 400, "invalid_output_format"),
        ({"voice": "no-such-voice"}, 404, "voice_not_found"),
        ({"colour": "red"}, 400, "invalid_parameters"),
        ({"voice_settings": {"speed": 9}}, 400, "invalid_parameters"),
    ],
)
def test_refusals(
    speak: Callable[..., httpx.Response], request_: dict[str, Any], status: int, code: str
) -> None:
    answer = speak(**request_)
    assert (answer.status_code, answer.json()["detail"]["code"]) == (status, code)


def test_long_texts_and_none(speak: Callable[..., httpx.Response]) -> None:
    assert speak("x" * 10_001).json()["detail"]["code"] == "text_too_long"
    assert speak(" ").status_code == 400
    assert speak(7).status_code == 400


def test_what_a_key_may_see(client: httpx.Client) -> None:
    def seen(path: str, key: str = KEY) -> httpx.Response:
        return client.get(f"/elevenlabs{path}", headers={"xi-api-key": key})

    assert seen("/v1/user").json()["subscription"]["tier"]
    assert seen("/v1/user", "speech-only-key").status_code == 401
    assert seen("/v1/models", "speech-only-key").json()[0]["model_id"]
    assert seen("/v2/voices").json()["voices"]
    assert seen("/v1/nothing").status_code == 404


def test_faults_keep_to_their_protocol(
    speak: Callable[..., httpx.Response], fault: Callable[..., None]
) -> None:
    fault("status", "elevenlabs", status=429, retry_after=2)
    limited = speak()
    assert (limited.status_code, limited.headers["retry-after"]) == (429, "2")
    assert limited.json()["detail"]["code"] == "rate_limit_exceeded"
    fault("status", "elevenlabs", status=401, code="insufficient_quota")
    assert speak().json()["detail"]["status"] == "quota_exceeded"
    fault("status", "gemini", status=500)
    assert speak().status_code == 401
