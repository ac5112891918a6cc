"""What a job says while it runs: a capped stream in Redis for each job that streams.

    worker ─ XADD ─▶ orrery:events:<job id> ─ XREAD after the last id ─▶ GET /jobs/{id}/events

Redis is a convenience here, too: what is lost of a stream is in the job's record when it ends. So a worker
never waits for Redis, and after a failure leaves it alone for a second.
"""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import redis

from routing.narration import Listener
from workers.line import Line

KEPT_SECONDS = 3600
"""How long a stream can be read after its last event."""

MOST_EVENTS = 20_000
"""Of a stream, about; the oldest go first."""


class _OfJob:
    """The listener of one job."""

    def __init__(self, events: Events, job_id: UUID) -> None:
        self._events = events
        self._job_id = job_id

    def text(self, text: str) -> None:
        self._events.text(self._job_id, text)

    def restarted(self, reason: str) -> None:
        self._events.restarted(self._job_id, reason)


def key(job_id: UUID) -> str:
    """The stream of a job."""
    return f"orrery:events:{job_id}"


class Events:
    """Publishes. Thread-safe; never raises for Redis."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def text(self, job_id: UUID, text: str) -> None:
        """The answer goes on."""
        self._add(job_id, "text", {"text": text})

    def restarted(self, job_id: UUID, reason: str) -> None:
        """What was said so far does not count: the answer begins anew."""
        self._add(job_id, "restarted", {"reason": reason})

    def ended(self, job_id: UUID, state: str) -> None:
        """The job has its record."""
        self._add(job_id, "done", {"state": state})

    def has_said(self, job_id: UUID) -> bool:
        """Whether the job's stream says anything; not, where Redis does not answer."""
        return bool(self._line.ask(lambda server: server.exists(key(job_id))))

    def listener(self, job_id: UUID) -> Listener:
        """Who is told what one job says."""
        return _OfJob(self, job_id)

    def _add(self, job_id: UUID, event: str, data: dict[str, Any]) -> None:
        said: dict[Any, Any] = {"event": event, "data": json.dumps(data)}
        self._line.ask(lambda server: _added(server, key(job_id), said))


def _added(server: redis.Redis, stream: str, said: dict[Any, Any]) -> None:
    with server.pipeline(transaction=False) as pipeline:
        pipeline.xadd(stream, said, maxlen=MOST_EVENTS, approximate=True)
        pipeline.expire(stream, KEPT_SECONDS)
        pipeline.execute()
