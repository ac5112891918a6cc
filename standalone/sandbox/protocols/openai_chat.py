"""``POST /v1/chat/completions``, plain and streamed."""

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from standalone.sandbox.completion import Completion, Limits, complete, pieces
from standalone.sandbox.prose.prompt import Prompt
from standalone.sandbox.protocols import openai_fields as fields
from standalone.sandbox.values import Answer, Call, encode_json, fresh_id, json_answer

_KNOWN = frozenset(
    [
        "model",
        "messages",
        "max_completion_tokens",
        "max_tokens",
        "temperature",
        "top_p",
        "presence_penalty",
        "frequency_penalty",
        "reasoning_effort",
        "verbosity",
        "response_format",
        "stop",
        "seed",
        "n",
        "user",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "service_tier",
        "store",
        "metadata",
        "moderation",
        "stream",
        "stream_options",
        "logit_bias",
        "logprobs",
        "top_logprobs",
        "modalities",
        "audio",
        "prediction",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "functions",
        "function_call",
        "web_search_options",
    ]
)
_ROLES = ("system", "assistant", "user", "function", "tool", "developer")
_PARTS = ("text", "image_url", "input_audio", "file", "refusal")
_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
_TIERS = ("auto", "default", "flex", "scale", "priority", "fast")
_REASONING_MODEL = re.compile(r"o\d|gpt-(?:[5-9]|\d\d)")
_FINGERPRINT = "fp_sandbox"


@dataclass(frozen=True)
class _Request:
    model: str
    prompt: Prompt
    limits: Limits
    json_schema: Mapping[str, Any] | None
    choices: int
    tier: str
    stream: bool
    stream_usage: bool


async def chat_completion(_: Call, body: fields.Body) -> Answer:
    request = _read(body)
    completions = [
        complete(
            request.prompt, request.model, request.limits, json_schema=request.json_schema, variant=variant
        )
        for variant in range(request.choices)
    ]
    head = {
        "id": fresh_id("chatcmpl-"),
        "created": int(time.time()),
        "model": request.model,
        "service_tier": request.tier,
        "system_fingerprint": _FINGERPRINT,
    }
    if request.stream:
        return Answer(
            200,
            b"text/event-stream; charset=utf-8",
            tuple(_events(request, head, completions)),
            streamed=True,
        )
    choices = [_choice(index, completion) for index, completion in enumerate(completions)]
    return json_answer(
        {**head, "object": "chat.completion", "choices": choices, "usage": _usage(completions)}
    )


def _choice(index: int, completion: Completion) -> dict[str, Any]:
    message: dict[str, Any] = {
        "role": "assistant",
        "content": completion.text,
        "refusal": None,
        "annotations": [],
    }
    return {"index": index, "message": message, "logprobs": None, "finish_reason": _finish(completion)}


def _finish(completion: Completion) -> str:
    return "length" if completion.finish == "length" else "stop"


