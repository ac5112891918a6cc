"""What the sandbox's models say: text of the kind, and in the language, that the prompt asks for."""

import random
from collections.abc import Mapping
from typing import Any

from standalone.sandbox.prose import arabic, english
from standalone.sandbox.prose.code import write_code
from standalone.sandbox.prose.cues import Kind, facts_of, kind_of
from standalone.sandbox.prose.prompt import Prompt
from standalone.sandbox.prose.structured import wants_json, write_json

_RECIPES = {"en": english.RECIPES, "ar": arabic.RECIPES}


def write(
    prompt: Prompt, model: str, *, json_schema: Mapping[str, Any] | None = None, variant: int = 0
) -> str:
    """Several sentences, or a JSON document if a schema or the prompt's words ask for one.

    The text depends on nothing but the arguments.
    """
    dice = random.Random(prompt.seed(model, variant))  # noqa: S311 - variety, not secrecy
    if json_schema is not None or wants_json(prompt):
        return write_json(prompt, dice, json_schema)
    kind = kind_of(prompt)
    if kind is Kind.CODE:
        return write_code(prompt, dice)
    return _RECIPES[prompt.language][kind].write(dice, facts_of(prompt, kind))
