"""What a measurement is given and what it hands back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import quantiles
from typing import Any


class BenchError(Exception):
    """A measurement is worthless: a job failed, was lost or ran twice, or a process died."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to measure. `rounds`: interleaved rounds; `seconds`: what one of them should take.

    `quick` takes as few samples as show that everything works; its figures mean little.
    """

    rounds: int
    seconds: float
    quick: bool

    def samples(self, full: int) -> int:
        """`full`, or a tenth of it where it must be quick."""
        return max(full // 10, 10) if self.quick else full


@dataclass(frozen=True, slots=True)
class Result:
    """Figures for people (a table) and for programs (`data`, JSON)."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    data: dict[str, Any]
    note: str = ""


def percentile(values: Sequence[float], percent: int) -> float:
    """The value that `percent` % of `values` (two at least) do not exceed, interpolated."""
    return quantiles(values, n=100, method="inclusive")[percent - 1]
