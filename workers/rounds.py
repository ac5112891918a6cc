"""A thread that takes one turn after the other until it is told to stop, whatever becomes of a turn."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TypeVar

from store.database import UNAVAILABLE

logger = logging.getLogger(__name__)

T = TypeVar("T")


def _never(_: object) -> bool:
    return False


class Rounds:
    """Turns in a thread of their own.

    `goes_on` says of what a `turn` returns whether the next one comes at once; else, and where it fails, that
    comes `pause_seconds` later. `begins_late`: the first one, too. `name` is the thread's.
    """

    def __init__(
        self,
        name: str,
        turn: Callable[[], T],
        *,
        pause_seconds: float,
        goes_on: Callable[[T], bool] = _never,
        begins_late: bool = False,
    ) -> None:
        self._name = name
        self._turn: Callable[[], bool] = lambda: goes_on(turn())
        self._pause_seconds = pause_seconds
        self._begins_late = begins_late
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work_on, name=name, daemon=True)

    @property
    def is_over(self) -> bool:
        """Whether it was told to stop, so that a long turn ends where it may."""
        return self._over.is_set()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, *, wait: bool = True) -> None:
        """End after the turn that is under way; if wanted, `wait` for that."""
        self._over.set()
        if wait and self._thread.is_alive():
            self._thread.join()

    def pause(self, seconds: float) -> bool:
        """Sleep inside of a turn. True: no longer, it was told to stop."""
        return self._over.wait(seconds)

    def _work_on(self) -> None:
        goes_on = not self._begins_late
        while not self._over.wait(0 if goes_on else self._pause_seconds):
            goes_on = self._took_turn()

    def _took_turn(self) -> bool:
        try:
            return self._turn()
        except UNAVAILABLE as error:
            logger.warning("The %s waits, the database does not answer: %s", self._name, error)
        except Exception:
            logger.exception("A turn of the %s failed.", self._name)
        return False
