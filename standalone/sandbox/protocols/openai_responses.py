"""``POST /v1/responses``, plain and streamed: OpenAI's other way to complete a text."""

import time
from collections.abc import Iterator, Mapping
from typing import Any

from standalone.sandbox.completion import Completion, Limits, complete, pieces
from standalone.sandbox.prose.prompt import Prompt
from standalone.sandbox.protocols import openai_fields as fields
from standalone.sandbox.values import Answer, Call, encode_json, fresh_id, json_answer

_KNOWN = frozenset(
    [
        *("model", "input", "instructions", "max_output_tokens", "temperature", "top_p", "reasoning", "text"),
        *("store", "service_tier", "metadata", "safety_identifier", "prompt_cache_key", "stream", "user"),
        *("prompt_cache_options", "truncation", "background", "include", "previous_response_id"),
    ]
)
_ROLES = ("user", "assistant", "system", "developer")
_PARTS = ("input_text", "output_text", "input_image", "input_file", "refusal")
_FORMATS = ("text", "json_object", "json_schema")
_TIERS = ("auto", "default", "flex", "scale", "priority", "fast")
_LEAST_TOKENS = 16


async def create_response(_: Call, body: fields.Body) -> Answer:
    model = fields.required_model(body)
    prompt = _prompt(fields.required(body, "input"), body.get("instructions"))
    fields.reject_unknown(body, _KNOWN)
    fields.number(body, "temperature", 0, 2)
    fields.number(body, "top_p", 0, 1)
    limit = fields.integer(body, "max_output_tokens", _LEAST_TOKENS)
    tier = fields.choice(body, "service_tier", _TIERS)
    if fields.flag(body, "background"):
        message = "The sandbox answers this endpoint at once."
        raise fields.refuse("background", "unsupported_value", message)
    streams = fields.flag(body, "stream")
    completion = complete(prompt, model, Limits(limit), json_schema=_json_schema(body))
    cut = completion.finish == "length"
    message_item = {
        "type": "message",
        "id": fresh_id("msg_"),
        "status": "incomplete" if cut else "completed",
        "role": "assistant",
        "content": [{"type": "output_text", "text": completion.text, "annotations": []}],
    }
    document = {
        "id": fresh_id("resp_"),
        "object": "response",
        "created_at": int(time.time()),
        "status": "incomplete" if cut else "completed",
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "model": model,
        "output": [{"type": "reasoning", "id": fresh_id("rs_"), "summary": []}, message_item],
        "service_tier": "default" if tier in (None, "auto") else tier,
        "store": body.get("store", True),
        "usage": _usage(completion),
    }
    if streams:
        events = tuple(_events(document, message_item["id"], completion.text))
        return Answer(200, b"text/event-stream; charset=utf-8", events, streamed=True)
    return json_answer(document)


def _events(document: Mapping[str, Any], item_id: object, text: str) -> Iterator[bytes]:
    """Named events; the last one carries the whole response. There is no `[DONE]`."""
    begun = {**document, "status": "in_progress", "output": [], "usage": None, "incomplete_details": None}
    place = {"item_id": item_id, "output_index": 1, "content_index": 0}
    events: list[tuple[str, dict[str, Any]]] = [
        ("response.created", {"response": begun}),
        ("response.in_progress", {"response": begun}),
        *(("response.output_text.delta", {**place, "delta": piece}) for piece in pieces(text)),
        ("response.output_text.done", {**place, "text": text}),
        (f"response.{document['status']}", {"response": document}),
    ]
    for number, (name, members) in enumerate(events):
        data = encode_json({"type": name, "sequence_number": number, **members})
        yield f"event: {name}\ndata: ".encode() + data + b"\n\n"


def _usage(completion: Completion) -> dict[str, Any]:
    usage = completion.usage
    return {
        "input_tokens": usage.prompt,
        "input_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": usage.written},
        "output_tokens": usage.completion,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.prompt + usage.completion,
    }


def _json_schema(body: fields.Body) -> Mapping[str, Any] | None:
    text = body.get("text")
    wanted = text.get("format") if isinstance(text, dict) else None
    if wanted is None:
        return None
    if not isinstance(wanted, dict):
        raise fields.wrong_type("text.format", "an object", wanted)
    kind = wanted.get("type")
    if kind not in _FORMATS:
        raise fields.invalid_value("text.format.type", kind, _FORMATS)
    if kind != "json_schema":
        return {} if kind == "json_object" else None
    for name, expected in (("name", str), ("schema", dict)):
        if not isinstance(wanted.get(name), expected):
            param = f"text.format.{name}"
            message = f"Missing required parameter: '{param}'."
            raise fields.refuse(param, "missing_required_parameter", message)
    schema: Mapping[str, Any] = wanted["schema"]
    return schema


def _prompt(value: object, instructions: object) -> Prompt:
    system = [instructions] if isinstance(instructions, str) else []
    if isinstance(value, str):
        return Prompt("\n\n".join(system), (("user", value),))
    if not isinstance(value, list) or not value:
        raise fields.wrong_type("input", "a string or a non-empty array", value)
    turns: list[tuple[str, str]] = []
    images = 0
    for index, item in enumerate(value):
        param = f"input[{index}]"
        role = item.get("role") if isinstance(item, dict) else None
        if role not in _ROLES:
            raise fields.invalid_value(f"{param}.role", role, _ROLES)
        text, pictures = _content(item.get("content"), param)
        images += pictures
        if role in ("system", "developer"):
            system.append(text)
        else:
            turns.append((role, text))
    return Prompt("\n\n".join(system), tuple(turns), images)


def _content(content: object, param: str) -> tuple[str, int]:
    """The text of an item and the number of its pictures."""
    if isinstance(content, str):
        return content, 0
    if not isinstance(content, list):
        raise fields.wrong_type(f"{param}.content", "a string or an array", content)
    texts: list[str] = []
    images = 0
    for index, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in _PARTS:
            raise fields.invalid_value(f"{param}.content[{index}].type", kind, _PARTS)
        if kind == "input_image":
            fields.required({"image_url": part.get("image_url") or part.get("file_id")}, "image_url")
            images += 1
        elif isinstance(part.get("text"), str):
            texts.append(part["text"])
    return "\n".join(texts), images
