"""What a model is asked, whatever protocol it came by, and what can be told from its text."""

import re
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import Literal

Language = Literal["en", "ar"]

_STATED = re.compile(
    r"(?:\blang(?:uage)?\W{1,5}|\b(?:in|into)\s+)(arabic|english|ar|en)(?![a-z])"
    r"|(باللغة العربية|بالعربية|بالإنجليزية)"
)
_ARABIC_LETTERS = re.compile("[\u0600-\u06ff]")
_LATIN_LETTERS = re.compile("[a-z]")
_READ_CHARACTERS = 6000
"""Cues are looked for in this much of a prompt; all of it counts for the seed."""


@dataclass(frozen=True)
class Prompt:
    """``turns`` are (role, text) in order, without the system's; ``images`` counts their pictures."""

    system: str
    turns: tuple[tuple[str, str], ...]
    images: int = 0

    @cached_property
    def question(self) -> str:
        """The text of the last user turn."""
        return next((text for role, text in reversed(self.turns) if role == "user"), "")

    @cached_property
    def cues(self) -> str:
        """Lower-case text to look for cues in: system prompt and question."""
        return f"{self.system[:_READ_CHARACTERS]}\n{self.question[:_READ_CHARACTERS]}".lower()

    @cached_property
    def language(self) -> Language:
        """The language that is asked for, else the one that the question is written in."""
        stated = _STATED.findall(self.cues)
        if stated:
            return "en" if "".join(stated[-1]) in ("english", "en", "بالإنجليزية") else "ar"
        if "arabic" in self.cues and "english" not in self.cues:
            return "ar"
        # An Arabic system prompt with a short Latin input ("aries") counts as Arabic too.
        arabic = len(_ARABIC_LETTERS.findall(self.cues))
        return "ar" if arabic and arabic > len(_LATIN_LETTERS.findall(self.question.lower())) else "en"

    def seed(self, model: str, variant: int) -> int:
        """The same for the same texts, model and variant, in every process."""
        digest = blake2b(
            f"{variant}\0{model}\0{self.images}\0{self.system}".encode("utf-8", "replace"), digest_size=8
        )
        for role, text in self.turns:
            digest.update(f"\0{role}\0{text}".encode("utf-8", "replace"))
        return int.from_bytes(digest.digest(), "little")
