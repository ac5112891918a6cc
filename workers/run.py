"""Composition root of a worker process: some lanes, many threads, one feeder, one heartbeat, one clerk."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Sequence
from importlib.metadata import version

import redis
from dramatiq.worker import Worker

from store.database import Pool, Role, open_pool
from store.settings import Settings
from workers import lifecycle
from workers.actors import declare
from workers.alone import MOST_PROCESSES, Isolation
from workers.broker import WAKE_MILLISECONDS, worker_broker
from workers.clerk import Clerk
from workers.courier import Courier
from workers.doorbells import LANES, Doorbells
from workers.feeder import Feeder
from workers.presence import Presence
from workers.prober import Prober
from workers.runtime import Runtime
from workers.signals import listen

logger = logging.getLogger(__name__)

_CLOSING_SECONDS = 4.0  # for a process to give back its job: killed in the middle of it, it would seem deadly


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
        self._runtime = Runtime(
            settings,
            purpose=f"worker {','.join(lanes)}",
            threads=threads,
            on_breaker_change=lambda *change: self._clerk.breaker_changed(*change),
        )
        # Two threads, two connections: each statement is planned twice, not once for each connection of jobs.
        self._upkeep = open_pool(
            settings.database(), Role.WORKER, size=2, application="orrery upkeep", timeout=10
        )
        self._clerk = _clerk(settings, self._runtime, self._upkeep, lanes, threads)
        tools = self._runtime.tools
        self._courier = Courier(
            self._runtime.pool, tools.transport, tools.vault, pause_seconds=settings.feeder_seconds
        )
        self._prober = Prober(
            self._runtime.pool, tools.transport, tools.vault, pause_seconds=settings.probe_seconds
        )
        self._doorbells = Doorbells(settings.redis())
        self._isolation = Isolation(settings.environment(), most=min(threads, MOST_PROCESSES))
        self._feeder = Feeder(
            self._upkeep,
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
            broker, queues=set(lanes), worker_timeout=WAKE_MILLISECONDS, worker_threads=threads
        )

    @property
    def id(self) -> str:
        """host:pid, as jobs and the list of workers name it."""
        return self._runtime.tools.worker

    def start(self) -> None:
        """Begin to run jobs."""
        gc.freeze()  # what is loaded by now stays: walking through it again and again took 5 % of the CPU
        self._runtime.start()
        self._feeder.start()
        self._clerk.start()
        self._courier.start()
        self._prober.start()
        self._worker.start()

    def stop(self) -> None:
        """Finish what runs within the grace time, give the rest back to the queue, and close."""
        give_up = time.monotonic() + self._grace_seconds + _CLOSING_SECONDS
        self._runtime.tools.stopping.set()
        self._isolation.terminate()  # its processes' grace time runs beside ours, who may be done at once
        self._feeder.stop()
        self._courier.stop()
        self._prober.stop()
        try:
            self._worker.stop(timeout=int(self._grace_seconds * 1000))
        except redis.RedisError as error:  # dramatiq cannot give doorbells back: they ring again
            logger.warning("Doorbells were not given back: %s", type(error).__name__)
        finally:
            self._clerk.stop()
            self._upkeep.close()
            self._runtime.close()
            self._isolation.wait(seconds=max(0.0, give_up - time.monotonic()))
            self._doorbells.close()


def _clerk(settings: Settings, runtime: Runtime, pool: Pool, lanes: Sequence[str], threads: int) -> Clerk:
    tools = runtime.tools
    itself = Presence(tools.worker, tuple(lanes), threads, version("orrery"), settings.heartbeat_seconds)
    return Clerk(
        pool,
        tools.snapshots,
        tools.figures,
        itself,
        breaker_state=tools.breakers.state,
        in_flight=runtime.leases.count,
        share=tools.limits.share,
        is_stopping=tools.stopping,
        pause_seconds=settings.feeder_seconds,
    )


def serve(settings: Settings, *, lanes: Sequence[str], threads: int) -> None:
    """Run a worker process until SIGTERM or SIGINT; a second signal ends it at once."""
    wait = listen()
    worker = WorkerProcess(settings, lanes=lanes, threads=threads)
    worker.start()
    logger.info("Worker serves %s with %d threads.", ", ".join(lanes), threads)
    wait()
    logger.info("Worker stops.")
    worker.stop()
