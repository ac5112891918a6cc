"""Anthropic's protocol as a client meets it: shapes, limits, refusals."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from standalone.sandbox.tokens import count_tokens

Ask = Callable[..., httpx.Response]
Events = Callable[[httpx.Response], list[tuple[str | None, Any]]]


def test_a_message_has_the_documented_shape(message: Ask) -> None:
    answer = message(model="any-model", system="You are kind.")
    assert answer.status_code == 200
    assert answer.headers["request-id"].startswith("req_")
    body = answer.json()
    assert body["id"].startswith("msg_")
    assert (body["type"], body["role"], body["model"]) == ("message", "assistant", "any-model")
    [block] = body["content"]
    assert block["type"] == "text"
    assert (body["stop_reason"], body["stop_sequence"]) == ("end_turn", None)
    assert body["usage"]["output_tokens"] == count_tokens(block["text"])
    assert body["usage"]["input_tokens"] > 8


def test_a_stream_names_its_events_and_ends_with_the_totals(message: Ask, events: Events) -> None:
    plain = message("Tell me about rivers").json()
    streamed = events(message("Tell me about rivers", stream=True))
    names = [name for name, _ in streamed]
    assert names == [data["type"] for _, data in streamed]
    assert names[:3] == ["message_start", "content_block_start", "ping"]
    assert names[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    start = streamed[0][1]["message"]
    assert start["content"] == []
    assert start["usage"]["input_tokens"] == plain["usage"]["input_tokens"]
    deltas = [data["delta"]["text"] for name, data in streamed if name == "content_block_delta"]
    assert "".join(deltas) == plain["content"][0]["text"]
    last = streamed[-2][1]
    assert last["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}
    assert last["usage"] == plain["usage"]


def test_limits_and_stop_sequences(message: Ask) -> None:
    whole = message().json()["content"][0]["text"]
    cut = message(max_tokens=7).json()
    assert cut["stop_reason"] == "max_tokens"
    assert cut["usage"]["output_tokens"] == 7
    assert whole.startswith(cut["content"][0]["text"])
    stopped = message(stop_sequences=["zzz", ". "]).json()
    assert (stopped["stop_reason"], stopped["stop_sequence"]) == ("stop_sequence", ". ")
    assert stopped["content"][0]["text"] == whole[: whole.index(". ")]


def test_cached_tokens_are_left_out_of_the_input(message: Ask) -> None:
    text = "a long question " * 50
    total = message(text).json()["usage"]["input_tokens"]
    usage = message(text, model="m+cached-100+written-20+reasoning-40").json()["usage"]
    assert usage["input_tokens"] == total - 120
    assert usage["cache_read_input_tokens"] == 100
    assert usage["cache_creation_input_tokens"] == 20
    assert usage["output_tokens_details"]["thinking_tokens"] == 40
    assert usage["output_tokens"] > 40


def test_counting_agrees_with_the_bill(anthropic: Ask, message: Ask) -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "How long is this?"}]}]
    counted = anthropic("messages/count_tokens", model="m", system="Be brief.", messages=messages)
    assert set(counted.json()) == {"input_tokens"}
    billed = message(model="m", system=[{"type": "text", "text": "Be brief."}], messages=messages)
    assert counted.json()["input_tokens"] == billed.json()["usage"]["input_tokens"]


@pytest.mark.parametrize("name", ["temperature", "top_p", "top_k"])
def test_sampling_belongs_to_the_old_version(anthropic: Ask, name: str) -> None:
    body = {"max_tokens": 9, "messages": [{"role": "user", "content": "hi"}], name: 1}
    refused = anthropic("messages", model="claude-haiku-4-5", **body)
    assert refused.status_code == 400
    assert refused.json()["error"]["message"] == f"{name}: Extra inputs are not permitted"
    old = anthropic("messages", version="2023-06-01", model="claude-haiku-4-5", **body)
    assert old.status_code == 200
    body[name] = 0
    newer = anthropic("messages", version="2023-06-01", model="claude-opus-5-5", **body)
    assert newer.status_code == 400
    assert newer.json()["error"]["message"] == f"`{name}` is deprecated for this model"


_REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"model": 5}, "model: Input should be a valid string"),
    ({"max_tokens": 0}, "max_tokens: Input should be greater than or equal to 1"),
    ({"max_tokens": "9"}, "max_tokens: Input should be a valid integer"),
    ({"messages": []}, "messages: at least one message is required"),
    ({"messages": "hi"}, "messages: Input should be a valid list"),
    ({"messages": [{"role": "user"}]}, "messages.0.content: Field required"),
    ({"messages": [{"role": "robot", "content": "hi"}]}, "messages.0.role: Input should be 'user'"),
    ({"messages": [{"role": "user", "content": ""}]}, "messages.0: user messages must have non-empty"),
    ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "messages.0.content.0.source.type"),
    ({"presence_penalty": 1}, "presence_penalty: Extra inputs are not permitted"),
    ({"stop_sequences": [" "]}, "stop_sequences: each stop sequence must contain"),
]


@pytest.mark.parametrize(("change", "start"), _REFUSED)
def test_a_wrong_field_is_named(message: Ask, change: dict[str, Any], start: str) -> None:
    answer = message("hi", **change)
    assert answer.status_code == 400
    body = answer.json()
    assert (body["type"], body["error"]["type"]) == ("error", "invalid_request_error")
    assert body["error"]["message"].startswith(start)
    assert body["request_id"] == answer.headers["request-id"]


def test_required_fields(anthropic: Ask) -> None:
    complete = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
    for name in complete:
        rest = {key: value for key, value in complete.items() if key != name}
        assert anthropic("messages", **rest).json()["error"]["message"] == f"{name}: Field required"


def test_prefill_depends_on_the_model(message: Ask) -> None:
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Well,"}]
    assert message(model="claude-haiku-4-5", messages=turns).status_code == 200
    assert message(model="claude-sonnet-5-5", messages=turns).status_code == 400


def test_keys_and_versions(client: httpx.Client, anthropic: Ask) -> None:
    def error(answer: httpx.Response) -> tuple[int, str]:
        return answer.status_code, answer.json()["error"]["type"]

    assert error(anthropic("messages", key=None)) == (401, "authentication_error")
    bad = anthropic("messages", key="bad-key")
    assert error(bad) == (401, "authentication_error")
    assert bad.json()["error"]["message"] == "invalid x-api-key"
    assert error(anthropic("messages", version=None)) == (400, "invalid_request_error")
    assert error(anthropic("messages", version="2020-01-01")) == (400, "invalid_request_error")
    bearer = {"Authorization": "Bearer some-key", "anthropic-version": "2026-10-21"}
    assert client.get("/anthropic/v1/models", headers=bearer).status_code == 200
    both = {**bearer, "x-api-key": "bad-key"}
    assert client.get("/anthropic/v1/models", headers=both).status_code == 401


def test_unknown_paths_and_bodies(client: httpx.Client, anthropic: Ask) -> None:
    unknown = anthropic("nonsense")
    assert (unknown.status_code, unknown.json()["error"]["type"]) == (404, "not_found_error")
    headers = {"x-api-key": "some-key", "anthropic-version": "2026-10-21"}
    broken = client.post("/anthropic/v1/messages", content=b"{", headers=headers)
    assert (broken.status_code, broken.json()["error"]["type"]) == (400, "invalid_request_error")
    huge = client.post("/anthropic/v1/messages", content=b"x" * (32 * 2**20 + 1), headers=headers)
    assert (huge.status_code, huge.json()["error"]["type"]) == (413, "request_too_large")


def test_models_are_paged(client: httpx.Client) -> None:
    headers = {"x-api-key": "some-key", "anthropic-version": "2026-10-21"}
    seen: list[str] = []
    after = ""
    while True:
        page = client.get(f"/anthropic/v1/models?limit=4&after_id={after}", headers=headers).json()
        seen += [model["id"] for model in page["data"]]
        after = page["last_id"]
        if not page["has_more"]:
            break
    whole = client.get("/anthropic/v1/models?limit=1000", headers=headers).json()
    assert seen == [model["id"] for model in whole["data"]]
    assert len(seen) == len(set(seen)) > 4
