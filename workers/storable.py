"""Makes what models say storable: PostgreSQL's text and jsonb refuse NUL characters and lone surrogates."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

DEEPEST = 64
"""Levels of nesting that are kept."""

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_SUSPICIOUS = re.compile(r"\\u0000|[\ud800-\udfff]")  # in JSON; an innocent backslash only costs a look
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


def dumps(rows: Iterable[Mapping[str, Any]]) -> str:
    """`rows` as a JSON array that PostgreSQL takes. UUIDs, decimals and times become texts.

    Walking through every value took 5 % of a worker's time, so only a row whose JSON looks unstorable is.
    """
    return f"[{','.join(map(_dumped, rows))}]"


def _dumped(row: Mapping[str, Any]) -> str:
    try:
        text = _json(row)
    except RecursionError:
        return _json(storable(row))
    deep = text.count("{") + text.count("[") > DEEPEST
    return _json(storable(row)) if deep or _SUSPICIOUS.search(text) else text


_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str).encode
