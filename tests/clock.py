"""Days, hours and minutes that end during a test are other ones than it asks for."""

from __future__ import annotations

import time

_BEGUN = 3.0  # seconds; what tests say has just happened was a second or two ago


def away_from_the_edges_of(seconds: int, *, least: float) -> None:
    """Return some seconds after a minute (60), hour or day (86400) began, and `least` before it ends."""
    begun = time.time() % seconds
    if seconds - begun < least:
        time.sleep(seconds - begun)
        begun = 0.0
    time.sleep(max(0.0, _BEGUN - begun))
