"""Runs suspects: jobs that were running when their process died, each alone in its process.

A process that dies takes innocents with it. So what was running runs alone the next time: the innocent end
as if nothing had been, and whoever takes down this process too has shown that it was the one. Several such
processes run side by side, one job at a time each: the death of one is no concern of the others.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping

from store.database import UNAVAILABLE
from store.settings import Settings
from workers import jobs
from workers.lifecycle import perform
from workers.runtime import Runtime

logger = logging.getLogger(__name__)

MOST_PROCESSES = 8
"""Processes for suspects that a worker process keeps at once. Each takes 60 MB and two connections."""

_PR_SET_PDEATHSIG = 1


class Isolation:
    """The processes for suspects of one worker process. Thread-safe, but see `ensure`.

    Args:
        most: processes at once.
    """

    def __init__(self, environment: Mapping[str, str], *, most: int = MOST_PROCESSES) -> None:
        self._environment = environment
        self._most = most
        self._lock = threading.Lock()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._ending = False

    def ensure(self, running: int) -> None:
        """Start one more process, unless one is idle or still starts: `running` suspects run now, anywhere.

        One after the other, because a start costs a second of CPU, and short jobs need few processes. They
        end by themselves when no suspect comes. Call it from a thread that lives as long as they shall: the
        kernel ends them with it.
        """
        with self._lock:
            self._forget_ended()
            if len(self._processes) < min(running + 1, self._most) and not self._ending:
                self._start()

    def terminate(self) -> None:
        """Ask the processes to end, and start no more; their jobs get the grace time."""
        with self._lock:
            self._ending = True
            for process in self._processes:
                process.terminate()

    def wait(self, *, seconds: float) -> None:
        """Wait for the processes to end, and kill what is left after `seconds`."""
        give_up = time.monotonic() + seconds
        for process in self._processes:
            try:
                process.wait(timeout=max(0.0, give_up - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _forget_ended(self) -> None:
        for process in self._processes:
            if process.poll():
                logger.warning("A process for suspects ended with %s.", process.returncode)
        self._processes = [process for process in self._processes if process.returncode is None]

    def _start(self) -> None:
        try:
            process = subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-m", "workers.alone", str(os.getpid())],
                env={**os.environ, **self._environment},
                stdin=subprocess.DEVNULL,
            )
        except OSError as error:
            logger.warning("A process for suspects cannot start: %s", error)  # the next turn tries again
        else:
            self._processes.append(process)


def die_with_parent(parent: int) -> None:
    """Have the kernel send this process SIGTERM when `parent` ends; end at once if it is gone already."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        sys.exit(1)


def serve(settings: Settings) -> None:
    """Run suspects until none has come for a lease, or until SIGTERM."""
    signals: list[int] = []  # see workers/run.py
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: signals.append(number))
    ending = threading.Event()
    runtime = Runtime(settings, purpose="suspects", threads=1)
    runtime.start()
    # The job has a thread of its own, so that a stop need not wait for it longer than the grace time.
    thread = threading.Thread(target=_run_suspects, args=(runtime, settings, ending), daemon=True)
    thread.start()
    while thread.is_alive() and not signals:
        thread.join(timeout=0.1)
    ending.set()
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