def _usage(completions: list[Completion]) -> dict[str, Any]:
    """Cached and reasoning tokens are part of the totals; the prompt counts once, however many choices."""
    prompt = completions[0].usage
    spent = sum(completion.usage.completion for completion in completions)
    return {
        "prompt_tokens": prompt.prompt,
        "completion_tokens": spent,
        "total_tokens": prompt.prompt + spent,
        "prompt_tokens_details": {
            "cached_tokens": prompt.cached,
            "cache_write_tokens": prompt.written,
            "audio_tokens": 0,
        },
        "completion_tokens_details": {
            "reasoning_tokens": sum(completion.usage.reasoning for completion in completions),
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _events(request: _Request, head: Mapping[str, Any], completions: list[Completion]) -> Iterator[bytes]:
    frame = {**head, "object": "chat.completion.chunk"}
    usage = {"usage": None} if request.stream_usage else {}

    def chunk(index: int, delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
        return _event({**frame, "choices": [choice], **usage})

    for index, completion in enumerate(completions):
        yield chunk(index, {"role": "assistant", "content": "", "refusal": None})
        for piece in pieces(completion.text):
            yield chunk(index, {"content": piece})
        yield chunk(index, {}, _finish(completion))
    if request.stream_usage:
        yield _event({**frame, "choices": [], "usage": _usage(completions)})
    yield b"data: [DONE]\n\n"


def _event(document: Mapping[str, Any]) -> bytes:
    return b"data: " + encode_json(document) + b"\n\n"


def _read(body: fields.Body) -> _Request:
    model = fields.required_model(body)
    prompt = _prompt(fields.required(body, "messages"))
    fields.reject_unknown(body, _KNOWN)
    if _REASONING_MODEL.match(model):
        _refuse_sampling(body)
    for name, low in (("temperature", 0), ("presence_penalty", -2), ("frequency_penalty", -2)):
        fields.number(body, name, low, 2)
    fields.number(body, "top_p", 0, 1)
    fields.integer(body, "seed", -(2**63), 2**63 - 1)
    fields.choice(body, "reasoning_effort", _EFFORTS)
    tier = fields.choice(body, "service_tier", _TIERS)
    stream = fields.flag(body, "stream")
    return _Request(
        model,
        prompt,
        Limits(_max_tokens(body), _stop(body)),
        _json_schema(body, prompt),
        fields.integer(body, "n", 1, 128) or 1,
        "default" if tier in (None, "auto") else tier,
        stream,
        _stream_usage(body, stream),
    )


def _refuse_sampling(body: fields.Body) -> None:
    if body.get("max_tokens") is not None:
        message = (
            "Unsupported parameter: 'max_tokens' is not supported with this model. "
            "Use 'max_completion_tokens' instead."
        )
        raise fields.refuse("max_tokens", "unsupported_parameter", message)
    for name, default in (
        ("temperature", 1),
        ("top_p", 1),
        ("presence_penalty", 0),
        ("frequency_penalty", 0),
    ):
        if body.get(name) not in (None, default):
            message = (
                f"Unsupported value: '{name}' does not support {body[name]} with this model. "
                f"Only the default ({default}) value is supported."
            )
            raise fields.refuse(name, "unsupported_value", message)


def _max_tokens(body: fields.Body) -> int | None:
    current, deprecated = (
        fields.integer(body, "max_completion_tokens", 1),
        fields.integer(body, "max_tokens", 1),
    )
    if current is not None and deprecated is not None:
        message = "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported."
        raise fields.refuse("max_tokens", "invalid_parameter_combination", message)
    return current if current is not None else deprecated


def _stop(body: fields.Body) -> tuple[str, ...]:
    stop = body.get("stop")
    if stop is None:
        return ()
    sequences = [stop] if isinstance(stop, str) else stop
    if not isinstance(sequences, list) or not all(isinstance(one, str) and one for one in sequences):
        raise fields.wrong_type("stop", "a string or an array of strings", stop)
    if len(sequences) > 4:
        message = (
            "Invalid 'stop': array too long. Expected an array with maximum length 4, "
            f"but got an array with length {len(sequences)} instead."
        )
        raise fields.refuse("stop", "array_above_max_length", message)
    return tuple(sequences)


def _stream_usage(body: fields.Body, stream: bool) -> bool:
    options = body.get("stream_options")
    if options is None:
        return False
    if not isinstance(options, dict):
        raise fields.wrong_type("stream_options", "an object", options)
    if not stream:
        message = "The 'stream_options' parameter is only allowed when 'stream' is enabled."
        raise fields.refuse("stream_options", None, message)
    return fields.flag(options, "include_usage")


def _json_schema(body: fields.Body, prompt: Prompt) -> Mapping[str, Any] | None:
    """The schema to satisfy; an empty one for "any JSON object"."""
    wanted = body.get("response_format")
    if wanted is None:
        return None
    if not isinstance(wanted, dict):
        raise fields.wrong_type("response_format", "an object", wanted)
    kind = wanted.get("type")
    if kind not in ("text", "json_object", "json_schema"):
        raise fields.invalid_value("response_format.type", kind, ("json_object", "json_schema", "text"))
    if kind == "json_object":
        if not any("json" in text.lower() for text in (prompt.system, *(text for _, text in prompt.turns))):
            message = (
                "'messages' must contain the word 'json' in some form, "
                "to use 'response_format' of type 'json_object'."
            )
            raise fields.refuse("messages", None, message)
        return {}
    return _named_schema(wanted) if kind == "json_schema" else None


def _named_schema(wanted: Mapping[str, Any]) -> Mapping[str, Any]:
    definition = wanted.get("json_schema")
    if not isinstance(definition, dict):
        message = "Missing required parameter: 'response_format.json_schema'."
        raise fields.refuse("response_format.json_schema", "missing_required_parameter", message)
    for name, expected in (("name", str), ("schema", dict)):
        if not isinstance(definition.get(name), expected):
            param = f"response_format.json_schema.{name}"
            raise fields.refuse(
                param, "missing_required_parameter", f"Missing required parameter: '{param}'."
            )
    schema: Mapping[str, Any] = definition["schema"]
    return schema


def _prompt(messages: object) -> Prompt:
    if not isinstance(messages, list):
        raise fields.wrong_type("messages", "an array of objects", messages)
    if not messages:
        message = (
            "Invalid 'messages': empty array. Expected an array with minimum length 1, "
            "but got an empty array instead."
        )
        raise fields.refuse("messages", "empty_array", message)
    system: list[str] = []
    turns: list[tuple[str, str]] = []
    images = 0
    for index, message in enumerate(messages):
        param = f"messages[{index}]"
        if not isinstance(message, dict):
            raise fields.wrong_type(param, "an object", message)
        role = fields.required({f"{param}.role": message.get("role")}, f"{param}.role")
        if role not in _ROLES:
            raise fields.invalid_value(f"{param}.role", role, _ROLES)
        text, pictures = _content(message, param)
        images += pictures
        if role in ("system", "developer"):
            system.append(text)
        else:
            turns.append((role, text))
    return Prompt("\n\n".join(system), tuple(turns), images)


def _content(message: Mapping[str, Any], param: str) -> tuple[str, int]:
    """The text of a message and the number of its pictures."""
    content = message.get("content")
    if isinstance(content, str):
        return content, 0
    if content is None:
        if message["role"] == "assistant" and (message.get("tool_calls") or message.get("function_call")):
            return "", 0
        raise fields.refuse(
            f"{param}.content",
            "invalid_type",
            f"Invalid value for '{param}.content': expected a string, got null.",
        )
    if not isinstance(content, list):
        raise fields.wrong_type(f"{param}.content", "one of a string or array of objects", content)
    texts: list[str] = []
    images = 0
    for index, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in _PARTS:
            raise fields.invalid_value(f"{param}.content[{index}].type", kind, _PARTS)
        texts.append(_part_text(part, f"{param}.content[{index}]"))
        images += kind == "image_url"
    return "\n".join(filter(None, texts)), images


def _part_text(part: Mapping[str, Any], param: str) -> str:
    if part["type"] == "text":
        text = fields.required({f"{param}.text": part.get("text")}, f"{param}.text")
        if not isinstance(text, str):
            raise fields.wrong_type(f"{param}.text", "a string", text)
        return text
    if part["type"] == "image_url":
        image = part.get("image_url")
        url = image.get("url") if isinstance(image, dict) else None
        fields.required({f"{param}.image_url.url": url}, f"{param}.image_url.url")
    return ""
