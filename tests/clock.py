"""Days, hours and minutes that end during a test are other ones than it asks for."""

from __future__ import annotations

import time


def away_from_the_end_of(seconds: int, *, least: float) -> None:
    """Return while at least `least` seconds are left of the present minute (60), hour or day (86400)."""
    left = seconds - time.time() % seconds
    if left < least:
        time.sleep(left)
