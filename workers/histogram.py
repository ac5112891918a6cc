"""Histograms of latencies: the buckets that rollups count in, and percentiles out of them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import accumulate

BOUNDS_MS = (
    *(5, 10, 20, 30, 50, 75, 100, 150, 200, 300, 500, 750, 1000, 1500, 2000, 3000, 5000, 7500, 10_000),
    *(15_000, 30_000, 60_000, 120_000, 300_000),
)
"""Upper bounds of the buckets in milliseconds, inclusive; the last bucket has none."""

BUCKETS = (*(f"ms_{bound}" for bound in BOUNDS_MS), "ms_more")
"""The columns of rollups, each of which counts the calls of one bucket."""


def counts(row: Mapping[str, int]) -> list[int]:
    """The histogram of a rollup's row."""
    return [row[name] for name in BUCKETS]


def percentile(histogram: Sequence[int], percent: float) -> int | None:
    """The latency in milliseconds that `percent` % of the calls did not exceed; None without calls.

    Interpolated inside of its bucket, so it is off by at most the bucket's width; what took longer than the
    last bound counts as having taken that long.
    """
    [found] = percentiles(histogram, percent)
    return found


def percentiles(histogram: Sequence[int], *percents: float) -> list[int | None]:
    """Each of them as of `percentile`."""
    heaps = list(accumulate(histogram))
    if not heaps or not heaps[-1]:
        return [None] * len(percents)
    found: list[int | None] = []
    for percent in percents:
        wanted = heaps[-1] * percent / 100
        place = bisect_left(heaps, wanted)
        if place == len(BOUNDS_MS):
            found.append(BOUNDS_MS[-1])
        else:
            lower = BOUNDS_MS[place - 1] if place else 0
            part = 1 - (heaps[place] - wanted) / histogram[place]
            found.append(round(lower + (BOUNDS_MS[place] - lower) * part))
    return found
