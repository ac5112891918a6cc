"""Token counts without a vocabulary, for budgets and for answers that carry no usage.

The heuristic stays within a few percent to a third of the current vocabularies, which is enough for both;
whatever it produces is flagged as an estimate, and a provider's own usage always wins.
"""

from __future__ import annotations

import math

from routing.values import Call

_ASCII_PER_TOKEN = 4.0
_LETTERS_PER_TOKEN = 3.5  # Cyrillic, Greek, Arabic, ...
_CJK_PER_TOKEN = 1.2
_PICTURE = 260
_FRAME = 4  # what a chat format adds around each message

_CJK = (
    (0x1100, 0x11FF),  # Hangul Jamo
    (0x2E80, 0x9FFF),  # radicals, kana, bopomofo, unified ideographs
    (0xAC00, 0xD7AF),  # Hangul syllables
    (0xF900, 0xFAFF),  # compatibility ideographs
    (0xFF00, 0xFFEF),  # half and full width forms
    (0x1F000, 0x1FAFF),  # pictographs: several tokens each, so counted with the dense scripts
    (0x20000, 0x3FFFF),  # further ideographs
)


def tokens(text: str) -> int:
    """Estimated tokens of `text`; 0 only for the empty string."""
    ascii_chars = len(text.encode("ascii", "ignore"))
    if ascii_chars == len(text):
        return math.ceil(ascii_chars / _ASCII_PER_TOKEN)
    dense = sum(_is_cjk(ord(char)) for char in text if char > "\u10ff")
    letters = len(text) - ascii_chars - dense
    return math.ceil(ascii_chars / _ASCII_PER_TOKEN + letters / _LETTERS_PER_TOKEN + dense / _CJK_PER_TOKEN)


def prompt_tokens(call: Call) -> int:
    """Estimated input tokens of a call, with the frame around each message."""
    messages = [call.system or "", *(turn.content for turn in call.history), *(call.texts or (call.user,))]
    pictures = len(call.images) * _PICTURE
    return pictures + sum(tokens(message) + _FRAME for message in messages if message)


def _is_cjk(code: int) -> bool:
    return any(low <= code <= high for low, high in _CJK)
