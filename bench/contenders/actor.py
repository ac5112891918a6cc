"""A dramatiq actor of one's own, with dramatiq's default middleware: what `bare` and `naive` share."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from workers.broker import POLL_MILLISECONDS

_STOP_MILLISECONDS = 25_000


def broker(
    redis_url: str, name: str, perform: Callable[[int], None]
) -> tuple[RedisBroker, dramatiq.Actor[[int], None]]:
    """A default broker, and on it an actor and queue called `name`."""
    made = RedisBroker(url=redis_url)
    return made, dramatiq.actor(actor_name=name, queue_name=name, broker=made)(perform)


class ActorWorker:
    """A worker as `dramatiq` runs it, but with Orrery's worker timeout, that notes when jobs end."""

    def __init__(self, redis_url: str, name: str, perform: Callable[[int], None], *, threads: int) -> None:
        self._stopwatch = _Stopwatch()
        self._broker, _ = broker(redis_url, name, perform)
        self._broker.add_middleware(self._stopwatch)
        self._worker = dramatiq.Worker(
            self._broker, queues={name}, worker_timeout=POLL_MILLISECONDS, worker_threads=threads
        )

    @property
    def finished(self) -> Sequence[float]:
        """When runs succeeded, Unix seconds."""
        return self._stopwatch.finished

    @property
    def failed(self) -> int:
        """Runs that raised."""
        return self._stopwatch.failed

    def start(self) -> None:
        self._broker.emit_after("process_boot")
        self._worker.start()

    def stop(self) -> None:
        self._worker.stop(timeout=_STOP_MILLISECONDS)


class _Stopwatch(dramatiq.Middleware):
    """Notes the end of each run; an append is all it costs."""

    def __init__(self) -> None:
        self.finished: list[float] = []
        self.failed = 0

    def after_process_message(
        self,
        broker: dramatiq.Broker,
        message: dramatiq.MessageProxy,
        *,
        result: Any = None,
        exception: BaseException | None = None,
    ) -> None:
        if exception is None:
            self.finished.append(time.time())
        else:
            self.failed += 1
