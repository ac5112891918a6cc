"""Ids of rows and jobs."""

from __future__ import annotations

from uuid import UUID

import uuid_utils.compat


def new_id() -> UUID:
    """A UUIDv7: ids sort by the time they were made."""
    return uuid_utils.compat.uuid7()


def first_of_many() -> UUID:
    """A UUIDv7 with room behind it: counting up from it never leaves its random end."""
    made = new_id().int
    return UUID(int=made & ~((1 << 62) - 1) | made & _FIRST_MASK)


_FIRST_MASK = (1 << 61) - 1  # of the random end of an id: what lies above is room to count
