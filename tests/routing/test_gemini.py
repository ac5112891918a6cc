from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from routing.errors import (
    AuthFailed,
    BadRequest,
    ConfigurationError,
    ContentPolicy,
    EmptyReply,
    NotFound,
    Overloaded,
    ProviderError,
    QuotaExhausted,
    RateLimited,
    ServerError,
    TimedOut,
    TooLarge,
    UnsupportedParameter,
)
from routing.media import wav
from routing.providers import CODECS, classify, probe
from routing.providers.wire import HttpRequest, HttpResponse
from routing.values import Capability, FinishReason, Media, Provider, Reply, Turn, Usage
from tests.routing import factories
from tests.routing.factories import KEY, png

_CODECS = CODECS["gemini"]
_HOST = "https://generativelanguage.googleapis.com"


def _owner(base_url: str = _HOST, **fields: Any) -> Provider:
    return factories.provider(base_url, protocol="gemini", **fields)


def _encoded(
    capability: Capability = Capability.TEXT, *, owner: Provider | None = None, **fields: Any
) -> HttpRequest:
    to = factories.route(owner or _owner(), model_id=fields.pop("model_id", "gemini-x"))
    return _CODECS[capability].encode(factories.call(capability, to=to, **fields), KEY)


def _payload(request: HttpRequest) -> dict[str, Any]:
    payload = json.loads(request.body)
    assert isinstance(payload, dict)
    return payload


def _answer(body: Any, status: int = 200) -> HttpResponse:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return HttpResponse(status, {"content-type": "application/json"}, raw)


def _decoded(body: Any, capability: Capability = Capability.TEXT, **fields: Any) -> Reply:
    call = factories.call(capability, to=factories.route(_owner()), **fields)
    return _CODECS[capability].decode(_answer(body), call)


def _candidate(*parts: Any, finish: str | None = "STOP", **extra: Any) -> dict[str, Any]:
    content = {"role": "model", "parts": list(parts)}
    whole = {"candidates": [{"content": content, "finishReason": finish}], **extra}
    return {"modelVersion": "gemini-x-001", "responseId": "r1", **whole}


def _inline(body: bytes, media_type: str) -> dict[str, Any]:
    return {"inlineData": {"mimeType": media_type, "data": base64.b64encode(body).decode()}}


# --- text and vision ----------------------------------------------------------------------------------


def test_request() -> None:
    request = _encoded(
        history=(Turn("user", "Hi"), Turn("assistant", "Hello")),
        parameters={"max_tokens": 50, "temperature": 0.5, "top_k": 3, "stop": "END", "service_tier": "flex"},
    )
    assert (request.method, request.url) == ("POST", f"{_HOST}/v1beta/models/gemini-x:generateContent")
    assert dict(request.headers) == {"content-type": "application/json", "x-goog-api-key": KEY}
    assert _payload(request) == {
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "contents": [
            {"role": "user", "parts": [{"text": "Hi"}]},
            {"role": "model", "parts": [{"text": "Hello"}]},
            {"role": "user", "parts": [{"text": "Hello, stars."}]},
        ],
        "generationConfig": {"maxOutputTokens": 50, "temperature": 0.5, "topK": 3, "stopSequences": ["END"]},
        "serviceTier": "flex",
    }


@pytest.mark.parametrize(
    ("base_url", "version", "model_id", "expected"),
    [
        (_HOST, None, "gemini-x", f"{_HOST}/v1beta/models/gemini-x:generateContent"),
        (_HOST, "v1", "models/gemini-x", f"{_HOST}/v1/models/gemini-x:generateContent"),
        (f"{_HOST}/v1beta/", None, "gemini-x", f"{_HOST}/v1beta/models/gemini-x:generateContent"),
        (_HOST, None, "a/b?c", f"{_HOST}/v1beta/models/a%2Fb%3Fc:generateContent"),
    ],
)
def test_addresses(base_url: str, version: str | None, model_id: str, expected: str) -> None:
    assert _encoded(owner=_owner(base_url, api_version=version), model_id=model_id).url == expected


