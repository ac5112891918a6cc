"""From a prompt to a finished completion: the text, why it ended, and what it cost."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from standalone.sandbox.prose import write
from standalone.sandbox.prose.prompt import Prompt
from standalone.sandbox.tokens import PER_IMAGE, PER_MESSAGE, count_tokens, cut_to_tokens

_WISH = re.compile(r"\+(cached|written|reasoning)-(\d{1,9})")


@dataclass(frozen=True)
class Limits:
    """``max_tokens`` bounds reasoning and text together."""

    max_tokens: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Usage:
    """Tokens. ``prompt`` includes the cached and the written ones, ``completion`` the reasoning ones;
    each protocol subtracts what its own convention leaves out."""

    prompt: int
    cached: int
    written: int
    completion: int
    reasoning: int


@dataclass(frozen=True)
class Completion:
    text: str
    finish: Literal["stop", "stop_sequence", "length"]
    stop_sequence: str | None
    usage: Usage


def complete(
    prompt: Prompt,
    model: str,
    limits: Limits = Limits(),
    *,
    json_schema: Mapping[str, Any] | None = None,
    variant: int = 0,
) -> Completion:
    """Answer the prompt: always the same text for the same prompt, model and variant.

    A ``json_schema`` makes the text a JSON document that satisfies it. A model id may wish for usage
    numbers that a sandbox has no other reason to report: ``any-model+cached-100+written-20+reasoning-40``.
    """
    wishes = {name: int(number) for name, number in _WISH.findall(model)} if "+" in model else {}
    reasoning = wishes.get("reasoning", 0)
    if limits.max_tokens is not None:
        reasoning = min(reasoning, limits.max_tokens)
    text = write(prompt, model, json_schema=json_schema, variant=variant)
    completion = _end(text, reasoning, limits)
    prompt_tokens = count_prompt(prompt)
    cached = min(wishes.get("cached", 0), prompt_tokens)
    written = min(wishes.get("written", 0), prompt_tokens - cached)
    spent = reasoning + count_tokens(completion[0])
    return Completion(*completion, Usage(prompt_tokens, cached, written, spent, reasoning))


def count_prompt(prompt: Prompt) -> int:
    texts = [text for _, text in prompt.turns]
    if prompt.system:
        texts.append(prompt.system)
    return sum(count_tokens(text) + PER_MESSAGE for text in texts) + prompt.images * PER_IMAGE


def _end(
    text: str, reasoning: int, limits: Limits
) -> tuple[str, Literal["stop", "stop_sequence", "length"], str | None]:
    written = text if limits.max_tokens is None else cut_to_tokens(text, limits.max_tokens - reasoning)
    found = [(written.index(sequence), sequence) for sequence in limits.stop if sequence in written]
    if found:
        position, sequence = min(found)
        return written[:position], "stop_sequence", sequence
    return written, "stop" if written == text else "length", None


def pieces(text: str) -> list[str]:
    """The text as a stream delivers it: a few words at a time; joined they are the text again."""
    return re.findall(r"(?:\S+\s*|\s+){1,4}", text)
