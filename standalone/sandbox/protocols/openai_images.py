"""OpenAI's ``/v1/images/generations``: always base64, as the models do that are still served."""

import asyncio
import base64
import time

from standalone.sandbox.picture import draw
from standalone.sandbox.protocols import openai_fields as fields
from standalone.sandbox.tokens import count_tokens
from standalone.sandbox.values import Answer, Call, json_answer

_KNOWN = frozenset(
    [
        *("model", "prompt", "n", "size", "quality", "output_format", "output_compression", "background"),
        *("moderation", "stream", "partial_images", "user"),
    ]
)
_QUALITIES = ("low", "medium", "high", "auto", "xhigh", "max")
_TOKENS_PER_IMAGE = 272
_MAX_CHARACTERS = 32_000


async def image_generation(_: Call, body: fields.Body) -> Answer:
    fields.required_model(body)
    prompt = fields.required(body, "prompt")
    if not isinstance(prompt, str):
        raise fields.wrong_type("prompt", "a string", prompt)
    if not 0 < len(prompt) <= _MAX_CHARACTERS:
        message = f"Invalid 'prompt': expected 1 to {_MAX_CHARACTERS} characters, but got {len(prompt)}."
        raise fields.refuse("prompt", "string_above_max_length", message)
    fields.reject_unknown(body, _KNOWN)
    count = fields.integer(body, "n", 1, 10) or 1
    quality = fields.choice(body, "quality", _QUALITIES) or "auto"
    fields.choice(body, "output_format", ("png",))  # no other is made here
    size = body.get("size") or "auto"
    if not isinstance(size, str):
        raise fields.wrong_type("size", "a string", size)
    pictures = [await asyncio.to_thread(draw, f"{prompt}{variant or ''}", size) for variant in range(count)]
    entered, left = count_tokens(prompt), _TOKENS_PER_IMAGE * count
    document = {
        "created": int(time.time()),
        "data": [{"b64_json": base64.b64encode(picture).decode()} for picture in pictures],
        "usage": {
            "input_tokens": entered,
            "input_tokens_details": {"text_tokens": entered, "image_tokens": 0},
            "output_tokens": left,
            "total_tokens": entered + left,
        },
        "size": size,
        "quality": quality,
        "output_format": "png",
    }
    return json_answer(document)
