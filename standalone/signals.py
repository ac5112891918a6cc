"""How servers of ours end."""

from __future__ import annotations

import signal
import sys
import threading


def heard() -> list[int]:
    """The signals to stop that have come: a list that SIGTERM and SIGINT append to from now on.

    No Event: set by a handler, it can lock up against the wait of the thread that the handler interrupts.
    """
    signals: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: signals.append(number))
    return signals


def end_quietly() -> None:
    """Let a stop be an end with status 0: before uvicorn listens to signals, and afterwards, when it raises
    the one that stopped it once more and a clean stop would look like a killed process."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: sys.exit(0))