def test_one_assignment_may_serve_other_protocols_too() -> None:
    schema = {"type": "object"}
    described = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    parameters = {"verbosity": "low", "service_tier": "auto", "reasoning_effort": "low"}
    payload = _payload(_encoded(parameters={**parameters, "response_format": described}))
    assert payload["generationConfig"] == {
        "thinkingConfig": {"thinkingLevel": "LOW"},
        "responseMimeType": "application/json",
        "responseJsonSchema": schema,
    }
    assert "serviceTier" not in payload
    with pytest.raises(ConfigurationError, match=r"'temprature' is not known.*temperature"):
        _encoded(parameters={"temprature": 1})


@pytest.mark.parametrize(("effort", "level"), [("none", "MINIMAL"), ("high", "HIGH"), ("max", "XHIGH")])
def test_efforts_are_levels(effort: str, level: str) -> None:
    config = _payload(_encoded(parameters={"reasoning_effort": effort}))["generationConfig"]
    assert config == {"thinkingConfig": {"thinkingLevel": level}}


def test_pictures_go_inline() -> None:
    payload = _payload(_encoded(Capability.VISION, images=(Media(png(), "image/png"),)))
    assert payload["contents"][0]["parts"] == [{"text": "Hello, stars."}, _inline(png(), "image/png")]
    alone = _payload(_encoded(Capability.VISION, user=" ", images=(Media(png(), "image/png"),)))
    assert alone["contents"][0]["parts"] == [_inline(png(), "image/png")]


def test_thoughts_are_no_answer_and_count_beside_it() -> None:
    usage = {
        "promptTokenCount": 100,
        "toolUsePromptTokenCount": 5,
        "cachedContentTokenCount": 40,
        "candidatesTokenCount": 20,
        "thoughtsTokenCount": 30,
    }
    reply = _decoded(
        _candidate({"text": "hm", "thought": True}, {"text": "A"}, {"text": "B"}, usageMetadata=usage)
    )
    assert (reply.text, reply.served_model, reply.response_id) == ("AB", "gemini-x-001", "r1")
    assert reply.request_id == "r1"
    assert reply.usage == Usage(105, 50, 40, reasoning_tokens=30, raw=usage)


@pytest.mark.parametrize("usage", [None, {}, {"promptTokenCount": "x"}])
def test_missing_usage_is_estimated(usage: Any) -> None:
    counted = _decoded(_candidate({"text": "A"}, usageMetadata=usage)).usage
    assert counted.estimated
    assert (counted.input_tokens or 0) > 0
    assert (counted.output_tokens or 0) > 0


@pytest.mark.parametrize(
    ("finish", "expected"),
    [
        (None, FinishReason.STOP),
        ("STOP", FinishReason.STOP),
        ("MAX_TOKENS", FinishReason.LENGTH),
        ("MALFORMED_RESPONSE", FinishReason.OTHER),
        ("BRAND_NEW", FinishReason.OTHER),
    ],
)
def test_finish_reasons(finish: str | None, expected: FinishReason) -> None:
    assert _decoded(_candidate({"text": "A"}, finish=finish)).finish_reason is expected


def test_a_wanted_function_is_told() -> None:
    reply = _decoded(_candidate({"text": "A"}, {"functionCall": {"name": "f"}}))
    assert reply.finish_reason is FinishReason.TOOL


_BLOCKED = {
    "promptFeedback": {"blockReason": "PROHIBITED_CONTENT"},
    "usageMetadata": {"promptTokenCount": 9},
    "responseId": "r2",
}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (_BLOCKED, ContentPolicy),
        (_candidate({"text": "half"}, finish="SAFETY"), ContentPolicy),
        ({"candidates": [{"finishReason": "RECITATION"}]}, ContentPolicy),
        ({"candidates": [{"finishReason": "MAX_TOKENS"}]}, TooLarge),
        ({"candidates": [{"content": {"role": "model"}}]}, EmptyReply),
        ({}, ServerError),
        ({"candidates": []}, ServerError),
        (b"garbage", ServerError),
        ({"error": {"code": 503, "message": "busy", "status": "UNAVAILABLE"}}, Overloaded),
    ],
)
def test_a_200_may_hold_a_failure(body: Any, expected: type[ProviderError]) -> None:
    with pytest.raises(ProviderError) as caught:
        _decoded(body)
    assert type(caught.value) is expected


def test_a_blocked_prompt_is_counted() -> None:
    with pytest.raises(ContentPolicy, match="PROHIBITED_CONTENT") as caught:
        _decoded(_BLOCKED)
    assert caught.value.usage is not None
    assert (caught.value.usage.input_tokens, caught.value.request_id) == (9, "r2")


