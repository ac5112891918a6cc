"""Doorbells: dramatiq messages that say only "this job may run". Losing them all loses no job.

Redis is asked with short timeouts and without retries: a caller who enqueues must not wait for it. After a
failure it is left alone for a second.

dramatiq's broker takes a script call for each message it enqueues or acknowledges, and has nothing for many
at once. Doorbells are written as it would write them (the layout stands at the head of its `dispatch.lua`),
but any number in two commands: ringing took 8 % of a busy worker's time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import dramatiq
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

logger = logging.getLogger(__name__)

LANES = ("interactive", "standard", "batch")

NAMESPACE = "dramatiq"
"""What dramatiq's keys in Redis begin with."""

_CONNECTIONS = 16
_TIMEOUT_SECONDS = 0.5
_PAUSE_SECONDS = 1.0


def waiting_key(lane: str) -> str:
    """The list of the ids of messages that no worker has fetched yet."""
    return f"{NAMESPACE}:{lane}"


def messages_key(lane: str) -> str:
    """The hash of the messages that are not acknowledged, by their ids."""
    return f"{NAMESPACE}:{lane}.msgs"


def message(job_id: UUID, capability: str, lane: str) -> tuple[str, bytes]:
    """The doorbell of a job: the message's id in Redis, and the message.

    The actor is named, not imported: whoever enqueues needs none of its code.
    """
    doorbell = dramatiq.Message[None](
        queue_name=lane, actor_name=capability, args=(str(job_id),), kwargs={}, options={}
    )
    doorbell.options["redis_message_id"] = doorbell.message_id
    return doorbell.message_id, doorbell.encode()


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
        self._silent_until = 0.0

    def ring(self, lane: str, jobs: Sequence[tuple[UUID, str]]) -> bool:
        """Ring for `(id, capability)` pairs in one round trip; False where Redis does not answer."""
        if not jobs:
            return True
        if time.monotonic() < self._silent_until:
            return False
        messages: dict[Any, bytes] = dict(message(*job, lane) for job in jobs)
        try:
            with self._redis.pipeline(transaction=False) as pipeline:
                pipeline.hset(messages_key(lane), mapping=messages)
                pipeline.rpush(waiting_key(lane), *messages)
                pipeline.execute()
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
            return int(self._redis.llen(waiting_key(lane)))
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

    def _fell_silent(self, error: redis.RedisError) -> None:
        self._silent_until = time.monotonic() + _PAUSE_SECONDS
        logger.warning("Redis does not answer (%s): jobs wait for the feeder.", type(error).__name__)
