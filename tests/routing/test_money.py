"""What calls cost: answers of each protocol against worked-out dollars."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from routing.media import wav
from routing.pricing import cost
from routing.providers import codec
from routing.providers.wire import HttpResponse
from routing.values import Capability, Media, Price, PriceUnit
from tests.routing import factories

# Dollars per thousand: 1 in, 10 out, 0.1 from the cache, 1.25 into it; half of the first two as a batch.
_PRICE = factories.price(
    input_per_1k=Decimal(1),
    output_per_1k=Decimal(10),
    cached_input_per_1k=Decimal("0.1"),
    cache_write_per_1k=Decimal("1.25"),
    batch_input_per_1k=Decimal("0.5"),
    batch_output_per_1k=Decimal(5),
)


def _chat(usage: Any, finish: str = "stop", **extra: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"content": "Hi."}, "finish_reason": finish}], "usage": usage, **extra}


def _responses(usage: Any, *items: Any, **extra: Any) -> dict[str, Any]:
    message = {"type": "message", "content": [{"type": "output_text", "text": "Hi."}]}
    return {"status": "completed", "output": [message, *items], "usage": usage, **extra}


def _message(usage: Any, stop: str = "end_turn") -> dict[str, Any]:
    return {"content": [{"type": "text", "text": "Hi."}], "stop_reason": stop, "usage": usage}


def _candidate(usage: Any, *parts: Any) -> dict[str, Any]:
    content = {"parts": [{"text": "Hi."}, *parts]}
    return {"candidates": [{"content": content, "finishReason": "STOP"}], "usageMetadata": usage}


_READ, _WRITE = {"cached_tokens": 400}, {"cached_tokens": 0, "cache_write_tokens": 200}
_THOUGHT = {"reasoning_tokens": 30}
_OPENAI, _RESPONSES, _ANTHROPIC, _GEMINI = (
    ("openai_compatible", "chat"),
    ("openai_compatible", "responses"),
    ("anthropic", "chat"),
    ("gemini", "chat"),
)

# 1,000 tokens in and 50 out in every convention: 1.00 + 0.50 where nothing is special about them.
_CASES: list[tuple[str, tuple[str, str], dict[str, Any], str]] = [
    ("plain", _OPENAI, _chat({"prompt_tokens": 1000, "completion_tokens": 50}), "1.5"),
    ("plain", _RESPONSES, _responses({"input_tokens": 1000, "output_tokens": 50}), "1.5"),
    ("plain", _ANTHROPIC, _message({"input_tokens": 1000, "output_tokens": 50}), "1.5"),
    ("plain", _GEMINI, _candidate({"promptTokenCount": 1000, "candidatesTokenCount": 50}), "1.5"),
    # 400 of the thousand from the cache: 0.60 + 0.04 + 0.50
    (
        "cached read",
        _OPENAI,
        _chat({"prompt_tokens": 1000, "completion_tokens": 50, "prompt_tokens_details": _READ}),
        "1.14",
    ),
    (
        "cached read",
        _RESPONSES,
        _responses({"input_tokens": 1000, "output_tokens": 50, "input_tokens_details": _READ}),
        "1.14",
    ),
    (
        "cached read",
        _ANTHROPIC,
        _message({"input_tokens": 600, "cache_read_input_tokens": 400, "output_tokens": 50}),
        "1.14",
    ),
    (
        "cached read",
        _GEMINI,
        _candidate({"promptTokenCount": 1000, "cachedContentTokenCount": 400, "candidatesTokenCount": 50}),
        "1.14",
    ),
    # 200 of the thousand into the cache: 0.80 + 0.25 + 0.50 (Gemini bills none)
    (
        "cached write",
        _OPENAI,
        _chat({"prompt_tokens": 1000, "completion_tokens": 50, "prompt_tokens_details": _WRITE}),
        "1.55",
    ),
    (
        "cached write",
        _RESPONSES,
        _responses({"input_tokens": 1000, "output_tokens": 50, "input_tokens_details": _WRITE}),
        "1.55",
    ),
    (
        "cached write",
        _ANTHROPIC,
        _message({"input_tokens": 800, "cache_creation_input_tokens": 200, "output_tokens": 50}),
        "1.55",
    ),
    # 30 of the fifty are reasoning, which Gemini alone counts beside
    (
        "reasoning",
        _OPENAI,
        _chat({"prompt_tokens": 1000, "completion_tokens": 50, "completion_tokens_details": _THOUGHT}),
        "1.5",
    ),
    (
        "reasoning",
        _RESPONSES,
        _responses({"input_tokens": 1000, "output_tokens": 50, "output_tokens_details": _THOUGHT}),
        "1.5",
    ),
    (
        "reasoning",
        _ANTHROPIC,
        _message(
            {"input_tokens": 1000, "output_tokens": 50, "output_tokens_details": {"thinking_tokens": 30}}
        ),
        "1.5",
    ),
    (
        "reasoning",
        _GEMINI,
        _candidate({"promptTokenCount": 1000, "candidatesTokenCount": 20, "thoughtsTokenCount": 30}),
        "1.5",
    ),
    # a tool is wanted
    ("tool", _OPENAI, _chat({"prompt_tokens": 1000, "completion_tokens": 50}, "tool_calls"), "1.5"),
    (
        "tool",
        _RESPONSES,
        _responses({"input_tokens": 1000, "output_tokens": 50}, {"type": "function_call"}),
        "1.5",
    ),
    ("tool", _ANTHROPIC, _message({"input_tokens": 1000, "output_tokens": 50}, "tool_use"), "1.5"),
    (
        "tool",
        _GEMINI,
        _candidate(
            {"promptTokenCount": 900, "toolUsePromptTokenCount": 100, "candidatesTokenCount": 50},
            {"functionCall": {"name": "f"}},
        ),
        "1.5",
    ),
    # 14 tokens in and 1 out by estimate
    ("missing usage", _OPENAI, _chat(None), "0.025"),
    ("missing usage", _RESPONSES, _responses(None), "0.025"),
    ("missing usage", _ANTHROPIC, _message(None), "0.025"),
    ("missing usage", _GEMINI, _candidate(None), "0.025"),
    # served as a batch: 0.50 + 0.25, and with 400 from the cache 0.30 + 0.02 + 0.25
    (
        "batch",
        _OPENAI,
        _chat({"prompt_tokens": 1000, "completion_tokens": 50}, service_tier="flex"),
        "0.75",
    ),
    (
        "batch",
        _RESPONSES,
        _responses({"input_tokens": 1000, "output_tokens": 50}, service_tier="flex"),
        "0.75",
    ),
    (
        "batch",
        _ANTHROPIC,
        _message(
            {
                "input_tokens": 600,
                "cache_read_input_tokens": 400,
                "output_tokens": 50,
                "service_tier": "batch",
            }
        ),
        "0.57",
    ),
]


@pytest.mark.parametrize(
    ("case", "spoken", "body", "expected"), _CASES, ids=[f"{c[0]}-{'-'.join(c[1])}" for c in _CASES]
)
def test_text(case: str, spoken: tuple[str, str], body: dict[str, Any], expected: str) -> None:
    protocol, style = spoken
    to = factories.route(factories.provider(protocol=protocol), api_style=style)
    call = factories.call(to=to, system="Be brief.", user="Hello, stars.")
    reply = codec(to, Capability.TEXT).decode(HttpResponse(200, {}, json.dumps(body).encode()), call)
    assert cost(reply.usage, _PRICE) == Decimal(expected)
    assert reply.usage.estimated == (case == "missing usage")


def _per(unit: PriceUnit, amount: str) -> Price:
    return factories.price(unit=unit, input_per_1k=Decimal(amount), output_per_1k=None)


_SOUND = wav(bytes(16000), 8000)  # one second
_IMAGE = {"data": [{"b64_json": "iVBORw0KGgo="}]}


@pytest.mark.parametrize(
    ("protocol", "capability", "body", "price", "expected"),
    [
        ("openai_compatible", Capability.SPEECH, b"ID3.", _per(PriceUnit.CHARACTERS, "1"), "0.013"),
        ("elevenlabs", Capability.SPEECH, b"ID3.", _per(PriceUnit.CHARACTERS, "1"), "0.013"),
        ("openai_compatible", Capability.SPEECH, b"ID3.", _PRICE, None),  # priced by what nobody counted
        (
            "openai_compatible",
            Capability.TRANSCRIPTION,
            {"text": "", "usage": {"seconds": 90}},
            _per(PriceUnit.SECONDS, "1"),
            "0.09",
        ),
        (
            "openai_compatible",
            Capability.TRANSCRIPTION,
            {"text": "Hi.", "usage": {"input_tokens": 1000, "output_tokens": 50}},
            _PRICE,
            "1.5",
        ),
        (
            "openai_compatible",
            Capability.TRANSCRIPTION,
            {"text": "Hi."},
            _per(PriceUnit.SECONDS, "1"),
            "0.001",
        ),
        (
            "elevenlabs",
            Capability.TRANSCRIPTION,
            {"text": "Hi.", "audio_duration_secs": 2.5},
            _per(PriceUnit.SECONDS, "1"),
            "0.0025",
        ),
        ("openai_compatible", Capability.IMAGE, _IMAGE, _per(PriceUnit.IMAGES, "40"), "0.04"),
        ("openai_compatible", Capability.IMAGE, _IMAGE, _PRICE, None),
        (
            "openai_compatible",
            Capability.IMAGE,
            {**_IMAGE, "usage": {"input_tokens": 1000, "output_tokens": 50}},
            _PRICE,
            "1.5",
        ),
        ("openai_compatible", Capability.IMAGE, _IMAGE, None, None),
    ],
)
def test_other_units(
    protocol: str, capability: Capability, body: Any, price: Price | None, expected: str | None
) -> None:
    to = factories.route(factories.provider(protocol=protocol))
    call = factories.call(capability, to=to, user="Hello, stars.", audio=Media(_SOUND, "audio/wav"))
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    reply = codec(to, capability).decode(HttpResponse(200, {}, raw), call)
    assert cost(reply.usage, price) == (None if expected is None else Decimal(expected))


def test_a_recording_of_unknown_length_costs_an_unknown_amount() -> None:
    to = factories.route()
    call = factories.call(Capability.TRANSCRIPTION, to=to, audio=Media(b"ID3.", "audio/mpeg"))
    reply = codec(to, Capability.TRANSCRIPTION).decode(HttpResponse(200, {}, b'{"text": "Hi."}'), call)
    assert cost(reply.usage, _per(PriceUnit.SECONDS, "1")) is None


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "0.75"),
        ({"batch_output_per_1k": None}, "1.0"),
        ({"batch_input_per_1k": None}, "1.25"),
        ({"batch_input_per_1k": None, "batch_output_per_1k": None}, "1.5"),
        ({"input_per_1k": None}, "0.75"),
        ({"input_per_1k": Decimal(0)}, "0.75"),
    ],
)
def test_a_batchs_price_stands_in_for_nothing_it_does_not_name(fields: Any, expected: str) -> None:
    to = factories.route()
    body = _chat({"prompt_tokens": 1000, "completion_tokens": 50}, service_tier="flex")
    reply = codec(to, Capability.TEXT).decode(
        HttpResponse(200, {}, json.dumps(body).encode()), factories.call(to=to)
    )
    price = factories.price(**{**{n: getattr(_PRICE, n) for n in _PRICE.__slots__}, **fields})
    assert cost(reply.usage, price) == Decimal(expected)
