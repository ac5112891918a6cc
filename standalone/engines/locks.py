"""Two lock files per home: who may start and stop, and who uses.

Both are flock(2) locks, which the kernel gives back when their holder dies, however it dies. A lock belongs
to the open file, which a forked child shares: the child closes its copy, or a worker would keep the engines
of a dead parent in use. (Programs that are executed never see it: Python opens files close-on-exec.)
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_held: set[int] = set()


def _forget_in_child() -> None:
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_forget_in_child)


@contextmanager
def starting_or_stopping(home: Path, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the right to start or stop the engines of `home`; `on_wait` is called if somebody else has it."""
    descriptor = _open(home / "engines.lock")
    try:
        if not _try(descriptor, fcntl.LOCK_EX):
            on_wait()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        _close(descriptor)


class Membership:
    """A user's share in the engines of a home, from construction to `leave()`."""

    def __init__(self, home: Path) -> None:
        self._path = home / "engines.users"
        self._descriptor = _open(self._path)
        self._process = os.getpid()
        fcntl.flock(self._descriptor, fcntl.LOCK_SH)

    def leave(self) -> bool:
        """Give the share back. True if nobody else has one: the caller is to turn off the light.

        Call it with `starting_or_stopping` held, or a newcomer could arrive between the answer and the deed.
        """
        _close(self._descriptor)
        descriptor = _open(self._path)
        try:
            return _try(descriptor, fcntl.LOCK_EX)
        finally:
            _close(descriptor)

    @property
    def inherited(self) -> bool:
        """Whether this is a forked child's copy, which owns nothing."""
        return os.getpid() != self._process


def _open(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    _held.add(descriptor)
    return descriptor


def _close(descriptor: int) -> None:
    _held.discard(descriptor)
    os.close(descriptor)


def _try(descriptor: int, mode: int) -> bool:
    try:
        fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
