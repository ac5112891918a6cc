"""The owner's connection, and a database that has rows in every table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import psycopg
import pytest
from psycopg import Connection
from psycopg.rows import tuple_row

from store.database import conninfo
from tests.store.callers import SINGLE_ROWS, Column, all_tables, any_row, insert


@pytest.fixture
def owner(database_url: str) -> Iterator[Connection[Any]]:
    with psycopg.connect(conninfo(database_url), autocommit=True, row_factory=tuple_row) as db:
        yield db


@pytest.fixture
def tables(owner: Connection[Any]) -> Mapping[str, list[Column]]:
    """Every table of the schema but partitions, with two rows of strangers in each."""
    found = all_tables(owner)
    with owner.transaction():
        owner.execute("SET LOCAL session_replication_role = replica")  # no triggers, no foreign keys
        for table, columns in found.items():
            if table not in SINGLE_ROWS:
                for _ in range(2):
                    insert(owner, table, any_row(table, columns))
    return found