# --- the other capabilities ---------------------------------------------------------------------------


def test_speech_request() -> None:
    request = _encoded(Capability.SPEECH, voice="Kore", parameters={"style": "warm", "language": "en"})
    assert _payload(request) == {
        "contents": [
            {"role": "user", "parts": [{"text": "Hello, stars.", "speechMetadata": {"style": "warm"}}]}
        ],
        "generationConfig": {
            "responseModalities": ["AUDIO"],
            "speechConfig": {
                "languageCode": "en",
                "voiceConfig": {"prebuiltVoiceConfig": {"voiceName": "Kore"}},
            },
        },
    }
    portable = _encoded(Capability.SPEECH, parameters={"response_format": "mp3", "speed": 1.1})
    assert _payload(portable)["generationConfig"] == {"responseModalities": ["AUDIO"]}


_SAMPLES = bytes(range(200))


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([_inline(wav(_SAMPLES, 24000), "audio/wav")], wav(_SAMPLES, 24000)),
        ([_inline(_SAMPLES, "audio/L16;codec=pcm;rate=16000")], wav(_SAMPLES, 16000)),
        ([_inline(_SAMPLES, "audio/pcm")], wav(_SAMPLES, 24000)),
        ([_inline(_SAMPLES[:100], "audio/L16"), _inline(_SAMPLES[100:], "audio/L16")], wav(_SAMPLES, 24000)),
    ],
)
def test_speech_is_always_a_wav_file(parts: list[Any], expected: bytes) -> None:
    usage = {"promptTokenCount": 4, "candidatesTokenCount": 50}
    reply = _decoded(_candidate(*parts, usageMetadata=usage), Capability.SPEECH)
    assert (reply.artifact, reply.media_type) == (expected, "audio/wav")
    assert (reply.usage.output_tokens, reply.usage.characters) == (50, len("Hello, stars."))


def test_transcription() -> None:
    sound = Media(wav(bytes(16000), 8000), "audio/wav")
    parts = _payload(_encoded(Capability.TRANSCRIPTION, user="", audio=sound))["contents"][0]["parts"]
    assert "word for word" in parts[0]["text"]
    assert parts[1] == _inline(sound.body, "audio/wav")
    asked = _payload(_encoded(Capability.TRANSCRIPTION, user="As minutes.", audio=sound))
    assert asked["contents"][0]["parts"][0] == {"text": "As minutes."}
    reply = _decoded(_candidate({"text": " Hi. "}), Capability.TRANSCRIPTION, audio=sound)
    assert (reply.text, reply.usage.seconds) == ("Hi.", 1.0)
    silence = {"candidates": [{"content": {"role": "model"}, "finishReason": "STOP"}]}
    assert _decoded(silence, Capability.TRANSCRIPTION, audio=sound).text == ""


@pytest.mark.parametrize(
    ("parameters", "shape"),
    [
        ({}, None),
        ({"size": "auto"}, None),
        ({"size": "1024x1024"}, {"aspectRatio": "1:1"}),
        ({"size": "1536x1024"}, {"aspectRatio": "3:2"}),
        ({"size": "1080x1920"}, {"aspectRatio": "9:16", "imageSize": "2K"}),
        ({"size": "4096x4096"}, {"aspectRatio": "1:1", "imageSize": "4K"}),
        ({"size": "1024x1024", "aspect_ratio": "16:9"}, {"aspectRatio": "16:9"}),
        ({"quality": "high"}, None),
    ],
)
def test_picture_shapes(parameters: dict[str, Any], shape: dict[str, str] | None) -> None:
    config = _payload(_encoded(Capability.IMAGE, parameters=parameters))["generationConfig"]
    assert config.get("imageConfig") == shape


def test_pictures() -> None:
    body = _candidate({"text": "Here."}, _inline(png(), "image/png"))
    reply = _decoded(body, Capability.IMAGE)
    assert (reply.artifact, reply.media_type, reply.usage.images) == (png(), "image/png", 1)
    with pytest.raises(EmptyReply, match="No picture today"):
        _decoded(_candidate({"text": "No picture today."}, finish="NO_IMAGE"), Capability.IMAGE)
    with pytest.raises(ContentPolicy):
        _decoded(_candidate(finish="IMAGE_SAFETY"), Capability.IMAGE)


