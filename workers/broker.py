"""The broker of a worker process and its middleware, which reads as a table of contents."""

from __future__ import annotations

import redis
from dramatiq import Middleware
from dramatiq.brokers.redis import RedisBroker

POLL_MILLISECONDS = 50
"""How often an idle worker looks for a doorbell. Ring to start takes 25-55 ms; with dramatiq's 1 s, 400."""

_CONNECTIONS = 32  # an acknowledgement takes a fraction of a millisecond: they carry a thousand threads


def worker_broker(redis_url: str) -> RedisBroker:
    """A broker without any of dramatiq's default middleware: the job row decides what they would.

    Retries, AgeLimit     a job's retries and deadline are columns of its row
    TimeLimit             cannot interrupt a blocked socket; the call's own deadline is the limit
    ShutdownNotifications a stopping worker finishes its jobs or gives their leases back
    Callbacks, Pipelines  what follows a job is inserted by the transaction that ends it
    Prometheus            listens on every interface
    """
    middleware: list[Middleware] = []
    # A plain pool refuses the 101st connection, and a thread whose acknowledgement is refused rests for 5 s.
    connections = redis.BlockingConnectionPool.from_url(
        redis_url, max_connections=_CONNECTIONS, timeout=5, socket_timeout=5, socket_connect_timeout=5
    )
    return RedisBroker(client=redis.Redis.from_pool(connections), middleware=middleware)
