"""Benchmarks: `python -m bench`. Everything is compared within one run, and ratios are what counts."""
