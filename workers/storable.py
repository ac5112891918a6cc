"""Makes what models say storable: PostgreSQL's text and jsonb refuse NUL characters and lone surrogates."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

DEEPEST = 64
"""Levels of nesting that are kept."""

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def storable(value: Any, depth: int = DEEPEST) -> Any:
    """The same JSON value with every unstorable character replaced by U+FFFD, in keys too.

    What lies deeper than `depth` levels becomes null: a model can be asked to nest without end, and neither
    Python's stack nor PostgreSQL's takes it.
    """
    if isinstance(value, str):
        return _UNSTORABLE.sub(_REPLACEMENT, value)
    if isinstance(value, Mapping):
        return {storable(k): storable(v, depth - 1) for k, v in value.items()} if depth else None
    if isinstance(value, (list, tuple)):
        return [storable(member, depth - 1) for member in value] if depth else None
    return value
