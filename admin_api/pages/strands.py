"""The jobs of a group by their chains: each firing's first jobs, in their order, and what followed them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

_MOST_JOBS = 24  # a page
_FEWEST = 2  # chains, however long they are
_LONGEST = 60  # characters of a value
_CLOCKS_APART = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Member:
    """A job of a chain, and the beginning of what it made."""

    id: UUID
    feature: str
    state: str
    text: str | None
    media_type: str | None
    error_class: str | None

    @property
    def is_audio(self) -> bool:
        """Whether it made something to listen to."""
        return (self.media_type or "").startswith("audio/")


@dataclass(frozen=True, slots=True)
class Strand:
    """A first job, told by its input, and what followed it."""

    id: UUID
    label: str
    members: Sequence[Member]


@dataclass(frozen=True, slots=True)
class Strands:
    """A page of them; `further`: the id of the last one where there are more."""

    items: Sequence[Strand]
    further: UUID | None


def strands(session: Session, group_id: UUID, since: datetime, after: UUID | None) -> Strands:
    """The strands after this one, by ids of their first jobs. No job of the group is older than `since`."""
    values = {"group_id": group_id, "since": since - _CLOCKS_APART}
    firsts = session.execute(_FIRSTS, {**values, "after": after or UUID(int=0), "most": _MOST_JOBS + 1}).all()
    if not firsts:
        return Strands((), None)
    most = max(_FEWEST, _MOST_JOBS // (1 + firsts[0].steps))
    ids = [first.id for first in firsts[:most]]
    rows = session.execute(_MEMBERS, {**values, "ids": ids}).all()
    inputs = {row.id: row.input or {} for row in rows if row.id in ids}
    labels = _labels(inputs)
    return Strands(
        [
            Strand(id_, labels.get(id_, ""), [_member(row) for row in rows if row.strand_id == id_])
            for id_ in ids
        ],
        ids[-1] if len(firsts) > most else None,
    )


def _member(row: Any) -> Member:
    return Member(row.id, row.feature, row.state, row.text, row.media_type, row.error_class)


def _labels(inputs: Mapping[UUID, Mapping[str, Any]]) -> dict[UUID, str]:
    """What tells the inputs from each other; all of each where nothing does."""
    names = dict.fromkeys(name for each in inputs.values() for name in each)
    varying = [name for name in names if len({str(each.get(name)) for each in inputs.values()}) > 1]
    return {
        id_: " · ".join(_short(each[name]) for name in varying or names if name in each)
        for id_, each in inputs.items()
    }


def _short(value: Any) -> str:
    shown = str(value)
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}…"


_FIRSTS = text("""
SELECT id, coalesce(jsonb_array_length(follow_ups), 0) AS steps FROM (
    (SELECT id, follow_ups FROM jobs
    WHERE group_id = :group_id AND id > :after AND parent_id IS NULL ORDER BY id LIMIT :most)
    UNION ALL
    (SELECT id, follow_ups FROM job_history
    WHERE group_id = :group_id AND id > :after AND parent_id IS NULL AND finished_at >= :since
    ORDER BY id LIMIT :most)
) AS firsts ORDER BY id LIMIT :most""")

# An input may have megabytes.
_MEMBERS = text("""
SELECT id, coalesce(chain_id, id) AS strand_id, feature, state,
    CASE WHEN octet_length(input::text) <= 4000 THEN input END AS input,
    NULL AS text, NULL AS media_type, NULL AS error_class
FROM jobs WHERE group_id = :group_id AND (id = ANY (:ids) OR chain_id = ANY (:ids))
UNION ALL
SELECT id, coalesce(chain_id, id), feature, state,
    CASE WHEN octet_length(input::text) <= 4000 THEN input END,
    left(result ->> 'text', 240), CASE WHEN artifact_key IS NOT NULL THEN result ->> 'media_type' END,
    error_class
FROM job_history
WHERE group_id = :group_id AND (id = ANY (:ids) OR chain_id = ANY (:ids)) AND finished_at >= :since
ORDER BY id""")
