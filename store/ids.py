"""Ids of rows and jobs."""

from __future__ import annotations

from uuid import UUID

import uuid_utils.compat


def new_id() -> UUID:
    """A UUIDv7: ids sort by the time they were made."""
    return uuid_utils.compat.uuid7()
