from __future__ import annotations

import json
from typing import Any

import pytest

from routing.errors import (
    AuthFailed,
    BadRequest,
    ConfigurationError,
    NotFound,
    Overloaded,
    ProviderError,
    QuotaExhausted,
    RateLimited,
    ServerError,
    TooLarge,
)
from routing.media import wav
from routing.providers import CODECS, classify, probe, second_probe
from routing.providers.wire import HttpRequest, HttpResponse
from routing.values import Capability, Media, Provider, Reply
from tests.routing import factories
from tests.routing.factories import KEY

_CODECS = CODECS["elevenlabs"]
_HOST = "https://api.elevenlabs.io"
_SAMPLES = bytes(range(100))


def _owner(base_url: str = _HOST, **fields: Any) -> Provider:
    return factories.provider(base_url, protocol="elevenlabs", **fields)


def _encoded(capability: Capability = Capability.SPEECH, **fields: Any) -> HttpRequest:
    values = {"voice": "21m00", **fields} if capability is Capability.SPEECH else fields
    to = factories.route(values.pop("owner", None) or _owner(), model_id="eleven_v3")
    return _CODECS[capability].encode(factories.call(capability, to=to, **values), KEY)


def _decoded(
    body: bytes, capability: Capability = Capability.SPEECH, *, headers: Any = None, **fields: Any
) -> Reply:
    call = factories.call(capability, to=factories.route(_owner()), **fields)
    return _CODECS[capability].decode(HttpResponse(200, headers or {}, body), call)


def test_speech_request() -> None:
    request = _encoded(
        parameters={"response_format": "wav", "speed": 1.1, "stability": 0.5, "language": "en", "seed": 7}
    )
    assert request.url == f"{_HOST}/v1/text-to-speech/21m00?output_format=wav_24000"
    assert dict(request.headers) == {"content-type": "application/json", "xi-api-key": KEY}
    assert json.loads(request.body) == {
        "text": "Hello, stars.",
        "model_id": "eleven_v3",
        "language_code": "en",
        "seed": 7,
        "voice_settings": {"speed": 1.1, "stability": 0.5},
    }


@pytest.mark.parametrize(
    ("parameters", "query"),
    [
        ({}, ""),
        ({"response_format": "mp3"}, "?output_format=mp3_44100_128"),
        ({"response_format": "pcm"}, "?output_format=pcm_24000"),
        ({"output_format": "ulaw_8000", "response_format": "wav"}, "?output_format=ulaw_8000"),
    ],
)
def test_formats_go_by_their_names_here(parameters: dict[str, Any], query: str) -> None:
    address = f"{_HOST}/v1/text-to-speech/21m00{query}"
    assert _encoded(parameters=parameters, owner=_owner(f"{_HOST}/v1")).url == address


def test_a_voice_is_needed_and_goes_into_the_path() -> None:
    assert "/v1/text-to-speech/a%2Fb" in _encoded(voice="a/b").url
    with pytest.raises(ConfigurationError, match="default_parameters"):
        _encoded(voice=None)


@pytest.mark.parametrize(
    ("body", "parameters", "expected", "media_type"),
    [
        (b"ID3\x04mp3", {}, b"ID3\x04mp3", "audio/mpeg"),
        (wav(_SAMPLES, 24000), {"response_format": "wav"}, wav(_SAMPLES, 24000), "audio/wav"),
        (_SAMPLES, {"response_format": "pcm"}, wav(_SAMPLES, 24000), "audio/wav"),
        (_SAMPLES, {"output_format": "pcm_16000"}, wav(_SAMPLES, 16000), "audio/wav"),
        (b"\x00\x00\x00", {"output_format": "mp3_22050_32"}, b"\x00\x00\x00", "audio/mpeg"),
    ],
)
def test_speech_answers(body: bytes, parameters: dict[str, Any], expected: bytes, media_type: str) -> None:
    headers = {"request-id": "r1", "character-cost": "6", "content-type": "application/octet-stream"}
    reply = _decoded(body, headers=headers, parameters=parameters)
    assert (reply.artifact, reply.media_type, reply.request_id) == (expected, media_type, "r1")
    assert (reply.usage.characters, reply.usage.raw) == (len("Hello, stars."), {"character-cost": "6"})


