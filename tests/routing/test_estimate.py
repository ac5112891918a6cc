from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing import estimate
from routing.values import Turn
from tests.routing import factories


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 0),
        ("a", 1),
        ("word" * 100, 100),
        ("\u0436" * 35, 10),
        ("\u661f" * 12, 10),
        ("\U0001f319" * 12, 10),
    ],
)
def test_scripts_have_their_own_density(text: str, expected: int) -> None:
    assert estimate.tokens(text) == expected


@given(st.text(), st.text())
def test_longer_texts_have_at_least_as_many_tokens(a: str, b: str) -> None:
    whole = estimate.tokens(a + b)
    assert max(estimate.tokens(a), estimate.tokens(b)) <= whole <= estimate.tokens(a) + estimate.tokens(b)


def test_each_message_of_a_prompt_is_framed() -> None:
    call = factories.call(system="word" * 10, user="word" * 20, history=(Turn("user", "word" * 5),))
    assert estimate.prompt_tokens(call) == 10 + 20 + 5 + 3 * 4
    assert estimate.prompt_tokens(factories.call(system=None, user="", texts=("word", "word"))) == 2 + 2 * 4
