"""Embeddings by feature hashing: no model, yet texts that share words lie near each other.

Each word, and with less weight each of its letter triples (so that ``worker`` and ``workers`` are
relatives), adds to a few coordinates chosen by its hash; the vector is then scaled to length 1.
"""

import math
import re
from array import array
from collections import Counter, defaultdict
from hashlib import blake2b

_WORD = re.compile(r"\w+")
_WORD_WEIGHT, _TRIPLE_WEIGHT = 1.0, 0.25
_COORDINATES = 8


def embed(text: str, dimensions: int) -> "array[float]":
    """A unit vector of ``dimensions`` float32 values, the same for the same text on every machine."""
    vector = [0.0] * dimensions
    for feature, weight in _features(text).items():
        digest = blake2b(feature.encode("utf-8", "surrogatepass"), digest_size=4 * _COORDINATES).digest()
        for start in range(0, len(digest), 4):
            number = int.from_bytes(digest[start : start + 4], "little")
            vector[(number >> 1) % dimensions] += weight if number & 1 else -weight
    length = math.sqrt(math.fsum(value * value for value in vector))
    if length == 0.0:  # opposite signs met on every coordinate: possible with very few dimensions
        vector[0] = length = 1.0
    return array("f", [value / length for value in vector])


def _features(text: str) -> dict[str, float]:
    features: dict[str, float] = defaultdict(float)
    for word, times in Counter(_WORD.findall(text.casefold()) or [text]).items():
        # A root of the frequency: a word said ten times is not ten times the topic.
        emphasis = math.sqrt(times)
        features[word] += emphasis * _WORD_WEIGHT
        for start in range(len(word) - 2):
            features["~" + word[start : start + 3]] += emphasis * _TRIPLE_WEIGHT
    return features
