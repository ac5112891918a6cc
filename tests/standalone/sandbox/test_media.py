"""Embeddings, moderation and speech."""

import asyncio
import base64
import io
import math
import struct
import sys
import wave
from array import array
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from standalone.sandbox import create_app
from standalone.sandbox.moderation import CATEGORIES
from standalone.sandbox.speech import espeak
from standalone.sandbox.speech.audio import Recording, as_pcm
from standalone.sandbox.speech.voices import VOICES

Ask = Callable[..., httpx.Response]


@pytest.fixture
def embed(openai: Ask) -> Callable[..., list[list[float]]]:
    def ask(*texts: str, **options: Any) -> list[list[float]]:
        body = openai("embeddings", model="text-embedding-3-small", input=list(texts), **options).json()
        assert [item["index"] for item in body["data"]] == list(range(len(texts)))
        assert body["usage"]["prompt_tokens"] == body["usage"]["total_tokens"] > 0
        return [item["embedding"] for item in body["data"]]

    return ask


def _cosine(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("dimensions", [256, 1536])
def test_texts_that_share_words_are_nearer(embed: Callable[..., list[list[float]]], dimensions: int) -> None:
    cat, kitten, tax = embed(
        "the cat sleeps on the warm sofa",
        "a small cat sleeps on a sofa",
        "quarterly tax returns require signed documents",
        dimensions=dimensions,
    )
    assert len(cat) == dimensions
    assert all(math.isclose(_cosine(vector, vector), 1, abs_tol=1e-5) for vector in (cat, kitten, tax))
    assert _cosine(cat, kitten) > _cosine(cat, tax) + 0.3
    assert _cosine(*embed("the cat", "the cat")) == pytest.approx(1, abs=1e-5)


def test_embedding_encodings_and_inputs_agree(openai: Ask) -> None:
    plain = openai("embeddings", model="m", input="one text").json()["data"][0]["embedding"]
    packed = openai("embeddings", model="m", input=["one text"], encoding_format="base64").json()
    raw = base64.b64decode(packed["data"][0]["embedding"])
    assert list(struct.unpack(f"<{len(raw) // 4}f", raw)) == plain
    assert len(openai("embeddings", model="m", input=[1, 2, 3]).json()["data"]) == 1
    assert len(openai("embeddings", model="m", input=[[1, 2], [3]]).json()["data"]) == 2
    large = openai("embeddings", model="text-embedding-3-large", input="!").json()
    assert len(large["data"][0]["embedding"]) == 3072


@pytest.mark.parametrize(
    ("param", "value"),
    [
        ("input", ""),
        ("input", []),
        ("input", None),
        ("input", {}),
        ("dimensions", 0),
        ("encoding_format", "hex"),
    ],
)
def test_wrong_embedding_requests(openai: Ask, param: str, value: object) -> None:
    change = {param: value}
    answer = openai("embeddings", **{"model": "m", "input": "text", **change})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


def test_moderation_judges_each_text(openai: Ask) -> None:
    body = openai("moderations", input=["I will kill you", "What a lovely day", "أفكر في الانتحار"]).json()
    assert body["id"].startswith("modr-")
    threat, nice, despair = body["results"]
    assert [threat["flagged"], nice["flagged"]] == [True, False]
    assert threat["categories"]["harassment/threatening"]
    assert threat["categories"]["violence"]
    assert set(threat["categories"]) == set(threat["category_scores"]) == set(CATEGORIES)
    for result in (threat, nice):
        for name, flagged in result["categories"].items():
            assert (result["category_scores"][name] > 0.5) == flagged
    assert despair["categories"]["self-harm"]


def test_moderation_takes_parts_as_one_message(openai: Ask) -> None:
    picture = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    body = openai("moderations", input=[{"type": "text", "text": "you are an idiot"}, picture]).json()
    [result] = body["results"]
    assert result["categories"]["harassment"]
    assert result["category_applied_input_types"]["violence"] == ["text", "image"]
    assert openai("moderations", input=[{"type": "video"}]).status_code == 400


def _read_wav(content: bytes) -> tuple[float, "array[int]"]:
    """Seconds and samples."""
    with wave.open(io.BytesIO(content)) as reader:
        assert (reader.getnchannels(), reader.getsampwidth()) == (1, 2)
        samples = array("h", reader.readframes(reader.getnframes()))
        assert len(samples) == reader.getnframes()
        return len(samples) / reader.getframerate(), samples


def _loudness(samples: "array[int]") -> float:
    return math.sqrt(sum(value * value for value in samples) / len(samples))


@pytest.fixture
def speak(openai: Ask) -> Ask:
    def ask(text: str = "The stars are kind to you today, so take your time.", **body: Any) -> httpx.Response:
        return openai("audio/speech", **{"model": "tts-1", "input": text, "voice": "nova", **body})

    return ask


@pytest.mark.parametrize(
    "text",
    [
        "The stars are kind to you today.",
        "تبتسم لك النجوم اليوم فاغتنم الفرصة.",
        "Звёзды улыбаются тебе сегодня.",
    ],
)
def test_speech_is_a_wav_file_that_can_be_heard(speak: Ask, text: str) -> None:
    answer = speak(text)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "audio/wav"
    seconds, samples = _read_wav(answer.content)
    assert 1 < seconds < 10
    assert _loudness(samples) > 500


def _pitch(samples: "array[int]") -> float:
    """Fundamental frequency in Hz of the loudest tenth of a second, by autocorrelation."""
    rate, size = 22_050 / 4, 551
    thin = samples[::4]
    starts = range(0, len(thin) - 2 * size, size)
    start = max(starts, key=lambda at: sum(map(abs, thin[at : at + size])))
    window = thin[start : start + size]

    def agreement(lag: int) -> int:
        return sum(a * b for a, b in zip(window, thin[start + lag : start + lag + size], strict=True))

    return rate / max(range(16, 90), key=agreement)


def test_every_voice_speaks_and_they_differ_in_pitch(speak: Ask) -> None:
    spoken = {voice: _read_wav(speak(voice=voice).content) for voice in VOICES}
    assert all(1 < seconds < 10 and _loudness(samples) > 500 for seconds, samples in spoken.values())
    assert _pitch(spoken["shimmer"][1]) > 1.4 * _pitch(spoken["onyx"][1])
    # These two share a timbre: only the pitch tells them apart.
    assert _pitch(spoken["coral"][1]) > 1.05 * _pitch(spoken["marin"][1])
    assert speak(voice={"id": "voice_123"}).status_code == 200


def test_speed_changes_the_duration(speak: Ask) -> None:
    slow, usual, fast = (_read_wav(speak(speed=speed).content)[0] for speed in (0.6, 1.0, 2.0))
    assert slow > 1.3 * usual
    assert usual > 1.5 * fast


def test_a_missing_voice_engine_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(espeak, "_engine", None)
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(create_app())
        async with httpx.AsyncClient(transport=transport, base_url="http://sandbox") as client:
            body = {"model": "tts-1", "input": "hello", "voice": "nova"}
            headers = {"Authorization": "Bearer k-12345"}
            return await client.post("/openai/v1/audio/speech", json=body, headers=headers)

    answer = asyncio.run(ask())
    assert answer.status_code == 500
    assert answer.json()["error"]["type"] == "server_error"
    assert "orrery[standalone]" in answer.json()["error"]["message"]


def test_arabic_is_not_spelled_out_in_english(speak: Ask) -> None:
    """A voice without the language reads letter names or nothing: far longer, or silence."""
    seconds, _ = _read_wav(speak("مرحبا بك في هذا اليوم الجميل").content)
    assert 1 < seconds < 5


def test_pcm_is_the_same_speech_at_24_kilohertz(speak: Ask) -> None:
    seconds, samples = _read_wav(speak().content)
    answer = speak(response_format="pcm")
    assert answer.headers["content-type"] == "audio/pcm"
    pcm = array("h", answer.content)
    assert len(pcm) / 24_000 == pytest.approx(seconds, abs=0.001)
    assert _loudness(pcm) == pytest.approx(_loudness(samples), rel=0.1)


def test_resampling_keeps_a_tone() -> None:
    rate, tone = 22_050, 440.0
    wave_form = array("h", [round(9000 * math.sin(2 * math.pi * tone * n / rate)) for n in range(rate)])
    resampled = array("h", as_pcm(Recording(wave_form, rate)))
    expected = [9000 * math.sin(2 * math.pi * tone * n / 24_000) for n in range(24_000)]
    assert len(resampled) == 24_000
    worst = max(abs(a - b) for a, b in zip(resampled[:-2], expected, strict=False))
    assert worst < 40


@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        ({"voice": "nobody"}, "voice", "invalid_value"),
        ({"voice": None}, "voice", "missing_required_parameter"),
        ({"input": "x" * 4097}, "input", "string_above_max_length"),
        ({"input": " "}, "input", "string_below_min_length"),
        ({"response_format": "mp3"}, "response_format", "invalid_value"),
        ({"speed": 5}, "speed", "decimal_above_max_value"),
        ({"model": None}, None, None),
    ],
)
def test_wrong_speech_requests(
    speak: Ask, change: dict[str, Any], param: str | None, code: str | None
) -> None:
    answer = speak(**change)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", param, code)
