"""``POST /v1/messages``, plain and streamed, and its token counter."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from standalone.sandbox.completion import Completion, Limits, complete, count_prompt, pieces
from standalone.sandbox.prose.prompt import Prompt
from standalone.sandbox.values import Answer, Call, Refusal, encode_json, fresh_id, json_answer

Body = Mapping[str, Any]

_COUNTED = frozenset(
    [
        "model",
        "messages",
        "system",
        "tools",
        "tool_choice",
        "thinking",
        "output_config",
        "cache_control",
        "speed",
        "mcp_servers",
        "container",
        "context_management",
        "temperature",
        "top_p",
        "top_k",
    ]
)
_KNOWN = _COUNTED | frozenset(
    ["max_tokens", "stop_sequences", "metadata", "service_tier", "inference_geo", "stream"]
)
_ROLES = ("user", "assistant", "system")
_BLOCKS = frozenset(
    [
        "text",
        "image",
        "document",
        "thinking",
        "redacted_thinking",
        "tool_use",
        "tool_result",
        "search_result",
        "server_tool_use",
        "web_search_tool_result",
        "web_fetch_tool_result",
        "container_upload",
    ]
)
_SAMPLING = {"temperature": 1.0, "top_p": 1.0, "top_k": 1_000_000_000}
_FIXED_SAMPLING = re.compile(
    r"claude-(?:opus-(?:4-[7-9]|[5-9])|sonnet-[5-9]|haiku-(?:5-[5-9]|[6-9])|fable|mythos)"
)
_NO_PREFILL = re.compile(r"claude-(?:(?:opus|sonnet)-(?:4-[6-9]|[5-9])|haiku-[5-9]|fable|mythos)")


async def create_message(_: Call, body: Body, version: str) -> Answer:
    _check_fields(body, version, _KNOWN)
    _check_sampling(body)
    model: str = body["model"]
    prompt = _prompt(body, model)
    limits = Limits(_max_tokens(body), _stop_sequences(body))
    completion = complete(prompt, model, limits, json_schema=_json_schema(body))
    head = {"id": fresh_id("msg_"), "type": "message", "role": "assistant", "model": model}
    if _flag(body, "stream"):
        events = tuple(_events(head, completion))
        return Answer(200, b"text/event-stream; charset=utf-8", events, streamed=True)
    content = [{"type": "text", "text": completion.text}] if completion.text else []
    return json_answer({**head, "content": content, **_ending(completion), "usage": _usage(completion)})


async def count_message_tokens(_: Call, body: Body, version: str) -> Answer:
    _check_fields(body, version, _COUNTED)
    return json_answer({"input_tokens": count_prompt(_prompt(body, body["model"]))})


def _ending(completion: Completion) -> dict[str, Any]:
    reason = {"stop": "end_turn", "length": "max_tokens"}.get(completion.finish, "stop_sequence")
    return {"stop_reason": reason, "stop_sequence": completion.stop_sequence}


def _usage(completion: Completion) -> dict[str, Any]:
    """``input_tokens`` leaves out cached and written tokens; ``output_tokens`` includes the thinking."""
    usage = completion.usage
    return {
        "input_tokens": usage.prompt - usage.cached - usage.written,
        "cache_creation_input_tokens": usage.written,
        "cache_read_input_tokens": usage.cached,
        "cache_creation": {"ephemeral_5m_input_tokens": usage.written, "ephemeral_1h_input_tokens": 0},
        "output_tokens": usage.completion,
        "output_tokens_details": {"thinking_tokens": usage.reasoning},
        "service_tier": "standard",
    }


def _events(head: Mapping[str, Any], completion: Completion) -> Iterator[bytes]:
    usage = _usage(completion)
    opening = {**head, "content": [], "stop_reason": None, "stop_sequence": None}
    yield _event("message_start", message={**opening, "usage": {**usage, "output_tokens": 1}})
    if completion.text:
        yield _event("content_block_start", index=0, content_block={"type": "text", "text": ""})
        yield _event("ping")
        for piece in pieces(completion.text):
            yield _event("content_block_delta", index=0, delta={"type": "text_delta", "text": piece})
        yield _event("content_block_stop", index=0)
    yield _event("message_delta", delta=_ending(completion), usage=usage)
    yield _event("message_stop")


def _event(name: str, **data: Any) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), encode_json({"type": name, **data}))


def _check_fields(body: Body, version: str, known: frozenset[str]) -> None:
    for name in ("model", "messages"):
        if name not in body:
            raise _refuse(name, "Field required")
    if not isinstance(body["model"], str):
        raise _refuse("model", "Input should be a valid string")
    if not body["model"]:
        raise _refuse("model", "String should have at least 1 character")
    removed = frozenset(_SAMPLING) if version >= "2026-10-21" else frozenset()
    for name in body:
        if name not in known or name in removed:
            raise _refuse(name, "Extra inputs are not permitted")


def _check_sampling(body: Body) -> None:
    for name, default in _SAMPLING.items():
        value = body.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _refuse(name, "Input should be a valid number")
        if _FIXED_SAMPLING.match(body["model"]) and value != default:
            raise Refusal(400, f"`{name}` is deprecated for this model")
        if value < 0:
            raise _refuse(name, "Input should be greater than or equal to 0")
        if value > default:
            raise _refuse(name, f"Input should be less than or equal to {default:g}")


def _max_tokens(body: Body) -> int:
    if "max_tokens" not in body:
        raise _refuse("max_tokens", "Field required")
    value = body["max_tokens"]
    if isinstance(value, bool) or not isinstance(value, int):
        raise _refuse("max_tokens", "Input should be a valid integer")
    if value < 1:
        raise _refuse("max_tokens", "Input should be greater than or equal to 1")
    return value


def _stop_sequences(body: Body) -> tuple[str, ...]:
    sequences = body.get("stop_sequences") or []
    if not isinstance(sequences, list) or not all(isinstance(one, str) for one in sequences):
        raise _refuse("stop_sequences", "Input should be a valid list of strings")
    if not all(one.strip() for one in sequences):
        raise _refuse("stop_sequences", "each stop sequence must contain non-whitespace")
    return tuple(sequences)


def _flag(body: Body, name: str) -> bool:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise _refuse(name, "Input should be a valid boolean")
    return bool(value)


def _json_schema(body: Body) -> Mapping[str, Any] | None:
    config = body.get("output_config")
    if config is None:
        return None
    if not isinstance(config, dict):
        raise _refuse("output_config", "Input should be a valid dictionary")
    wanted = config.get("format")
    if wanted is None:
        return None
    if not isinstance(wanted, dict) or wanted.get("type") != "json_schema":
        raise _refuse("output_config.format.type", "Input should be 'json_schema'")
    schema = wanted.get("schema")
    if not isinstance(schema, dict):
        raise _refuse("output_config.format.schema", "Field required")
    return schema


def _prompt(body: Body, model: str) -> Prompt:
    messages = body["messages"]
    if not isinstance(messages, list):
        raise _refuse("messages", "Input should be a valid list")
    if not messages:
        raise _refuse("messages", "at least one message is required")
    system, images = _content(body.get("system") or "", "system")
    parts = [system] if system else []
    turns: list[tuple[str, str]] = []
    for index, message in enumerate(messages):
        role, text, pictures = _turn(message, f"messages.{index}")
        images += pictures
        if role == "system":
            parts.append(text)
        else:
            turns.append((role, text))
    if turns and turns[-1][0] == "assistant" and _NO_PREFILL.match(model):
        message = (
            "This model does not support assistant message prefill. "
            "The conversation must end with a user message."
        )
        raise Refusal(400, message)
    return Prompt("\n\n".join(parts), tuple(turns), images)


def _turn(message: object, where: str) -> tuple[str, str, int]:
    """Role, text and number of pictures of one message."""
    if not isinstance(message, dict):
        raise _refuse(where, "Input should be a valid dictionary")
    for name in ("role", "content"):
        if name not in message:
            raise _refuse(f"{where}.{name}", "Field required")
    role = message["role"]
    if role not in _ROLES:
        raise _refuse(f"{where}.role", "Input should be 'user', 'assistant' or 'system'")
    text, images = _content(message["content"], f"{where}.content")
    if role == "user" and message["content"] in ("", []):
        raise Refusal(400, f"{where}: user messages must have non-empty content")
    return role, text, images


def _content(content: object, where: str) -> tuple[str, int]:
    if isinstance(content, str):
        return content, 0
    if not isinstance(content, list):
        raise _refuse(where, "Input should be a valid string or list of content blocks")
    texts: list[str] = []
    images = 0
    for index, block in enumerate(content):
        kind = block.get("type") if isinstance(block, dict) else None
        if kind not in _BLOCKS:
            raise _refuse(
                f"{where}.{index}.type", f"Input tag '{kind}' does not match any of the expected tags"
            )
        if kind == "text":
            texts.append(_block_text(block, f"{where}.{index}"))
        elif kind == "image":
            _check_image(block, f"{where}.{index}")
            images += 1
    return "\n".join(texts), images


def _block_text(block: Body, where: str) -> str:
    text = block.get("text")
    if not isinstance(text, str):
        raise _refuse(f"{where}.text", "Field required" if text is None else "Input should be a valid string")
    if not text:
        raise Refusal(400, "messages: text content blocks must be non-empty")
    return text


def _check_image(block: Body, where: str) -> None:
    source = block.get("source")
    needed = {"base64": ("media_type", "data"), "url": ("url",), "file": ("file_id",)}
    kind = source.get("type") if isinstance(source, dict) else None
    if kind not in needed:
        raise _refuse(f"{where}.source.type", "Input should be 'base64', 'url' or 'file'")
    for name in needed[kind]:
        if not isinstance(source, dict) or not isinstance(source.get(name), str):
            raise _refuse(f"{where}.source.{name}", "Field required")


def _refuse(where: str, what: str) -> Refusal:
    return Refusal(400, f"{where}: {what}")
