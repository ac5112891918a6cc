"""Composition root of a scheduler process: schedules fire, and batches are looked after."""

from __future__ import annotations

import logging
import os
import signal
import socket
import time

from routing.snapshot import Snapshots
from routing.transport import Transport
from store.database import Role, open_pool
from store.settings import Settings
from store.vault import Keyring, Vault
from workers.artifacts import Artifacts
from workers.batcher import Batcher
from workers.scheduler import Scheduler

logger = logging.getLogger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_WAKE_SECONDS = 0.1


class SchedulerProcess:
    """A scheduler process: `start()` it, `stop()` it."""

    def __init__(self, settings: Settings) -> None:
        self._pool = open_pool(settings.database(), Role.WORKER, size=3, application="orrery scheduler")
        self._transport = Transport()
        self._scheduler = Scheduler(self._pool)
        self._batcher = Batcher(
            settings,
            self._pool,
            snapshots=Snapshots(self._pool, with_keys=True),
            transport=self._transport,
            vault=Vault(Keyring.load(settings)),
            artifacts=Artifacts(settings.artifacts_url),
            worker=f"{socket.gethostname()}:{os.getpid()}",
        )

    def start(self) -> None:
        """Begin."""
        self._scheduler.start()
        self._batcher.start()

    def stop(self) -> None:
        """End after what it is at."""
        self._scheduler.stop()
        self._batcher.stop()
        self._transport.close()
        self._pool.close()


def serve(settings: Settings) -> None:
    """Run a scheduler process until SIGTERM or SIGINT; a second signal ends it at once."""
    signals: list[int] = []

    def end(received: int, _frame: object) -> None:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signals.append(received)

    for number in _SIGNALS:
        signal.signal(number, end)
    process = SchedulerProcess(settings)
    process.start()
    logger.info("The scheduler runs.")
    while not signals:
        time.sleep(_WAKE_SECONDS)
    process.stop()
