"""Composition root of a worker process: some lanes, many threads, one feeder, one heartbeat."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Sequence

from dramatiq.worker import Worker

from routing.breaker import Breakers
from routing.retry_budget import RetryBudget
from routing.snapshot import Snapshots
from routing.transport import Transport
from store.database import Role, open_pool
from store.settings import Settings
from store.vault import Keyring, Vault
from workers import lifecycle
from workers.actors import declare
from workers.artifacts import Artifacts
from workers.broker import POLL_MILLISECONDS, worker_broker
from workers.doorbells import LANES, Doorbells
from workers.feeder import Feeder
from workers.leases import Leases

logger = logging.getLogger(__name__)

_MOST_CONNECTIONS = 12  # statements are short: a dozen connections carry hundreds of threads


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
        self._settings = settings
        name = f"{socket.gethostname()}:{os.getpid()}"
        self._pool = open_pool(
            settings.database(),
            Role.WORKER,
            size=min(threads + 2, _MOST_CONNECTIONS),
            application=f"orrery worker {','.join(lanes)}",
            timeout=10,
        )
        self._leases = Leases(
            self._pool, lease_seconds=settings.lease_seconds, beat_seconds=settings.heartbeat_seconds
        )
        self._doorbells = Doorbells(settings.redis())
        self._feeder = Feeder(
            self._pool,
            self._doorbells,
            window=settings.doorbell_window,
            lease_seconds=settings.lease_seconds,
            pause_seconds=settings.feeder_seconds,
        )
        self._transport = Transport()
        tools = lifecycle.Tools(
            worker=name,
            pool=self._pool,
            snapshots=Snapshots(self._pool, with_keys=True),
            leases=self._leases,
            transport=self._transport,
            breakers=Breakers(cooldown=settings.breaker_cooldown_seconds),
            budget=RetryBudget(),
            vault=Vault(Keyring.load(settings)),
            artifacts=Artifacts(settings.artifacts_url),
            lease_seconds=settings.lease_seconds,
        )
        broker = worker_broker(settings.redis())
        declare(broker, lambda job_id: lifecycle.run(job_id, tools))
        for lane in lanes:
            broker.declare_queue(lane)
        self._worker = Worker(
            broker, queues=set(lanes), worker_timeout=POLL_MILLISECONDS, worker_threads=threads
        )

    def start(self) -> None:
        """Begin to run jobs."""
        self._leases.start()
        self._feeder.start()
        self._worker.start()

    def stop(self) -> None:
        """Finish what runs within the grace time, give the rest back to the queue, and close."""
        self._feeder.stop()
        self._worker.stop(timeout=int(self._settings.grace_seconds * 1000))
        released = self._leases.release()
        if released:
            logger.info("%d unfinished jobs went back to the queue.", released)
        self._transport.close()
        self._doorbells.close()
        self._pool.close()


def serve(settings: Settings, *, lanes: Sequence[str], threads: int) -> None:
    """Run a worker process until SIGTERM or SIGINT; a second signal ends it at once."""
    ending = threading.Event()

    def end(number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        ending.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    worker = WorkerProcess(settings, lanes=lanes, threads=threads)
    worker.start()
    logger.info("Worker serves %s with %d threads.", ", ".join(lanes), threads)
    ending.wait()
    logger.info("Worker stops.")
    worker.stop()
