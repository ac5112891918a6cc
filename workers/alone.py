"""Runs suspects: jobs that were running when their process died, one at a time in a process of its own.

A process that dies takes innocents with it. So what was running runs alone the next time: the innocent end
as if nothing had been, and whoever takes down this process too has shown that it was the one.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping

from store.database import UNAVAILABLE
from store.settings import Settings
from workers import jobs
from workers.lifecycle import perform
from workers.runtime import Runtime

logger = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1


class Isolation:
    """Starts the process when suspects wait. Use it from one thread."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self._ending = False

    def ensure(self) -> None:
        """See to it that the process runs."""
        if self._process is not None and self._process.poll() is not None:
            logger.warning("The process for suspects ended with %s.", self._process.returncode)
            self._process = None
        if self._process is None and not self._ending:
            try:
                self._process = subprocess.Popen(  # noqa: S603 - our own program
                    [sys.executable, "-m", "workers.alone", str(os.getpid())],
                    env={**os.environ, **self._environment},
                    stdin=subprocess.DEVNULL,
                )
            except OSError as error:
                logger.warning(
                    "The process for suspects cannot start: %s", error
                )  # the next turn tries again

    def terminate(self) -> None:
        """Ask the process to end; its job gets the grace time."""
        self._ending = True
        if self._process is not None:
            self._process.terminate()

    def wait(self, *, seconds: float) -> None:
        """Wait for the process to end, and kill it after `seconds`."""
        if self._process is None:
            return
        try:
            self._process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def die_with_parent(parent: int) -> None:
    """Have the kernel send this process SIGTERM when `parent` ends; end at once if it is gone already."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        sys.exit(1)


def serve(settings: Settings) -> None:
    """Run suspects until none has come for a lease, or until SIGTERM."""
    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ending.set())
    runtime = Runtime(settings, purpose="suspects", threads=1)
    runtime.start()
    # The job has a thread of its own, so that a stop need not wait for it longer than the grace time.
    thread = threading.Thread(target=_run_suspects, args=(runtime, settings, ending), daemon=True)
    thread.start()
    while thread.is_alive() and not ending.wait(0.1):
        pass
    thread.join(timeout=settings.grace_seconds)
    runtime.close()


def _run_suspects(runtime: Runtime, settings: Settings, ending: threading.Event) -> None:
    idle = 0.0
    while idle < settings.lease_seconds and not ending.is_set():
        try:
            with runtime.pool.connection() as db:
                job = jobs.claim_suspect(
                    db, lease_seconds=settings.lease_seconds, worker=runtime.tools.worker
                )
        except UNAVAILABLE as error:
            logger.warning("Suspects wait, the database does not answer: %s", error)
            job = None
        if job is None:
            idle += 0.1
            ending.wait(0.1)
        else:
            idle = 0.0
            perform(job, runtime.tools)


if __name__ == "__main__":
    die_with_parent(int(sys.argv[1]))
    logging.basicConfig(level=Settings().log_level)
    serve(Settings())
