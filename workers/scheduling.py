"""Composition root of a scheduler process: schedules fire, batches are looked after, what is too old goes."""

from __future__ import annotations

import logging
import os
import socket

from routing.snapshot import Snapshots
from routing.transport import Transport
from store.database import Role, open_pool
from store.settings import Settings
from store.vault import Keyring, Vault
from workers.artifacts import Artifacts
from workers.batcher import Batcher
from workers.keeper import Keeper
from workers.scheduler import Scheduler
from workers.signals import listen

logger = logging.getLogger(__name__)

_CONNECTIONS = 8  # three threads, each of which may load the configuration while it holds one


class SchedulerProcess:
    """A scheduler process: `start()` it, `stop()` it."""

    def __init__(self, settings: Settings) -> None:
        self._pool = open_pool(
            settings.database(), Role.WORKER, size=_CONNECTIONS, application="orrery scheduler"
        )
        self._transport = Transport()
        artifacts = Artifacts(settings.artifacts_url)
        self._scheduler = Scheduler(self._pool)
        self._batcher = Batcher(
            settings,
            self._pool,
            snapshots=Snapshots(self._pool, with_keys=True),
            transport=self._transport,
            vault=Vault(Keyring.load(settings)),
            artifacts=artifacts,
            worker=f"{socket.gethostname()}:{os.getpid()}",
        )
        self._keeper = Keeper(self._pool, artifacts)

    def start(self) -> None:
        """Begin."""
        self._scheduler.start()
        self._batcher.start()
        self._keeper.start()

    def stop(self) -> None:
        """End after what it is at."""
        self._scheduler.stop()
        self._batcher.stop()
        self._keeper.stop()
        self._transport.close()
        self._pool.close()


def serve(settings: Settings) -> None:
    """Run a scheduler process until SIGTERM or SIGINT; a second signal ends it at once."""
    wait = listen()
    process = SchedulerProcess(settings)
    process.start()
    logger.info("The scheduler runs.")
    wait()
    process.stop()