def test_embedding() -> None:
    one = _encoded(Capability.EMBEDDING, parameters={"dimensions": 2, "task_type": "CLUSTERING"})
    assert one.url.endswith("models/gemini-x:embedContent")
    wanted = {"model": "models/gemini-x", "outputDimensionality": 2, "taskType": "CLUSTERING"}
    assert _payload(one) == {**wanted, "content": {"parts": [{"text": "Hello, stars."}]}}
    several = _encoded(Capability.EMBEDDING, texts=("a", "b"))
    assert several.url.endswith(":batchEmbedContents")
    assert len(_payload(several)["requests"]) == 2
    assert _decoded({"embedding": {"values": [1, 2.5]}}, Capability.EMBEDDING).embeddings == ((1.0, 2.5),)
    vectors = {"embeddings": [{"values": [1]}, {"values": [2]}]}
    assert _decoded(vectors, Capability.EMBEDDING, texts=("a", "b")).embeddings == ((1.0,), (2.0,))
    with pytest.raises(ServerError):
        _decoded({"embeddings": [{"values": [1]}]}, Capability.EMBEDDING, texts=("a", "b"))


# --- errors -------------------------------------------------------------------------------------------


def _fault(status: str, message: str = "no", *details: Any, code: int = 400) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "status": status, "details": list(details)}}


_WAIT = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34s"}
_DAILY = {
    "@type": "type.googleapis.com/google.rpc.QuotaFailure",
    "violations": [{"quotaId": "GenerateRequestsPerDayPerProject"}],
}
_KEY = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, _fault("INVALID_ARGUMENT"), BadRequest),
        (400, _fault("INVALID_ARGUMENT", "x", _KEY), AuthFailed),
        (400, _fault("INVALID_ARGUMENT", "API key not valid. Please pass one."), AuthFailed),
        (400, _fault("FAILED_PRECONDITION", "User location is not supported"), QuotaExhausted),
        (
            400,
            _fault("INVALID_ARGUMENT", "The input token count (9) exceeds the maximum number of tokens"),
            TooLarge,
        ),
        (402, _fault("RESOURCE_EXHAUSTED"), QuotaExhausted),
        (403, _fault("PERMISSION_DENIED"), AuthFailed),
        (404, _fault("NOT_FOUND"), NotFound),
        (429, _fault("RESOURCE_EXHAUSTED", "x", _WAIT), RateLimited),
        (429, _fault("RESOURCE_EXHAUSTED", "x", _DAILY, _WAIT), QuotaExhausted),
        (429, [_fault("RESOURCE_EXHAUSTED", "x", _WAIT)], RateLimited),
        (499, _fault("CANCELLED"), TimedOut),
        (500, _fault("INTERNAL"), ServerError),
        (503, _fault("UNAVAILABLE"), Overloaded),
        (504, _fault("DEADLINE_EXCEEDED"), TimedOut),
        (502, b"<html>", ServerError),
    ],
)
def test_classification(status: int, body: Any, expected: type[ProviderError]) -> None:
    error = classify(_owner(), _answer(body, status))
    assert type(error) is expected
    if _WAIT in (body[0] if isinstance(body, list) else body if isinstance(body, dict) else {}).get(
        "error", {}
    ).get("details", []):
        assert error.retry_after == 34.0


@pytest.mark.parametrize(
    ("message", "parameter"),
    [
        ('Invalid JSON payload received. Unknown name "topK" at generation_config', "top_k"),
        ("temperature is not supported for this model", "temperature"),
        ("thinkingLevel is not supported for this model", "reasoning_effort"),
        ('Unknown name "responseJsonSchema": Cannot find field.', "response_format"),
    ],
)
def test_the_refused_parameter_is_named_as_ours(message: str, parameter: str) -> None:
    error = classify(_owner(), _answer(_fault("INVALID_ARGUMENT", message), 400))
    assert isinstance(error, UnsupportedParameter)
    assert error.parameter == parameter


def test_probe_asks_for_the_models() -> None:
    request = probe(_owner(api_version="v1"), KEY)
    assert (request.method, request.url) == ("GET", f"{_HOST}/v1/models?pageSize=50")
    assert request.headers["x-goog-api-key"] == KEY
