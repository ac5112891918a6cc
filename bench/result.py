"""What a measurement is given and what it hands back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
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

    def samples(self, full: int, *, least: int = 10) -> int:
        """`full`, or a hundredth of it where it must be quick, but `least` at least."""
        return max(full // 100, least) if self.quick else full

    def turns(self, most: int) -> int:
        """`rounds`, but `most` where figures hardly spread, and one where it must be quick."""
        return 1 if self.quick else min(self.rounds, most)


@dataclass(frozen=True, slots=True)
class Bound:
    """What a figure should be: `limit` at most, or at least where it is a `floor`."""

    what: str
    figure: float
    limit: float
    unit: str = ""
    floor: bool = False

    @property
    def is_met(self) -> bool:
        """Whether the figure is within."""
        return self.figure >= self.limit if self.floor else self.figure <= self.limit

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {**asdict(self), "met": self.is_met}


@dataclass(frozen=True, slots=True)
class Result:
    """Figures for people (a table) and for programs (`data`, JSON), and what some of them should be."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    data: dict[str, Any]
    note: str = ""
    bounds: Sequence[Bound] = ()


def percentile(values: Sequence[float], percent: int) -> float:
    """The value that `percent` % of `values` (two at least) do not exceed, interpolated."""
    return quantiles(values, n=100, method="inclusive")[percent - 1]
