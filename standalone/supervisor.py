"""Child processes: start them, start them again when they die, stop them all.

Each child is a master of its own: one that dies takes no other with it. Children end when their parent does,
because they ask the kernel for it (`die_with_parent`); no code runs between fork and exec.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from standalone.signals import heard

logger = logging.getLogger(__name__)

TEND_SECONDS = 0.2
STOP_MARGIN_SECONDS = 5.0
"""What a child gets beyond the workers' own grace time before it is killed."""

_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.2, 10.0
_STEADY_SECONDS = 10.0


@dataclass(slots=True)
class Child:
    """One supervised command: the arguments of `orrery`."""

    arguments: Sequence[str]
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    pause: float = _SHORTEST_PAUSE
    due: float = 0.0


@dataclass(slots=True)
class Supervisor:
    """Keeps children running. Use it from one thread: the kernel's parent-death signal is tied to it."""

    environment: Mapping[str, str]
    children: list[Child] = field(default_factory=list)

    def add(self, *arguments: str) -> Child:
        """Start `orrery <arguments>` and keep it running."""
        child = Child(arguments)
        self.children.append(child)
        self._start(child)
        return child

    def tend(self) -> None:
        """Start again what died; a child that keeps dying waits longer each time, ten seconds at most."""
        now = time.monotonic()
        for child in self.children:
            if child.process is not None and child.process.poll() is not None:
                code = child.process.returncode
                if now - child.started > _STEADY_SECONDS:
                    child.pause = _SHORTEST_PAUSE
                logger.warning("orrery %s ended with %s; it starts again.", " ".join(child.arguments), code)
                child.process, child.due = None, now + child.pause
                child.pause = min(child.pause * 2, _LONGEST_PAUSE)
            if child.process is None and now >= child.due:
                self._start(child)

    def stop(self, *, grace_seconds: float) -> None:
        """Ask all children to end, the last started first; kill those that have not after the grace time."""
        running = [child.process for child in reversed(self.children) if child.process is not None]
        self.children.clear()
        for process in running:
            process.terminate()
        deadline = time.monotonic() + grace_seconds
        for process in running:
            try:
                process.wait(timeout=max(deadline - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                logger.warning("Process %d did not end in %g s: killed.", process.pid, grace_seconds)
                process.kill()
                process.wait()

    def _start(self, child: Child) -> None:
        child.process = subprocess.Popen(  # noqa: S603 - our own program
            [*orrery(), *child.arguments, "--parent", str(os.getpid())],
            env={**os.environ, **self.environment},
            stdin=subprocess.DEVNULL,
        )
        child.started = time.monotonic()


def supervise(
    commands: Sequence[Sequence[str]], *, environment: Mapping[str, str], grace_seconds: float
) -> None:
    """Keep the commands running until SIGTERM or SIGINT, then stop them."""
    signals = heard()
    supervisor = Supervisor(environment)
    try:
        for command in commands:
            supervisor.add(*command)
        while not signals:
            time.sleep(TEND_SECONDS)
            supervisor.tend()
    finally:
        supervisor.stop(grace_seconds=grace_seconds + STOP_MARGIN_SECONDS)


def orrery() -> list[str]:
    """The command that runs this installation's `orrery`, so that `ps` shows it by name."""
    script = os.path.join(os.path.dirname(sys.executable), "orrery")
    return [sys.executable, script] if os.path.exists(script) else [sys.executable, "-m", "standalone.cli"]
