"""Application tokens as the command line makes them."""

from __future__ import annotations

import pytest

from standalone.people import PeopleError, create_token, list_tokens
from store.settings import Settings


@pytest.mark.parametrize("name", ["", "  ", "two\nlines", "x" * 101, "a\tb", "bell\a", "line\u2028end"])
def test_a_name_that_breaks_the_list_is_refused(settings: Settings, name: str) -> None:
    with pytest.raises(PeopleError, match="--name"):
        create_token(settings, name=name, owner=None, scopes=[])
    assert list_tokens(settings) == []


def test_a_name_is_kept_without_the_blanks_around_it(settings: Settings) -> None:
    assert create_token(settings, name=" Läden & Co. \n", owner=None, scopes=[])
    create_token(settings, name="x" * 100, owner=None, scopes=[])
    assert [line.name for line in list_tokens(settings)] == ["Läden & Co.", "x" * 100]
