"""What a process that runs jobs is made of, whichever way it gets them."""

from __future__ import annotations

import logging
import os
import socket
import threading

from routing.breaker import Breakers, OnChange
from routing.cooldowns import Cooldowns
from routing.retry_budget import RetryBudget
from routing.snapshot import Snapshots
from routing.transport import Transport
from store.database import UNAVAILABLE, Role, open_pool
from store.settings import Settings
from store.vault import Keyring, Vault
from workers.artifacts import Artifacts
from workers.completer import Completer
from workers.events import Events
from workers.fleet import Fleet
from workers.leases import Leases
from workers.lifecycle import Tools
from workers.limits import SharedLimits
from workers.line import Line
from workers.recent import Recent

logger = logging.getLogger(__name__)

_MOST_CONNECTIONS = 10  # statements are short: these carry hundreds of threads


class Runtime:
    """Connections, leases and the tools of every run.

    Args:
        purpose: shown by PostgreSQL as the connections' application.
        threads: jobs that run at the same time.
        on_breaker_change: told (circuit, old state, new state).
    """

    def __init__(
        self, settings: Settings, *, purpose: str, threads: int, on_breaker_change: OnChange | None = None
    ) -> None:
        self.pool = open_pool(
            settings.database(),
            Role.WORKER,
            size=min(threads + 1, _MOST_CONNECTIONS),
            application=f"orrery {purpose}",
            timeout=10,
        )
        self._beats = open_pool(
            settings.database(), Role.WORKER, size=1, application="orrery heartbeat", timeout=5
        )
        self.leases = Leases(
            self._beats, lease_seconds=settings.lease_seconds, beat_seconds=settings.heartbeat_seconds
        )
        self._transport = Transport(private_inputs=settings.private_inputs)
        worker = f"{socket.gethostname()}:{os.getpid()}"
        self._line = Line(settings.redis())
        self._fleet = Fleet(self._line, worker)
        self.tools = Tools(
            worker=worker,
            pool=self.pool,
            snapshots=Snapshots(self.pool, with_keys=True),
            figures=Recent(),
            leases=self.leases,
            completer=Completer(self.pool, self.leases.count),
            transport=self._transport,
            breakers=Breakers(
                cooldown=settings.breaker_cooldown_seconds, on_change=on_breaker_change, fleet=self._fleet
            ),
            cooldowns=Cooldowns(board=self._fleet),
            limits=SharedLimits(self._line, self._fleet.soon),
            budget=RetryBudget(),
            vault=Vault(Keyring.load(settings)),
            artifacts=Artifacts(settings.artifacts_url),
            events=Events(self._line),
            lease_seconds=settings.lease_seconds,
            stopping=threading.Event(),
        )

    def start(self) -> None:
        """Begin to prolong leases, and to hear of the other processes."""
        self.leases.start()
        self._fleet.start(self.tools.breakers, self.tools.cooldowns)

    def close(self) -> None:
        """Give back what still runs, and close."""
        try:
            released = self.leases.release()
            if released:
                logger.info("%d unfinished jobs went back to the queue.", released)
        except UNAVAILABLE as error:
            logger.warning("Unfinished jobs wait for their leases to run out: %s", error)
        self._fleet.stop()
        self._line.close()
        self._transport.close()
        self._beats.close()
        self.pool.close()
