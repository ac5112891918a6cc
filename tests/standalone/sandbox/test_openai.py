"""OpenAI's protocol as a client meets it: shapes, limits, refusals."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from standalone.sandbox.tokens import count_tokens

Ask = Callable[..., httpx.Response]
Events = Callable[[httpx.Response], list[tuple[str | None, Any]]]


def test_a_chat_completion_has_the_documented_shape(chat: Ask) -> None:
    answer = chat(model="any-model")
    assert answer.status_code == 200
    assert answer.headers["x-request-id"].startswith("req_")
    assert int(answer.headers["openai-processing-ms"]) >= 1
    assert int(answer.headers["x-ratelimit-remaining-requests"]) > 0
    body = answer.json()
    assert body["object"] == "chat.completion"
    assert body["model"] == "any-model"
    [choice] = body["choices"]
    assert choice["index"] == 0
    assert choice["message"]["role"] == "assistant"
    assert choice["message"]["refusal"] is None
    assert choice["finish_reason"] == "stop"
    assert len(choice["message"]["content"].split()) > 30
    usage = body["usage"]
    assert usage["completion_tokens"] == count_tokens(choice["message"]["content"])
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_the_same_question_gets_the_same_answer_and_another_model_another_one(chat: Ask) -> None:
    def text(**body: Any) -> str:
        return str(chat(**body).json()["choices"][0]["message"]["content"])

    assert text() == text()
    assert text() != text(model="other-model")


@pytest.mark.parametrize(("character", "for_ten_tokens"), [("a", 40), ("ж", 35), ("漢", 12)])
def test_the_prompt_is_counted_by_its_script(chat: Ask, character: str, for_ten_tokens: int) -> None:
    def counted(length: int) -> int:
        return int(chat(character * length).json()["usage"]["prompt_tokens"])

    assert counted(for_ten_tokens) == 10 + 4
    assert counted(for_ten_tokens + 1) == 11 + 4


def test_a_stream_carries_the_same_text_and_the_usage(chat: Ask, events: Events) -> None:
    plain = chat("Tell me about rivers").json()
    streamed = events(chat("Tell me about rivers", stream=True, stream_options={"include_usage": True}))
    assert [name for name, _ in streamed] == [None] * len(streamed)
    assert streamed[-1][1] == "[DONE]"
    *chunks, usage = [data for _, data in streamed[:-1]]
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert text == plain["choices"][0]["message"]["content"]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert all(chunk["usage"] is None for chunk in chunks)
    assert usage["choices"] == []
    assert usage["usage"] == plain["usage"]


def test_a_stream_without_the_option_has_no_usage(chat: Ask, events: Events) -> None:
    chunks = [data for _, data in events(chat(stream=True))]
    assert not any("usage" in chunk for chunk in chunks[:-1])
    assert all(chunk["choices"] for chunk in chunks[:-1])


@pytest.mark.parametrize("question", ["Tell me about rivers", "حدثني عن الأنهار"])
def test_a_token_limit_cuts_the_text_exactly(chat: Ask, question: str) -> None:
    whole = chat(question).json()["choices"][0]["message"]["content"]
    body = chat(question, max_tokens=9).json()
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["usage"]["completion_tokens"] == 9
    assert whole.startswith(body["choices"][0]["message"]["content"])


def test_a_stop_sequence_ends_the_text_before_it(chat: Ask) -> None:
    whole = chat().json()["choices"][0]["message"]["content"]
    choice = chat(stop=[". ", "?"]).json()["choices"][0]
    assert choice["finish_reason"] == "stop"
    assert choice["message"]["content"] == whole[: min(i for s in (". ", "?") if (i := whole.find(s)) >= 0)]


def test_cached_and_reasoning_tokens_are_part_of_the_totals(chat: Ask) -> None:
    text = "a long question " * 50
    plain = chat(text).json()["usage"]
    usage = chat(text, model="gpt-4o+cached-100+written-20+reasoning-40").json()["usage"]
    assert usage["prompt_tokens"] == plain["prompt_tokens"]
    assert usage["prompt_tokens_details"]["cached_tokens"] == 100
    assert usage["prompt_tokens_details"]["cache_write_tokens"] == 20
    assert usage["completion_tokens_details"]["reasoning_tokens"] == 40
    assert usage["completion_tokens"] > 40


def test_reasoning_may_use_the_whole_limit_and_leave_no_text(chat: Ask) -> None:
    body = chat(model="m+reasoning-500", max_completion_tokens=64).json()
    assert body["choices"][0]["message"]["content"] == ""
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["usage"]["completion_tokens"] == 64


def test_several_choices_differ(chat: Ask) -> None:
    body = chat(n=3).json()
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    assert len({choice["message"]["content"] for choice in body["choices"]}) == 3


def test_pictures_are_accepted_and_counted(chat: Ask) -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    parts = [{"type": "text", "text": "Is this picture sharp?"}]
    without = chat(messages=[{"role": "user", "content": parts}]).json()["usage"]["prompt_tokens"]
    with_picture = chat(messages=[{"role": "user", "content": [*parts, picture]}]).json()["usage"][
        "prompt_tokens"
    ]
    assert with_picture == without + 85


_USER = [{"role": "user", "content": "hi"}]
_REFUSED = [
    ({"model": None}, None, None),
    ({"messages": None}, "messages", "missing_required_parameter"),
    ({"messages": "hi"}, "messages", "invalid_type"),
    ({"messages": []}, "messages", "empty_array"),
    ({"messages": [{"role": "robot", "content": "hi"}]}, "messages[0].role", "invalid_value"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "invalid_type"),
    ({"messages": [{"role": "user", "content": None}]}, "messages[0].content", "invalid_type"),
    ({"temperature": 3}, "temperature", "decimal_above_max_value"),
    ({"temperature": "warm"}, "temperature", "invalid_type"),
    ({"max_tokens": 0}, "max_tokens", "integer_below_min_value"),
    ({"max_tokens": 5, "max_completion_tokens": 5}, "max_tokens", "invalid_parameter_combination"),
    ({"stop": ["a", "b", "c", "d", "e"]}, "stop", "array_above_max_length"),
    ({"stream_options": {"include_usage": True}}, "stream_options", None),
    ({"top_k": 5}, "top_k", "unknown_parameter"),
    ({"response_format": {"type": "json_object"}}, "messages", None),
    ({"model": "gpt-5.4-mini", "max_tokens": 5}, "max_tokens", "unsupported_parameter"),
    ({"model": "o3", "max_tokens": 5}, "max_tokens", "unsupported_parameter"),
    ({"model": "gpt-6.2-sol", "temperature": 0.2}, "temperature", "unsupported_value"),
]


@pytest.mark.parametrize(("change", "param", "code"), _REFUSED)
def test_a_wrong_field_is_named(
    chat: Ask, change: dict[str, Any], param: str | None, code: str | None
) -> None:
    answer = chat("hi", **change)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", param, code)
    assert error["message"]


def test_a_reasoning_model_takes_the_current_names_and_defaults(chat: Ask) -> None:
    assert chat(model="gpt-6.2-sol", max_completion_tokens=50, temperature=1).status_code == 200
    assert chat(model="gpt-4o", max_tokens=50, temperature=0.2).status_code == 200


def test_keys_are_required_and_one_is_refused(openai: Ask) -> None:
    missing = openai("chat/completions", key=None)
    assert missing.status_code == 401
    assert missing.json()["error"]["code"] is None
    bad = openai("chat/completions", key="bad-key")
    assert bad.status_code == 401
    assert bad.json()["error"]["code"] == "invalid_api_key"
    assert bad.json()["error"]["message"].startswith("Incorrect API key provided: ba***ey.")


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[" * 100_000, b"null", b"[]"])
def test_a_body_that_is_no_json_object_is_refused(client: httpx.Client, content: bytes) -> None:
    headers = {"Authorization": "Bearer k-12345"}
    answer = client.post("/openai/v1/chat/completions", content=content, headers=headers)
    assert answer.status_code == 400
    assert "could not parse the JSON body" in answer.json()["error"]["message"]


def test_a_body_over_the_limit_is_refused(client: httpx.Client) -> None:
    headers = {"Authorization": "Bearer k-12345"}
    answer = client.post("/openai/v1/embeddings", content=b"x" * (32 * 2**20 + 1), headers=headers)
    assert answer.status_code == 413
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_odd_characters_pass(client: httpx.Client) -> None:
    content = (
        '{"model": "m\\ud800", "messages": [{"role": "user", "content": "\\ud800 \\u0000 {planet} %s \\\\"}]}'
    )
    headers = {"Authorization": "Bearer k-12345"}
    answer = client.post("/openai/v1/chat/completions", content=content, headers=headers)
    assert answer.status_code == 200
    assert answer.json()["model"] == "m?"


def test_unknown_paths_and_methods(client: httpx.Client, openai: Ask) -> None:
    unknown = openai("nonsense")
    assert unknown.status_code == 404
    assert unknown.json()["error"]["message"] == "Invalid URL (POST /v1/nonsense)"
    headers = {"Authorization": "Bearer k-12345"}
    assert client.get("/openai/v1/chat/completions", headers=headers).status_code == 405
    assert client.get("/nobody/v1/models").status_code == 404


def test_models_are_listed(client: httpx.Client) -> None:
    headers = {"Authorization": "Bearer k-12345"}
    body = client.get("/openai/v1/models", headers=headers).json()
    assert body["object"] == "list"
    assert {"id", "object", "created", "owned_by", "shutdown_date"} == set(body["data"][0])
    assert client.get("/openai/v1/models/mine", headers=headers).json()["id"] == "mine"
    assert client.get("/openai/v1/models").status_code == 401
