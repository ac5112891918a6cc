"""What a job says while it runs: a capped stream in Redis for each job that streams.

    worker ─ XADD ─▶ orrery:events:<job id> ─ XREAD after the last id ─▶ GET /jobs/{id}/events

Redis is a convenience here, too: what is lost of a stream is in the job's record when it ends. So a worker
never waits for Redis, and after a failure leaves it alone for a second.
"""

from __future__ import annotations

import json
import logging
import time
from typing import Any
from uuid import UUID

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from routing.narration import Listener

logger = logging.getLogger(__name__)

KEPT_SECONDS = 3600
"""How long a stream can be read after its last event."""

MOST_EVENTS = 20_000
"""Of a stream, about; the oldest go first."""

_TIMEOUT_SECONDS = 0.5
_PAUSE_SECONDS = 1.0
_CONNECTIONS = 16


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

    def __init__(self, redis_url: str) -> None:
        connections = redis.BlockingConnectionPool.from_url(
            redis_url,
            max_connections=_CONNECTIONS,
            timeout=_TIMEOUT_SECONDS,
            socket_timeout=_TIMEOUT_SECONDS,
            socket_connect_timeout=_TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )
        self._redis = redis.Redis.from_pool(connections)
        self._silent_until = 0.0

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
        try:
            return bool(self._redis.exists(key(job_id)))
        except redis.RedisError:
            return False

    def listener(self, job_id: UUID) -> Listener:
        """Who is told what one job says."""
        return _OfJob(self, job_id)

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()

    def _add(self, job_id: UUID, event: str, data: dict[str, Any]) -> None:
        if time.monotonic() < self._silent_until:
            return
        stream = key(job_id)
        try:
            with self._redis.pipeline(transaction=False) as pipeline:
                pipeline.xadd(
                    stream, {"event": event, "data": json.dumps(data)}, maxlen=MOST_EVENTS, approximate=True
                )
                pipeline.expire(stream, KEPT_SECONDS)
                pipeline.execute()
        except redis.RedisError as error:
            self._silent_until = time.monotonic() + _PAUSE_SECONDS
            logger.warning("Redis does not answer (%s): nobody can listen to jobs.", type(error).__name__)
