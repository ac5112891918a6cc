"""The courier of a worker process: tells integrations, and the callbacks of jobs, what there is to be told,
at least once.

Notices are rows, written by the transaction that they tell of. A courier takes some, for a minute each, and
sends them without holding a lock; whoever dies in between has them sent again. `id` of the event is the
notice's, so a receiver can tell repetitions.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg import Connection
from psycopg.rows import DictRow

from routing.transport import Transport
from store.database import Pool
from store.vault import Vault, VaultError
from workers.delivery import DeliveryError, Event, Integration, deliver
from workers.delivery.stored import callback_terms, note_health, stored
from workers.rounds import Rounds

logger = logging.getLogger(__name__)

MOST_TRIES = 14
"""Of a notice, over about a day."""

_AT_ONCE = 20


@dataclass(frozen=True, slots=True)
class _Notice:
    id: UUID
    integration_id: UUID | None
    url: str | None
    event: str
    content: Mapping[str, Any]
    made_at: datetime
    tries: int


class Courier:
    """One process's courier. `pause_seconds`: between two looks whether there is news."""

    def __init__(self, pool: Pool, transport: Transport, vault: Vault, *, pause_seconds: float) -> None:
        self._pool = pool
        self._transport = transport
        self._vault = vault
        self._rounds = Rounds(
            "courier", self.turn, goes_on=lambda taken: taken >= _AT_ONCE, pause_seconds=pause_seconds
        )

    def start(self) -> None:
        """Begin."""
        self._rounds.start()

    def stop(self) -> None:
        """End, after the notice it is at; what it took besides is sent by others, a minute later."""
        self._rounds.stop(wait=False)

    def turn(self) -> int:
        """Send what is due; returns how many notices were taken."""
        with self._pool.connection() as db:
            taken = [_Notice(**row) for row in db.execute(_TAKE, {"most": _AT_ONCE})]
        for notice in taken:
            if self._rounds.is_over:
                break
            self._send(notice)
        return len(taken)

    def _send(self, notice: _Notice) -> None:
        latency, error = 0, None
        try:
            with self._pool.connection() as db:
                integration = _addressee(db, self._vault, notice)
            if integration is None:
                return  # its notices went with it
            event = Event(
                notice.event, notice.content["message"], notice.content, id=notice.id, at=notice.made_at
            )
            latency = deliver(self._transport, integration, event).latency_ms
        except (DeliveryError, VaultError) as refused:
            error = str(refused)
            logger.warning("%s was not told: %s", notice.url or notice.integration_id, error)
        with self._pool.connection() as db:
            _settle(db, notice, error)
            if notice.integration_id is not None:
                note_health(db, notice.integration_id, ok=error is None, latency_ms=latency, error=error)


def _addressee(db: Connection[DictRow], vault: Vault, notice: _Notice) -> Integration | None:
    """Whom a notice is for; a callback goes by the rules and the secret of the default webhook."""
    if notice.integration_id is not None:
        return stored(db, vault, notice.integration_id)
    return Integration("callback", "webhook", notice.url, *callback_terms(db, vault))


def _settle(db: Connection[DictRow], notice: _Notice, error: str | None) -> None:
    values = {"id": notice.id, "error": error and error[:1000], "gives_up": notice.tries >= MOST_TRIES}
    db.execute(_SENT if error is None else _FAILED, values)


_TAKE = """
UPDATE notices SET tries = tries + 1, due_at = now() + interval '1 minute'
FROM (
    SELECT id FROM notices WHERE due_at <= now() AND sent_at IS NULL AND failed_at IS NULL
    ORDER BY due_at LIMIT %(most)s FOR UPDATE SKIP LOCKED
) AS due
WHERE notices.id = due.id
RETURNING notices.id, integration_id, url, event, content, made_at, tries"""

_SENT = "UPDATE notices SET sent_at = now(), error = NULL WHERE id = %(id)s"

# 5 s, 10 s, 20 s, ... two hours.
_FAILED = """
UPDATE notices SET error = %(error)s, failed_at = CASE WHEN %(gives_up)s THEN now() END,
    due_at = now() + least(7200, 5 * 2 ^ (tries - 1)) * (0.75 + random() / 2) * interval '1 second'
WHERE id = %(id)s"""
