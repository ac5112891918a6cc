"""What changed, as people read it: member by member, long texts line by line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import islice
from typing import Any, Literal

Kind = Literal["gone", "new", "same", "skip"]

_SHORT = 160  # characters of a value that stands on one line
_COMPARED = 400  # lines of a text that are compared: the time grows with their square


@dataclass(frozen=True, slots=True)
class Piece:
    """A line that went, came or stayed; `skip`: lines that stayed are left out."""

    kind: Kind
    text: str


@dataclass(frozen=True, slots=True)
class Change:
    """What became of one member. `is_long`: it is told line by line."""

    name: str
    pieces: Sequence[Piece]
    is_long: bool


@dataclass(frozen=True, slots=True)
class Diff:
    """What an act changed, as far as there was room. `left_out`: how many lines there was none for."""

    changes: Sequence[Change]
    left_out: int

    @property
    def is_flat(self) -> bool:
        """Whether each value is short: they then stand side by side."""
        return not any(change.is_long for change in self.changes)


def diff(
    before: Mapping[str, Any] | None, after: Mapping[str, Any] | None, *, lines: int, width: int
) -> Diff:
    """At most so many lines of at most so many characters."""
    was, became = before or {}, after or {}
    names = [*became, *(name for name in was if name not in became)]
    changes = [_change(name, was.get(name), became.get(name), width, name in became) for name in names]
    told, room = [], lines
    for change in changes:
        kept = tuple(islice(change.pieces, room))
        if kept:
            told.append(Change(change.name, kept, change.is_long))
        room -= len(kept)
    return Diff(told, sum(len(change.pieces) for change in changes) - (lines - room))


def _change(name: str, was: Any, became: Any, width: int, is_there: bool) -> Change:
    old, new = _lines(was), _lines(became)
    is_long = any(len(each) > 1 or len(each[0]) > _SHORT for each in (old, new) if each)
    pieces = _compared(old, new) if is_long else _replaced(old, new, is_there)
    return Change(name, [Piece(each.kind, _clipped(each.text, width)) for each in pieces], is_long)


def _lines(value: Any) -> list[str]:
    """A value as lines; none of one that says nothing, so that making a noun tells what it was given."""
    if value is None or value in ("", [], {}):
        return []
    if isinstance(value, str):
        return value.splitlines() or [value]
    if isinstance(value, dict | list) and len(json.dumps(value)) > _SHORT:
        return json.dumps(value, indent=2, ensure_ascii=False).splitlines()
    return [json.dumps(value, ensure_ascii=False)]


def _replaced(old: Sequence[str], new: Sequence[str], is_there: bool) -> list[Piece]:
    if old and not new and is_there:
        return [Piece("gone", old[0]), Piece("new", "(empty)")]
    return [*(Piece("gone", line) for line in old), *(Piece("new", line) for line in new)]


def _compared(old: Sequence[str], new: Sequence[str]) -> list[Piece]:
    old, new = old[:_COMPARED], new[:_COMPARED]
    return list(_steps(old, new, SequenceMatcher(None, old, new, autojunk=False)))


def _steps(old: Sequence[str], new: Sequence[str], found: SequenceMatcher[str]) -> Iterator[Piece]:
    """Each change with the line before and after it."""
    for number, group in enumerate(found.get_grouped_opcodes(1)):
        if number:
            yield Piece("skip", "…")
        for kind, old_start, old_end, new_start, new_end in group:
            if kind == "equal":
                yield from (Piece("same", line) for line in old[old_start:old_end])
            else:
                yield from (Piece("gone", line) for line in old[old_start:old_end])
                yield from (Piece("new", line) for line in new[new_start:new_end])


def _clipped(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[:width]}…"
