"""A small generative grammar: one sentence from each pool, in order, its slots filled from word lists.

With eight pools or more of about ten sentences, and slots inside them, a recipe yields far more than 10^10
texts, so that a year of horoscopes does not repeat itself.
"""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Pool = Sequence[str]
Words = Mapping[str, Sequence[str]]

_SLOT = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Recipe:
    """Paragraphs, each a row of pools. A slot takes the prompt's own fact, else one of ``words``."""

    paragraphs: Sequence[Sequence[Pool]]
    words: Words

    def write(self, dice: random.Random, facts: Mapping[str, str]) -> str:
        pick = dice.random

        def one(options: Sequence[str]) -> str:
            return options[int(pick() * len(options))]

        def fill(slot: re.Match[str]) -> str:
            name = slot[1]
            return facts[name] if name in facts else one(self.words[name])

        skeleton = "\n\n".join(" ".join([one(pool) for pool in pools]) for pools in self.paragraphs)
        return _SLOT.sub(fill, skeleton)
