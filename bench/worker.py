"""A worker process of a round, led by `bench.crew` over its standard input and output."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time

from bench.contenders.contract import staff
from bench.crew import Orders
from bench.memory import peak_mb

_SAMPLE_SECONDS = 0.05


class CpuSamples:
    """Notes the process's CPU time twenty times a second."""

    def __init__(self) -> None:
        self.taken: list[tuple[float, float]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="cpu-samples", daemon=True)

    def start(self) -> None:
        """Begin to sample."""
        self._thread.start()

    def stop(self) -> None:
        """Take the last sample."""
        self._ended.set()
        self._thread.join()

    def _sample(self) -> None:
        while True:
            self.taken.append((time.time(), time.process_time()))
            if self._ended.wait(_SAMPLE_SECONDS):
                return


def main() -> None:
    """Read orders, say `ready`; work from the second line to the third, or to the end of input; report."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the leader ends us
    values = json.loads(sys.stdin.readline())
    values["headers"] = tuple((name, value) for name, value in values["headers"])
    worker = staff(Orders(**values))
    samples = CpuSamples()
    print("ready", flush=True)
    if not sys.stdin.readline():
        return
    samples.start()
    worker.start()
    asked = bool(sys.stdin.readline())
    samples.stop()
    worker.stop()
    if asked:
        report = {
            "finished": worker.finished,
            "failed": worker.failed,
            "cpu": samples.taken,
            "peak_mb": peak_mb(os.getpid()),
        }
        print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main()
