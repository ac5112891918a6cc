"""What changed, member by member; what sessions were begun with."""

from __future__ import annotations

import pytest

from admin_api.pages.devices import device
from admin_api.pages.diffs import diff


def told(before: dict[str, object] | None, after: dict[str, object] | None, lines: int = 99) -> list[object]:
    found = diff(before, after, lines=lines, width=40)
    return [(change.name, [(each.kind, each.text) for each in change.pieces]) for change in found.changes]


def test_short_values_stand_side_by_side() -> None:
    assert told({"role": "admin", "limit": 5}, {"role": "super_admin", "limit": None}) == [
        ("role", [("gone", "admin"), ("new", "super_admin")]),
        ("limit", [("gone", "5"), ("new", "(empty)")]),
    ]


def test_what_is_made_tells_what_it_was_given_and_what_goes_what_it_had() -> None:
    noun: dict[str, object] = {"name": "x", "tags": [], "note": None, "on": False, "settings": {"a": 1}}
    given = [("name", "x"), ("on", "false"), ("settings", '{"a": 1}')]
    assert told(None, noun) == [(name, [("new", text)]) for name, text in given]
    assert told(noun, None) == [(name, [("gone", text)]) for name, text in given]
    assert told(None, None) == []


def test_long_texts_are_told_by_their_lines() -> None:
    before = [f"line {number}" for number in range(30)]
    after = [*before[:5], "new", *before[5:20], "other", *before[21:]]
    assert told({"text": "\n".join(before)}, {"text": "\n".join(after)}) == [
        (
            "text",
            [
                ("same", "line 4"),
                ("new", "new"),
                ("same", "line 5"),
                ("skip", "…"),
                ("same", "line 19"),
                ("gone", "line 20"),
                ("new", "other"),
                ("same", "line 21"),
            ],
        )
    ]


def test_there_is_room_for_some_lines_of_some_width() -> None:
    found = diff(None, {f"n{number}": "x" * 99 for number in range(9)}, lines=4, width=10)
    assert [len(change.pieces) for change in found.changes] == [1, 1, 1, 1]
    assert found.left_out == 5
    assert found.changes[0].pieces[0].text == "x" * 10 + "…"


@pytest.mark.parametrize(
    ("agent", "said"),
    [
        ("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "Firefox on Linux"),
        (
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
            "Chrome/140.0.0.0 Safari/537.36 Edg/140.0.0.0",
            "Edge on Windows",
        ),
        (
            "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 "
            "(KHTML, like Gecko) Version/18.0 Mobile/15E148 Safari/604.1",
            "Safari on iPhone",
        ),
        ("Mozilla/5.0 (Linux; Android 15) Chrome/140.0.0.0 Mobile Safari/537.36", "Chrome on Android"),
        ("curl/8.5.0", "curl 8.5"),
        ("python-httpx/0.28.1", "python-httpx 0.28"),
        ("something else", "something else"),
        (None, "Unnamed program"),
    ],
)
def test_user_agents_in_plain_words(agent: str | None, said: str) -> None:
    assert device(agent) == said
