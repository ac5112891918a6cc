"""The OpenAI protocol beside chat: pictures in and out, recordings, and `/responses`."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from routing.errors import (
    ConfigurationError,
    ContentPolicy,
    ProviderError,
    RateLimited,
    ServerError,
    TooLarge,
)
from routing.media import wav
from routing.providers import codec
from routing.providers.wire import HttpRequest, HttpResponse
from routing.values import Capability, FinishReason, Media, Provider, Reply, Turn, Usage
from tests.routing import factories
from tests.routing.factories import KEY, png

_PICTURE = Media(png(), "image/png")
_DATA_URL = f"data:image/png;base64,{base64.b64encode(png()).decode()}"
_SOUND = Media(wav(bytes(16000), 8000), "audio/wav")


def _encoded(
    capability: Capability, *, style: str = "chat", owner: Provider | None = None, **fields: Any
) -> HttpRequest:
    to = factories.route(owner, api_style=style)
    return codec(to, capability).encode(factories.call(capability, to=to, **fields), KEY)


def _payload(request: HttpRequest) -> dict[str, Any]:
    payload = json.loads(request.body)
    assert isinstance(payload, dict)
    return payload


def _decoded(
    body: Any,
    capability: Capability,
    *,
    style: str = "chat",
    content_type: str = "application/json",
    **fields: Any,
) -> Reply:
    to = factories.route(api_style=style)
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = HttpResponse(200, {"content-type": content_type}, raw)
    return codec(to, capability).decode(response, factories.call(capability, to=to, **fields))


def test_vision_by_chat() -> None:
    payload = _payload(_encoded(Capability.VISION, images=(_PICTURE,), parameters={"image_detail": "low"}))
    assert payload["messages"][-1]["content"] == [
        {"type": "text", "text": "Hello, stars."},
        {"type": "image_url", "image_url": {"url": _DATA_URL, "detail": "low"}},
    ]
    assert "image_detail" not in payload
    [picture] = _payload(_encoded(Capability.VISION, user="", images=(_PICTURE,)))["messages"][-1]["content"]
    assert picture["image_url"] == {"url": _DATA_URL}


# --- transcription ------------------------------------------------------------------------------------


def test_transcription_request() -> None:
    request = _encoded(
        Capability.TRANSCRIPTION,
        audio=_SOUND,
        user="Orrery, lanes",
        parameters={"language": "en", "timestamp_granularities": ["word", "segment"], "diarize": True},
    )
    assert request.url == "https://api.example.com/v1/audio/transcriptions"
    assert request.headers["content-type"].startswith("multipart/form-data; boundary=")
    boundary = request.headers["content-type"].partition("=")[2].encode()
    parts = request.body.split(b"--" + boundary)
    assert parts[-1] == b"--\r\n"
    bodies = [part.partition(b"\r\n\r\n")[::2] for part in parts[1:-1]]
    assert [content.removesuffix(b"\r\n") for _, content in bodies] == [
        *(b"acme-large", b"Orrery, lanes", b"en", b"word", b"segment"),
        _SOUND.body,
    ]
    assert b'name="file"; filename="file.wav"\r\nContent-Type: audio/wav' in bodies[-1][0]
    assert b"prompt" not in _encoded(Capability.TRANSCRIPTION, audio=_SOUND, user="").body


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            {"text": "Hi.", "usage": {"type": "tokens", "input_tokens": 14, "output_tokens": 3}},
            (14, 3, None, False),
        ),
        ({"text": "Hi.", "usage": {"type": "duration", "seconds": 7}}, (None, None, 7.0, False)),
        ({"text": "Hi.", "duration": 3.5}, (None, None, 3.5, False)),
        ({"text": "Hi.", "duration": "3.5"}, (None, None, 3.5, False)),
        ({"text": "Hi."}, (None, 1, 1.0, True)),  # a WAV file says how long it is
    ],
)
def test_transcription_is_counted_in_tokens_or_seconds(body: Any, expected: tuple[Any, ...]) -> None:
    reply = _decoded(body, Capability.TRANSCRIPTION, audio=_SOUND)
    usage = reply.usage
    assert reply.text == "Hi."
    assert (usage.input_tokens, usage.output_tokens, usage.seconds, usage.estimated) == expected


def test_transcripts_may_be_plain_text_or_hold_more() -> None:
    plain = _decoded(b"1\n00:00 --> 00:01\nHi.\n", Capability.TRANSCRIPTION, content_type="text/plain")
    assert str(plain.text).endswith("Hi.")
    more = _decoded({"text": "", "language": "english", "words": []}, Capability.TRANSCRIPTION)
    assert (more.text, more.data) == ("", {"language": "english", "words": []})
    with pytest.raises(ServerError):
        _decoded({}, Capability.TRANSCRIPTION)


# --- pictures -----------------------------------------------------------------------------------------


def test_pictures() -> None:
    request = _encoded(Capability.IMAGE, parameters={"size": "1536x1024", "quality": "low"})
    assert request.url == "https://api.example.com/v1/images/generations"
    assert _payload(request) == {
        "model": "acme-large",
        "prompt": "Hello, stars.",
        "size": "1536x1024",
        "quality": "low",
    }
    usage = {"input_tokens": 10, "output_tokens": 272, "input_tokens_details": {"text_tokens": 10}}
    encoded = base64.b64encode(png()).decode()
    body = {"data": [{"b64_json": encoded, "revised_prompt": "Stars"}], "usage": usage}
    reply = _decoded(body, Capability.IMAGE)
    assert (reply.artifact, reply.media_type, reply.data) == (png(), "image/png", {"revised_prompt": "Stars"})
    assert reply.usage == Usage(10, 272, images=1, raw=usage)


@pytest.mark.parametrize("url", [_DATA_URL, "https://cdn.example.com/p.png"])
def test_pictures_that_lie_elsewhere(url: str) -> None:
    reply = _decoded({"data": [{"url": url}]}, Capability.IMAGE)
    assert (reply.artifact, reply.artifact_url) == ((png(), None) if url == _DATA_URL else (None, url))


@pytest.mark.parametrize(
    "body",
    [
        {"data": []},
        {"data": [{}]},
        {"data": [{"b64_json": "###"}]},
        {"data": [{"b64_json": "AAAA"}]},
        {"data": [{"url": "ftp://x/"}]},
        b"",
    ],
)
def test_answers_without_a_picture(body: Any) -> None:
    with pytest.raises(ServerError):
        _decoded(body, Capability.IMAGE)


# --- /responses ---------------------------------------------------------------------------------------


def test_responses_request() -> None:
    schema = {"type": "object"}
    request = _encoded(
        Capability.VISION,
        style="responses",
        images=(_PICTURE,),
        history=(Turn("user", "Hi"), Turn("assistant", "Hello")),
        parameters={
            "max_tokens": 50,
            "reasoning_effort": "low",
            "verbosity": "low",
            "seed": 7,
            "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}},
        },
    )
    assert request.url == "https://api.example.com/v1/responses"
    assert _payload(request) == {
        "model": "acme-large",
        "instructions": "Be brief.",
        "input": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello"},
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "Hello, stars."},
                    {"type": "input_image", "image_url": _DATA_URL},
                ],
            },
        ],
        "store": False,
        "max_output_tokens": 50,
        "reasoning": {"effort": "low"},
        "text": {"verbosity": "low", "format": {"type": "json_schema", "name": "n", "schema": schema}},
    }


def test_other_capabilities_know_no_styles() -> None:
    route = factories.route(api_style="responses")
    assert (
        codec(route, Capability.SPEECH)
        .encode(factories.call(Capability.SPEECH), None)
        .url.endswith("/audio/speech")
    )
    anthropic = factories.route(factories.provider(protocol="anthropic"), api_style="responses")
    with pytest.raises(ConfigurationError, match="has no speech"):
        codec(anthropic, Capability.SPEECH)


def _response(*chunks: Any, status: str = "completed", **extra: Any) -> dict[str, Any]:
    output = [{"type": "reasoning", "summary": []}, {"type": "message", "content": list(chunks)}]
    return {"id": "resp_1", "model": "acme-1", "status": status, "error": None, "output": output, **extra}


def _text(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": []}


def test_responses_answer() -> None:
    usage = {
        "input_tokens": 100,
        "input_tokens_details": {"cached_tokens": 40, "cache_write_tokens": 8},
        "output_tokens": 50,
        "output_tokens_details": {"reasoning_tokens": 30},
    }
    body = _response(_text("A"), _text("B"), usage=usage, service_tier="flex")
    reply = _decoded(body, Capability.TEXT, style="responses")
    assert (reply.text, reply.finish_reason, reply.response_id) == ("AB", FinishReason.STOP, "resp_1")
    assert reply.usage == Usage(100, 50, 40, 8, 30, raw=usage, batch_rate=True)


def _incomplete(reason: str, *chunks: Any) -> dict[str, Any]:
    return _response(*chunks, status="incomplete", incomplete_details={"reason": reason})


def test_responses_that_end_early() -> None:
    cut = _decoded(_incomplete("max_output_tokens", _text("A")), Capability.TEXT, style="responses")
    assert cut.finish_reason is FinishReason.LENGTH
    steered = _decoded(_incomplete("steered", _text("A")), Capability.TEXT, style="responses")
    assert steered.finish_reason is FinishReason.OTHER


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (_incomplete("content_filter", _text("A")), ContentPolicy),
        (_incomplete("max_output_tokens"), TooLarge),
        (_response({"type": "refusal", "refusal": "No."}), ContentPolicy),
        (_response(status="in_progress"), ServerError),
        ({"status": "completed"}, ServerError),
        (_response(status="failed"), ServerError),
        (
            {**_response(status="failed"), "error": {"code": "rate_limit_exceeded", "message": "slow"}},
            RateLimited,
        ),
        ({**_response(status="failed"), "error": {"code": "server_error", "message": "no"}}, ServerError),
    ],
)
def test_responses_that_failed(body: Any, expected: type[ProviderError]) -> None:
    with pytest.raises(ProviderError) as caught:
        _decoded(body, Capability.TEXT, style="responses")
    assert type(caught.value) is expected
