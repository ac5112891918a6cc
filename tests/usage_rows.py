"""Calls on record that nobody made, written as the database's owner."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
from psycopg.rows import dict_row

from store.database import Role, open_pool
from store.settings import Settings
from workers import rollup

PROVIDER_ID = UUID("00000000-0000-7000-8000-000000000001")
MODEL_ID = UUID("00000000-0000-7000-8000-000000000002")


def call(**columns: Any) -> dict[str, Any]:
    """The columns of a call that succeeded a second ago, but for those given."""
    ended_at = columns.get("finished_at") or datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=1)
    return {
        "job_id": uuid4(),
        "run": 1,
        "n": 1,
        "finished_at": ended_at,
        "started_at": ended_at - timedelta(milliseconds=120),
        "feature": "cv_draft",
        "capability": "text",
        "lane": "standard",
        "provider_id": PROVIDER_ID,
        "provider": "acme",
        "model_row_id": MODEL_ID,
        "model": "acme-1",
        "outcome": "succeeded",
        "called": True,
        "breaker": "closed",
        "status": 200,
        "latency_ms": 120,
        "input_tokens": 100,
        "output_tokens": 20,
        "cost_usd": "0.01",
        "worker": "host:1",
        **columns,
    }


def record(db: psycopg.Connection[Any], *calls: dict[str, Any]) -> None:
    """Record calls in the transaction that `db` is in. Their days must have partitions: see `with_days`."""
    for one in calls:
        names = ", ".join(one)
        values = ", ".join(f"%({name})s" for name in one)
        db.execute(f"INSERT INTO ai_usage_analytics ({names}) VALUES ({values})".encode(), one)


def with_days(db: psycopg.Connection[Any], days: int) -> None:
    """Make partitions for the last `days` days."""
    db.execute("SELECT ensure_partitions((now() AT TIME ZONE 'UTC')::date - %s::integer, %s)", [days, days])


class Ledger:
    """Records calls and has them counted, as workers would."""

    def __init__(self, settings: Settings) -> None:
        self.db: psycopg.Connection[dict[str, Any]] = psycopg.connect(
            settings.database(), autocommit=True, row_factory=dict_row
        )
        self._pool = open_pool(settings.database(), Role.WORKER, size=1)
        with_days(self.db, 40)

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()
        self.db.close()

    def record(self, *calls: dict[str, Any]) -> None:
        """Record calls in one transaction, and count them."""
        with self.db.transaction():
            record(self.db, *calls)
        with self._pool.connection() as db:
            while (step := rollup.advance(db, pause_seconds=0)) is None or not step.caught_up:
                pass
