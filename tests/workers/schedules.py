"""Schedules as rows, and their own clock."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import DictRow, dict_row

from store.ids import new_id
from store.settings import Settings

Owner = psycopg.Connection[DictRow]


@contextmanager
def owner_of(settings: Settings) -> Iterator[Owner]:
    with psycopg.connect(settings.database(), autocommit=True, row_factory=dict_row) as db:
        yield db


def stop_clock(db: Owner, at: datetime) -> None:
    """Let schedules see this time until it is set again."""
    db.execute("CREATE TABLE IF NOT EXISTS stopped_clock (at timestamptz)")
    db.execute(
        "CREATE OR REPLACE FUNCTION schedule_now() RETURNS timestamptz LANGUAGE sql STABLE "
        "AS $$ SELECT at FROM stopped_clock $$"
    )
    with db.transaction():
        db.execute("DELETE FROM stopped_clock")
        db.execute("INSERT INTO stopped_clock VALUES (%s)", [at])


def add(db: Owner, name: str, cron: str, **columns: Any) -> UUID:
    values: dict[str, Any] = {
        "id": new_id(),
        "name": name,
        "cron": cron,
        "feature_name": "daily_zodiac_text",
        "inputs_matrix": {"sign": "aries"},
        **columns,
    }
    for json_column in ("inputs_matrix", "then"):
        if json_column in values:
            values[json_column] = json.dumps(values[json_column])
    names = ", ".join(f'"{column}"' for column in values)
    places = ", ".join(f"%({column})s" for column in values)
    db.execute(f"INSERT INTO schedules ({names}) VALUES ({places})".encode(), values)
    id_: UUID = values["id"]
    return id_


def fires(db: Owner, schedule_id: UUID) -> list[datetime]:
    found = db.execute("SELECT instant FROM fires WHERE schedule_id = %s ORDER BY 1", [schedule_id])
    return [row["instant"] for row in found]
