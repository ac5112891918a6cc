"""Server-sent events, in whatever pieces they come."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.sse import EventReader, ServerEvent


def read(*pieces: bytes) -> list[ServerEvent]:
    reader = EventReader()
    events = [event for piece in pieces for event in reader.feed(piece)]
    return [*events, *reader.end()]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_names_data_and_comments(end: str) -> None:
    lines = [": keep-alive", "event: delta", "data: one", "data: two", "", "id: 7", "data:three", "", ""]

    assert read(end.join(lines).encode()) == [
        ServerEvent("delta", "one\ntwo"),
        ServerEvent("message", "three"),
    ]


def test_an_event_without_data_is_none() -> None:
    assert read(b"event: ping\n\n: OPENROUTER PROCESSING\n\n") == []


def test_the_last_event_may_lack_its_blank_line() -> None:
    assert read(b"data: [DONE]") == [ServerEvent("message", "[DONE]")]


def test_a_byte_order_mark_is_no_part_of_the_first_name() -> None:
    assert read(b"\xef\xbb\xbfdata: x\n\n") == [ServerEvent("message", "x")]


@given(st.lists(st.text(st.characters(exclude_characters="\r\n")), max_size=6), st.data())
def test_pieces_of_any_size_make_the_same_events(texts: list[str], data: st.DataObject) -> None:
    stream = "".join(f"data: {text}\r\n\r\n" for text in texts).encode("utf-8", "replace")
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]

    assert read(*pieces) == read(stream)
    assert [event.data for event in read(stream)] == [
        text.encode("utf-8", "replace").decode() for text in texts
    ]
