"""What models say becomes JSON that PostgreSQL takes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from workers.storable import DEEPEST, dumps, storable

_TEXTS = st.text(st.characters() | st.sampled_from("\x00\ud800\udfff\\u{}[]"), max_size=12)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | _TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXTS, inner, max_size=4),
    max_leaves=80,
)


@given(st.lists(st.dictionaries(_TEXTS, _VALUES, max_size=4), max_size=3))
@example([{"text": "a\x00b", "emoji": "\N{SMILING FACE WITH SUNGLASSES}"}])
@example([{"\ud800": "\\u0000"}])
def test_shortcut_and_walk_agree(rows: list[dict[str, Any]]) -> None:
    assert json.loads(dumps(rows)) == [storable(row) for row in rows]


@pytest.mark.parametrize("depth", [DEEPEST - 1, DEEPEST, 5_000, 200_000])
def test_nesting_without_end_is_cut(depth: int) -> None:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]

    (row,) = json.loads(dumps([{"data": value, "model": "m"}]))

    levels, inner = 1, row["data"]
    while inner:
        levels, inner = levels + 1, inner[0]
    assert row["model"] == "m"
    assert levels <= DEEPEST


def test_what_json_does_not_know_becomes_text() -> None:
    row = {
        "id": UUID(int=7),
        "cost_usd": Decimal("0.000123"),
        "at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    }

    assert json.loads(dumps([row])) == [
        {
            "id": "00000000-0000-0000-0000-000000000007",
            "cost_usd": "0.000123",
            "at": "2026-01-02 03:04:05+00:00",
        }
    ]
