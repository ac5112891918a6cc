"""How servers of ours end."""

from __future__ import annotations

import signal
import threading


def end_quietly() -> None:
    """Let uvicorn's stop be the end: it raises the signal that stopped it once more, and a clean stop would
    otherwise look like a killed process."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: None)
