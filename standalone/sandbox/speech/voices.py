"""Which of eSpeak NG's voices stands for a vendor's voice, and which language a text is read in."""

import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Voice:
    """``variant`` names a timbre of eSpeak NG, which combines with every language; ``pitch`` is 0 to 99."""

    variant: str
    pitch: int


VOICES: Mapping[str, Voice] = {
    "alloy": Voice("f5", 48),
    "ash": Voice("m3", 46),
    "ballad": Voice("m7", 55),
    "coral": Voice("f2", 58),
    "echo": Voice("m1", 50),
    "fable": Voice("m4", 60),
    "onyx": Voice("m8", 32),
    "nova": Voice("f3", 62),
    "sage": Voice("f4", 50),
    "shimmer": Voice("f1", 66),
    "verse": Voice("m2", 52),
    "marin": Voice("f2", 50),
    "cedar": Voice("m3", 38),
}

_SCRIPTS: tuple[tuple[str, str], ...] = (
    ("ar", "[\u0600-\u06ff\u0750-\u077f]"),
    ("he", "[\u0590-\u05ff]"),
    ("ru", "[\u0400-\u04ff]"),
    ("el", "[\u0370-\u03ff]"),
    ("hi", "[\u0900-\u097f]"),
    ("bn", "[\u0980-\u09ff]"),
    ("ta", "[\u0b80-\u0bff]"),
    ("th", "[\u0e00-\u0e7f]"),
    ("ka", "[\u10a0-\u10ff]"),
    ("hy", "[\u0530-\u058f]"),
    ("ko", "[\uac00-\ud7af]"),
    ("ja", "[\u3040-\u30ff]"),
    ("cmn", "[\u4e00-\u9fff]"),
)
_PATTERNS = tuple((language, re.compile(letters)) for language, letters in _SCRIPTS)
_LATIN = re.compile("[A-Za-z\u00c0-\u024f]")
_LATIN_LANGUAGE = "en-us"


def custom_voice(identifier: str) -> Voice:
    """The voice for an id of somebody's own making: always the same one for the same id."""
    voices = tuple(VOICES.values())
    return voices[zlib.crc32(identifier.encode("utf-8", "replace")) % len(voices)]


def language_of(text: str) -> str:
    """eSpeak NG's name of a language, by the script of most letters; Latin letters are read as English."""
    if text.isascii():
        return _LATIN_LANGUAGE
    counts = {language: len(pattern.findall(text)) for language, pattern in _PATTERNS}
    if counts["ja"]:  # kana occur in no other language, and Japanese text is full of Han characters
        counts["ja"] += counts["cmn"]
    best = max(counts, key=lambda language: counts[language])
    return best if counts[best] > len(_LATIN.findall(text)) else _LATIN_LANGUAGE
