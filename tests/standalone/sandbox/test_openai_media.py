"""OpenAI's routes beside chat: transcription, pictures, and ``/responses``."""

import base64
import json
import struct
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from routing.sse import EventReader
from standalone.sandbox.picture import draw

KEY = "sk-sandbox-1234"
Ask = Callable[..., httpx.Response]


@pytest.fixture
def transcribe(client: httpx.Client) -> Ask:
    def ask(recording: bytes | None, name: str = "file.wav", **fields: str) -> httpx.Response:
        files = None if recording is None else {"file": (name, recording, "audio/wav")}
        return client.post(
            "/openai/v1/audio/transcriptions",
            data={"model": "gpt-transcribe", **fields},
            files=files or {"other": ("", b"")},
            headers={"Authorization": f"Bearer {KEY}"},
        )

    return ask


@pytest.mark.parametrize("text", ["Hello, stars.", "مرحبا أيها النجم", "Odd"])
def test_it_hears_what_it_said(openai: Ask, transcribe: Ask, text: str) -> None:
    spoken = openai("audio/speech", model="tts-1", input=text, voice="alloy").content
    assert struct.unpack_from("<I", spoken, 4)[0] == len(spoken) - 8
    body = transcribe(spoken).json()
    assert (body["text"], body["usage"]["type"]) == (text, "tokens")
    timed = transcribe(spoken, model="whisper-1", response_format="verbose_json").json()
    assert (timed["usage"]["type"], timed["segments"][0]["text"]) == ("duration", text)
    assert transcribe(spoken, response_format="text").text == f"{text}\n"
    assert text in transcribe(spoken, response_format="srt").text
    assert transcribe(spoken, response_format="vtt").text.startswith("WEBVTT")


def test_of_other_recordings_it_makes_something_up(transcribe: Ask) -> None:
    first, again, other = (transcribe(bytes(size)).json()["text"] for size in (500, 500, 600))
    assert first == again != other


def test_wrong_uploads(openai: Ask, transcribe: Ask) -> None:
    assert openai("audio/transcriptions", model="m").json()["error"]["message"].startswith("Could not parse")
    assert transcribe(b"").status_code == 400
    assert transcribe(None).json()["error"]["param"] == "file"
    assert transcribe(b"x", "file.exe").json()["error"]["code"] == "unsupported_value"
    assert transcribe(b"x", response_format="xml").status_code == 400


def test_pictures(openai: Ask) -> None:
    body = openai("images/generations", model="gpt-image-2", prompt="Stars", size="1536x1024", n=2).json()
    first, second = (base64.b64decode(one["b64_json"]) for one in body["data"])
    assert first != second
    assert struct.unpack(">II", first[16:24]) == (128, 85)
    assert body["usage"]["total_tokens"] == body["usage"]["input_tokens"] + body["usage"]["output_tokens"]
    assert draw("a", "auto") == draw("a", "auto") != draw("b", "auto")


@pytest.mark.parametrize(
    "change",
    [{"prompt": ""}, {"prompt": 7}, {"n": 11}, {"response_format": "url"}, {"output_format": "gif"}],
)
def test_wrong_picture_requests(openai: Ask, change: dict[str, Any]) -> None:
    body = {"model": "gpt-image-2", "prompt": "Stars", **change}
    assert openai("images/generations", **body).status_code == 400


def test_responses(openai: Ask) -> None:
    body = openai("responses", model="m+cached-3+reasoning-40", input="What is a star?", store=False).json()
    assert (body["status"], body["object"], body["store"]) == ("completed", "response", False)
    message = body["output"][-1]
    assert len(message["content"][0]["text"]) > 20
    details = body["usage"]["input_tokens_details"], body["usage"]["output_tokens_details"]
    assert (details[0]["cached_tokens"], details[1]["reasoning_tokens"]) == (3, 40)
    cut = openai("responses", model="m", input="What is a star?", max_output_tokens=16).json()
    assert (cut["status"], cut["incomplete_details"]["reason"]) == ("incomplete", "max_output_tokens")
    image = {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}
    asked = [{"role": "user", "content": [{"type": "input_text", "text": "What is it?"}, image]}]
    assert openai("responses", model="m", input=asked, instructions="Be brief.").status_code == 200
    schema = {"type": "json_schema", "name": "n", "schema": {"type": "object", "required": ["a"]}}
    told = openai("responses", model="m", input="x", text={"format": schema}).json()
    assert '"a"' in told["output"][-1]["content"][0]["text"]


@pytest.mark.parametrize(
    "change",
    [
        {"input": None},
        {"input": []},
        {"input": [{"role": "tool", "content": "x"}]},
        {"input": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]},
        {"max_output_tokens": 3},
        {"messages": []},
        {"background": True},
        {"text": {"format": {"type": "json_schema"}}},
        {"text": {"format": {"type": "xml"}}},
    ],
)
def test_wrong_responses_requests(openai: Ask, change: dict[str, Any]) -> None:
    body = {"model": "m", "input": "x", **change}
    assert openai("responses", **body).status_code == 400


def test_a_streamed_response_ends_with_the_whole(openai: Ask) -> None:
    reader = EventReader()
    said = openai("responses", model="m", input="x", stream=True)
    events = [(event.name, json.loads(event.data)) for event in reader.feed(said.content)]

    assert said.headers["content-type"].startswith("text/event-stream")
    assert [name for name, _ in events][:2] == ["response.created", "response.in_progress"]
    name, last = events[-1]
    assert name == last["type"] == "response.completed"
    deltas = [data["delta"] for name, data in events if name == "response.output_text.delta"]
    assert "".join(deltas) == last["response"]["output"][-1]["content"][0]["text"]
