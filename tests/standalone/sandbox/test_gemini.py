"""Google's protocol, as the sandbox speaks it."""

import base64
import io
import wave
from collections.abc import Callable
from typing import Any

import httpx
import pytest

KEY = "sandbox-key-1234"


@pytest.fixture
def gemini(client: httpx.Client) -> Callable[..., httpx.Response]:
    """POST to a call of a model: ``gemini("generateContent", contents=...)``."""

    def ask(
        verb: str, /, key: str | None = KEY, model: str = "gemini-3.8-flash", **body: Any
    ) -> httpx.Response:
        headers = {} if key is None else {"x-goog-api-key": key}
        return client.post(f"/gemini/v1beta/models/{model}:{verb}", json=body, headers=headers)

    return ask


def _said(text: str = "What makes a good morning?", *parts: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "parts": [{"text": text}, *parts]}]


def test_text_with_thoughts_and_a_cache(gemini: Callable[..., httpx.Response]) -> None:
    body = gemini("generateContent", model="m+cached-5+reasoning-40", contents=_said()).json()
    [candidate] = body["candidates"]
    assert candidate["finishReason"] == "STOP"
    assert len(candidate["content"]["parts"][0]["text"]) > 20
    usage = body["usageMetadata"]
    assert (usage["cachedContentTokenCount"], usage["thoughtsTokenCount"]) == (5, 40)
    assert usage["totalTokenCount"] == usage["promptTokenCount"] + usage["candidatesTokenCount"] + 40
    assert body["modelVersion"] == "m+cached-5+reasoning-40"
    cut = gemini("generateContent", contents=_said(), generationConfig={"maxOutputTokens": 3}).json()
    assert cut["candidates"][0]["finishReason"] == "MAX_TOKENS"
    counted = gemini("countTokens", contents=_said()).json()
    assert counted["totalTokens"] == usage["promptTokenCount"]


def test_speech_is_a_file_or_bare_samples(gemini: Callable[..., httpx.Response]) -> None:
    config = {"responseModalities": ["AUDIO"]}

    def spoken(model: str) -> tuple[str, bytes]:
        answer = gemini("generateContent", model=model, contents=_said("Hi."), generationConfig=config)
        data = answer.json()["candidates"][0]["content"]["parts"][0]["inlineData"]
        return data["mimeType"], base64.b64decode(data["data"])

    media_type, sound = spoken("gemini-3.8-flash-tts")
    assert media_type == "audio/wav"
    with wave.open(io.BytesIO(sound)) as file:
        assert file.getnframes() > 1000
    media_type, samples = spoken("gemini-3.1-flash-tts-preview")
    assert (media_type, samples[:4] == b"RIFF") == ("audio/L16;codec=pcm;rate=24000", False)
    heard = gemini(
        "generateContent",
        contents=_said("Write it down.", {"inlineData": _inline("audio/wav", sound)}),
    ).json()
    assert heard["candidates"][0]["content"]["parts"][0]["text"] == "Hi."


def _inline(media_type: str, body: bytes) -> dict[str, str]:
    return {"mimeType": media_type, "data": base64.b64encode(body).decode()}


def test_pictures_and_vectors(gemini: Callable[..., httpx.Response]) -> None:
    config = {"responseModalities": ["TEXT", "IMAGE"], "imageConfig": {"aspectRatio": "16:9"}}
    parts = gemini("generateContent", contents=_said(), generationConfig=config).json()["candidates"][0][
        "content"
    ]["parts"]
    assert base64.b64decode(parts[1]["inlineData"]["data"]).startswith(b"\x89PNG")
    content = {"parts": [{"text": "a"}]}
    one = gemini("embedContent", content=content, outputDimensionality=8).json()["embedding"]["values"]
    both = gemini("batchEmbedContents", requests=[{"content": content, "outputDimensionality": 8}] * 2).json()
    assert [row["values"] for row in both["embeddings"]] == [one, one]
    assert len(one) == 8


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "contents is not specified"),
        ({"contents": _said(), "colour": 1}, "Unknown name"),
        ({"contents": _said(), "generationConfig": {"top_p": 1}}, "Unknown name"),
        ({"contents": [{"role": "assistant", "parts": [{"text": "x"}]}]}, "valid role"),
        ({"contents": [{"parts": []}]}, "must not be empty"),
        ({"contents": _said("x", {"inlineData": {"mimeType": "image/png", "data": "#"}})}, "Base64"),
        ({"contents": _said("x", {"inlineData": {"mimeType": "video", "data": ""}})}, "MIME"),
    ],
)
def test_wrong_requests(gemini: Callable[..., httpx.Response], body: dict[str, Any], message: str) -> None:
    error = gemini("generateContent", **body)
    assert (error.status_code, error.json()["error"]["status"]) == (400, "INVALID_ARGUMENT")
    assert message in error.json()["error"]["message"]


def test_keys_routes_and_blocked_prompts(gemini: Callable[..., httpx.Response], client: httpx.Client) -> None:
    bad = gemini("generateContent", key="bad-key", contents=_said())
    assert bad.status_code == 400
    assert bad.json()["error"]["details"][0]["reason"] == "API_KEY_INVALID"
    assert gemini("generateContent", key=None, contents=_said()).status_code == 403
    assert gemini("predict", contents=_said()).status_code == 404
    blocked = gemini("generateContent", contents=_said("BLOCK-THIS-PROMPT")).json()
    assert "candidates" not in blocked
    models = client.get("/gemini/v1/models", headers={"x-goog-api-key": KEY}).json()["models"]
    assert all(model["name"].startswith("models/") for model in models)


def test_faults_tell_when_to_come_back(
    gemini: Callable[..., httpx.Response], fault: Callable[..., None]
) -> None:
    fault("status", "gemini", status=429, retry_after=34)
    limited = gemini("generateContent", contents=_said())
    details = {one["@type"].rpartition(".")[2]: one for one in limited.json()["error"]["details"]}
    assert details["RetryInfo"]["retryDelay"] == "34s"
    assert "PerMinute" in details["QuotaFailure"]["violations"][0]["quotaId"]
    assert "retry-after" not in limited.headers
    fault("status", "gemini", status=429, code="insufficient_quota")
    spent = gemini("generateContent", contents=_said()).json()["error"]["details"]
    assert "PerDay" in spent[0]["violations"][0]["quotaId"]
