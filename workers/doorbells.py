"""Doorbells: dramatiq messages that say only "this job may run". Losing them all loses no job.

Redis is asked with short timeouts and without retries: a caller who enqueues must not wait for it. After a
failure it is left alone for a second.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from uuid import UUID

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker
from redis.backoff import NoBackoff
from redis.retry import Retry

logger = logging.getLogger(__name__)

LANES = ("interactive", "standard", "batch")

_CONNECTIONS = 16
_TIMEOUT_SECONDS = 0.5
_PAUSE_SECONDS = 1.0


def message(job_id: UUID, capability: str, lane: str) -> dramatiq.Message[None]:
    """The doorbell of a job. The actor is named, not imported: whoever enqueues needs none of its code."""
    return dramatiq.Message(
        queue_name=lane, actor_name=capability, args=(str(job_id),), kwargs={}, options={}
    )


class Doorbells:
    """Rings for jobs. Thread-safe; never raises for Redis."""

    def __init__(self, redis_url: str) -> None:
        connections = redis.BlockingConnectionPool.from_url(  # a plain one refuses the 101st thread
            redis_url,
            max_connections=_CONNECTIONS,
            timeout=_TIMEOUT_SECONDS,
            socket_timeout=_TIMEOUT_SECONDS,
            socket_connect_timeout=_TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )
        self._redis = redis.Redis.from_pool(connections)
        self._broker = RedisBroker(client=self._redis, middleware=[])
        self._silent_until = 0.0

    def ring(self, lane: str, jobs: Sequence[tuple[UUID, str]]) -> bool:
        """Ring for `(id, capability)` pairs in one round trip; False where Redis does not answer."""
        if not jobs:
            return True
        if time.monotonic() < self._silent_until:
            return False
        try:
            if len(jobs) == 1:
                self._broker.enqueue(message(*jobs[0], lane))
            else:
                self._ring_all(lane, jobs)
        except redis.RedisError as error:
            self._fell_silent(error)
            return False
        return True

    def waiting(self, lane: str) -> int | None:
        """How many doorbells of a lane no worker has fetched yet; None where Redis does not answer."""
        if time.monotonic() < self._silent_until:
            return None
        try:
            # dramatiq's qsize counts fetched messages too; the list it pops from is what still waits.
            return int(self._redis.llen(f"{self._broker.namespace}:{lane}"))
        except redis.RedisError as error:
            self._fell_silent(error)
            return None

    def answers(self) -> bool:
        """Whether Redis answers now."""
        try:
            return bool(self._redis.ping())
        except redis.RedisError:
            return False

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()

    def _ring_all(self, lane: str, jobs: Iterable[tuple[UUID, str]]) -> None:
        self._broker.do_qsize(lane)  # fills what the broker learns from Redis once, outside of the pipeline
        with self._redis.pipeline(transaction=False) as pipeline:
            batch = RedisBroker(client=pipeline, middleware=[])
            for job in jobs:
                batch.enqueue(message(*job, lane))
            pipeline.execute()

    def _fell_silent(self, error: redis.RedisError) -> None:
        self._silent_until = time.monotonic() + _PAUSE_SECONDS
        logger.warning("Redis does not answer (%s): jobs wait for the feeder.", type(error).__name__)
