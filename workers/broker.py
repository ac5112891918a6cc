"""The broker of a worker process and its middleware, which reads as a table of contents."""

from __future__ import annotations

import time
from collections import deque

import dramatiq
import redis
from dramatiq import Middleware
from dramatiq.brokers.redis import RedisBroker, _RedisConsumer
from dramatiq.errors import ConnectionClosed

from workers.doorbells import NAMESPACE, messages_key

POLL_MILLISECONDS = 50
"""How often an idle worker looks for a doorbell. Ring to start takes 25-55 ms; with dramatiq's 1 s, 400."""

WAKE_MILLISECONDS = 250
"""How often an idle thread looks whether its worker stops; a doorbell wakes it at once. dramatiq has one
number for both, and 50 ms would cost a fifth more of an idle process's CPU."""

_FULL_SECONDS = 0.005  # between two looks whether there is room; a process of 8 threads ends 2 jobs in it

_CONNECTIONS = 32  # they carry a thousand threads: only consumers talk to Redis, and only for a moment


def worker_broker(redis_url: str) -> DoorbellBroker:
    """A broker with connections of its own."""
    # A plain pool refuses the 101st connection, and a consumer that is refused rests for 3 s.
    connections = redis.BlockingConnectionPool.from_url(
        redis_url, max_connections=_CONNECTIONS, timeout=5, socket_timeout=5, socket_connect_timeout=5
    )
    return DoorbellBroker(redis.Redis.from_pool(connections))


class DoorbellBroker(RedisBroker):
    """dramatiq's Redis broker, for messages of which none is ever delayed and each may be lost.

    It has none of dramatiq's default middleware: the job row decides what they would.

    Retries, AgeLimit     a job's retries and deadline are columns of its row
    TimeLimit             cannot interrupt a blocked socket; the call's own deadline is the limit
    ShutdownNotifications a stopping worker finishes its jobs or gives their leases back
    Callbacks, Pipelines  what follows a job is inserted by the transaction that ends it
    Prometheus            listens on every interface
    """

    def __init__(self, client: redis.Redis) -> None:
        middleware: list[Middleware] = []
        super().__init__(client=client, middleware=middleware, namespace=NAMESPACE)  # type: ignore[no-untyped-call] # dramatiq's

    def consume(
        self, queue_name: str, prefetch: int = 1, timeout: int = POLL_MILLISECONDS
    ) -> DoorbellConsumer:
        """A consumer that looks every `POLL_MILLISECONDS`, however rarely the worker's threads wake."""
        return DoorbellConsumer(self, queue_name, prefetch, POLL_MILLISECONDS)

    def declare_queue(self, queue_name: str) -> None:
        """Declare a queue without dramatiq's second one for delayed messages, which would be polled, too."""
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues.add(queue_name)
            self.emit_after("declare_queue", queue_name)


class DoorbellConsumer(_RedisConsumer):
    """dramatiq's consumer, but it goes to Redis for several doorbells at a time.

    It fetches once a quarter of what it may hold is free, where dramatiq fetches each single one; and it
    acknowledges, just before, what was answered meanwhile, where dramatiq has the job's thread make a round
    trip. Together they were a sixth of a busy worker's time. An acknowledgement that is lost with the process
    only means that a doorbell rings for a job that has ended.
    """

    broker: DoorbellBroker

    def __init__(self, broker: DoorbellBroker, queue_name: str, prefetch: int, timeout: int) -> None:
        super().__init__(broker, queue_name, prefetch, timeout)  # type: ignore[no-untyped-call] # dramatiq's
        self._answered: deque[str] = deque()
        self._acks_key = f"{broker.namespace}:__acks__.{broker.broker_id}.{queue_name}"

    def ack(self, message: dramatiq.MessageProxy) -> None:
        """Note that a job's thread is done with its doorbell."""
        self._answered.append(message.options["redis_message_id"])
        self.queued_message_ids.discard(message.message_id)

    def __next__(self) -> dramatiq.MessageProxy | None:
        """The next doorbell; None after a pause without any."""
        if not self.message_cache:
            if self.outstanding_message_count > self.prefetch * 3 // 4:
                time.sleep(_FULL_SECONDS)
                return None
            self._acknowledge()
        found: dramatiq.MessageProxy | None = super().__next__()  # type: ignore[no-untyped-call] # dramatiq's
        return found

    def close(self) -> None:
        """Acknowledge the last ones."""
        self._acknowledge()
        super().close()

    def _acknowledge(self) -> None:
        ids = [self._answered.popleft() for _ in range(len(self._answered))]
        if not ids:
            return
        try:
            with self.broker.client.pipeline(transaction=False) as pipeline:
                pipeline.srem(self._acks_key, *ids)
                pipeline.hdel(messages_key(self.queue_name), *ids)
                pipeline.execute()
        except redis.ConnectionError as error:
            raise ConnectionClosed(error) from None
