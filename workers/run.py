"""Composition root of a worker process: some lanes, many threads, one feeder, one heartbeat."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Sequence

import redis
from dramatiq.worker import Worker

from store.settings import Settings
from workers import lifecycle
from workers.actors import declare
from workers.alone import Isolation
from workers.broker import POLL_MILLISECONDS, worker_broker
from workers.doorbells import LANES, Doorbells
from workers.feeder import Feeder
from workers.runtime import Runtime

logger = logging.getLogger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_WAKE_SECONDS = (
    0.5  # two signals within a millisecond can leave a wait without end unwoken, their handlers unrun
)


class WorkerProcess:
    """A worker: `start()` it, `stop()` it.

    Args:
        lanes: queues to serve; a lane's jobs wait only for threads of processes that serve it.
        threads: jobs that run at the same time.
    """

    def __init__(self, settings: Settings, *, lanes: Sequence[str], threads: int) -> None:
        unknown = set(lanes) - set(LANES)
        if unknown or not lanes:
            raise ValueError(f"lanes must be some of {', '.join(LANES)}; got {', '.join(lanes) or 'none'}.")
        self._grace_seconds = settings.grace_seconds
        self._runtime = Runtime(settings, purpose=f"worker {','.join(lanes)}", threads=threads)
        self._doorbells = Doorbells(settings.redis())
        self._isolation = Isolation(settings.environment())
        self._feeder = Feeder(
            self._runtime.pool,
            self._doorbells,
            window=settings.doorbell_window,
            lease_seconds=settings.lease_seconds,
            pause_seconds=settings.feeder_seconds,
            on_suspects=self._isolation.ensure,
        )
        broker = worker_broker(settings.redis())
        declare(broker, lambda job_id: lifecycle.run(job_id, self._runtime.tools))
        for lane in lanes:
            broker.declare_queue(lane)
        self._worker = Worker(
            broker, queues=set(lanes), worker_timeout=POLL_MILLISECONDS, worker_threads=threads
        )

    def start(self) -> None:
        """Begin to run jobs."""
        self._runtime.start()
        self._feeder.start()
        self._worker.start()

    def stop(self) -> None:
        """Finish what runs within the grace time, give the rest back to the queue, and close."""
        self._runtime.tools.stopping.set()
        self._isolation.terminate()  # its grace time runs beside ours
        self._feeder.stop()
        try:
            self._worker.stop(timeout=int(self._grace_seconds * 1000))
        except redis.RedisError as error:  # dramatiq cannot give doorbells back: they ring again
            logger.warning("Doorbells were not given back: %s", type(error).__name__)
        finally:
            self._runtime.close()
            self._isolation.wait(seconds=2)
            self._doorbells.close()


def serve(settings: Settings, *, lanes: Sequence[str], threads: int) -> None:
    """Run a worker process until SIGTERM or SIGINT; a second signal ends it at once."""
    ending = threading.Event()

    def end(_number: int, _frame: object) -> None:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        ending.set()

    for number in _SIGNALS:
        signal.signal(number, end)
    worker = WorkerProcess(settings, lanes=lanes, threads=threads)
    worker.start()
    logger.info("Worker serves %s with %d threads.", ", ".join(lanes), threads)
    while not ending.wait(_WAKE_SECONDS):
        pass
    logger.info("Worker stops.")
    worker.stop()
