"""Keeps the leases of the jobs that run in this process alive, by one thread and one statement a beat."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from store.database import UNAVAILABLE, Pool
from workers import jobs

logger = logging.getLogger(__name__)


class Leases:
    """The jobs in flight in this process: job id → lease token.

    A job that a beat did not find was taken over or cancelled; `is_ours` is False for it from then on. A beat
    that does not reach the database changes nothing: the fence decides when the job ends. Give it connections
    of its own: behind the jobs' statements a beat may come too late (measured: 9.5 s behind 256 threads on
    12 slow connections).
    """

    def __init__(self, pool: Pool, *, lease_seconds: float, beat_seconds: float) -> None:
        self._pool = pool
        self._lease_seconds = lease_seconds
        self._beat_seconds = beat_seconds
        self._held: dict[UUID, UUID] = {}
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat_on, name="leases", daemon=True)

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    @contextmanager
    def held(self, job: jobs.Claimed) -> Iterator[None]:
        """Prolong the job's lease while the block runs."""
        with self._lock:
            self._held[job.id] = job.lease_token
        try:
            yield
        finally:
            with self._lock:
                if self._held.get(job.id) == job.lease_token:
                    del self._held[job.id]

    def is_ours(self, job: jobs.Claimed) -> bool:
        """False once a beat found that somebody else has the job, or it was given back."""
        return self._held.get(job.id) == job.lease_token

    def count(self) -> int:
        """Jobs in flight."""
        return len(self._held)

    def release(self) -> int:
        """Stop beating and give back what still runs, uncounted; returns how many jobs that were."""
        self._stopped.set()
        with self._lock:
            held = dict(self._held)
            self._held.clear()
        if not held:
            return 0
        with self._pool.connection() as db:
            return jobs.release(db, held)

    def beat(self) -> None:
        """Prolong every lease once."""
        with self._lock:
            held = dict(self._held)
        if not held:
            return
        with self._pool.connection() as db:
            ours = jobs.heartbeat(db, held, lease_seconds=self._lease_seconds)
        with self._lock:
            for job_id, token in held.items():
                if job_id not in ours and self._held.get(job_id) == token:
                    # Taken over, cancelled, or recorded a moment ago: who writes the record finds out.
                    logger.debug("Job %s is no longer ours.", job_id)
                    del self._held[job_id]

    def _beat_on(self) -> None:
        while not self._stopped.wait(self._beat_seconds):
            try:
                self.beat()
            except UNAVAILABLE as error:
                logger.warning("Heartbeat missed, the database does not answer: %s", error)
            except Exception:  # whatever it is, the other jobs' leases must not lapse for it
                logger.exception("A heartbeat failed; the next one is in %g s.", self._beat_seconds)
