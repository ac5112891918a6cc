"""Histograms of latencies: the buckets that rollups count in, and percentiles out of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
    wanted = sum(histogram) * percent / 100
    if not wanted:
        return None
    passed, lower = 0, 0
    for count, upper in zip(histogram, BOUNDS_MS, strict=False):
        if passed + count >= wanted and count:
            return round(lower + (upper - lower) * (wanted - passed) / count)
        passed, lower = passed + count, upper
    return BOUNDS_MS[-1]