@pytest.mark.parametrize(
    ("body", "content_type"), [(b"", "audio/mpeg"), (b"<html>", "text/html"), (b"{}", "application/json")]
)
def test_answers_without_audio(body: bytes, content_type: str) -> None:
    with pytest.raises(ServerError, match="no audio"):
        _decoded(body, headers={"content-type": content_type})


def test_transcription() -> None:
    sound = Media(wav(bytes(16000), 8000), "audio/wav")
    request = _encoded(Capability.TRANSCRIPTION, audio=sound, parameters={"language": "en", "diarize": True})
    assert request.url == f"{_HOST}/v1/speech-to-text"
    for part in (b'name="model_id"\r\n\r\neleven_v3', b'name="language_code"\r\n\r\nen', b"\r\n\r\ntrue\r\n"):
        assert part in request.body
    assert b'filename="file.wav"\r\nContent-Type: audio/wav\r\n\r\nRIFF' in request.body
    told = {"text": "Hi. ", "language_code": "eng", "audio_duration_secs": 2.5, "words": [{"text": "Hi."}]}
    reply = _decoded(json.dumps(told).encode(), Capability.TRANSCRIPTION, audio=sound)
    assert (reply.text, reply.usage.seconds, reply.usage.estimated) == ("Hi.", 2.5, False)
    assert reply.data["language_code"] == "eng"
    reply = _decoded(b'{"text": "Hi."}', Capability.TRANSCRIPTION, audio=sound)
    assert (reply.usage.seconds, reply.usage.estimated) == (1.0, True)
    with pytest.raises(ServerError):
        _decoded(b"{}", Capability.TRANSCRIPTION, audio=sound)


def _fault(code: str) -> dict[str, Any]:
    return {"detail": {"type": "x", "code": code, "message": "no", "status": code}}


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, _fault("text_too_long"), TooLarge),
        (400, {"detail": {"status": "max_character_limit_exceeded", "message": "no"}}, TooLarge),
        (400, _fault("invalid_parameters"), BadRequest),
        (400, _fault("voice_not_found"), NotFound),
        (400, _fault("unsupported_model"), NotFound),
        (401, _fault("invalid_api_key"), AuthFailed),
        (401, {"detail": {"status": "quota_exceeded", "message": "no"}}, QuotaExhausted),
        (402, _fault("insufficient_credits"), QuotaExhausted),
        (403, _fault("subscription_required"), AuthFailed),
        (404, _fault("model_not_found"), NotFound),
        (409, _fault("already_running"), BadRequest),
        (
            422,
            {"detail": [{"loc": ["body", "text"], "msg": "field required", "type": "missing"}]},
            BadRequest,
        ),
        (425, _fault("too_early"), Overloaded),
        (429, _fault("rate_limit_exceeded"), RateLimited),
        (429, _fault("concurrent_limit_exceeded"), RateLimited),
        (429, _fault("system_busy"), Overloaded),
        (500, _fault("internal_error"), ServerError),
        (503, _fault("maintenance"), Overloaded),
        (502, b"<html>", ServerError),
    ],
)
def test_classification(status: int, body: Any, expected: type[ProviderError]) -> None:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    error = classify(_owner(), HttpResponse(status, {"request-id": "r1"}, raw))
    assert (type(error), error.request_id) == (expected, "r1")


def test_probes() -> None:
    first, second = probe(_owner(), KEY), second_probe(_owner(), KEY)
    assert second is not None
    assert [first.url, second.url] == [f"{_HOST}/v1/user", f"{_HOST}/v1/models"]
    assert first.headers["xi-api-key"] == second.headers["xi-api-key"] == KEY
    assert second_probe(factories.provider(), KEY) is None
