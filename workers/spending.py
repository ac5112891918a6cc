"""Reservations with budgets: one statement a call, where a budget covers it."""

from __future__ import annotations

from dataclasses import asdict
from uuid import UUID

from psycopg import Connection
from psycopg.rows import DictRow

from routing.budgets import InTheWay, Reservation


def reserve(db: Connection[DictRow], job_id: UUID, run: int, wanted: Reservation) -> InTheWay | None:
    """Reserve with every budget that covers the call, or with none; the budget in the way, or None.

    A reservation counts while its run goes on: it ends with the run's record, and with its lease.
    """
    values = {**asdict(wanted), "job_id": job_id, "run": run}
    row = db.execute(_RESERVE, values).fetchone()
    return None if row is None else InTheWay(**row)


def prune(db: Connection[DictRow]) -> None:
    """Drop what budgets need no more: dead reservations, counters and notices of long ago."""
    db.execute("SELECT prune_budgets()")


_RESERVE = """
SELECT scope, scope_id, period, action, left_usd, left_tokens, seconds_left FROM reserve_budget(
    %(job_id)s, %(run)s, %(n)s, %(feature)s, %(user_id)s, %(provider_id)s, %(usd)s, %(tokens)s,
    %(is_cheapest)s)"""
