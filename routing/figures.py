"""How routes and budgets fared of late, as strategies and conditions see it.

State that changes by itself, so no part of the configuration: a process counts it again every few seconds,
and only while some assignment asks for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Figures:
    """Counts of the last minutes.

    Args:
        p50_ms: median latency of answered calls in milliseconds, by model row.
        calls: by model row.
        tokens: mean input and output of a call, by feature, in the unit that its models are priced in.
        probe_ms: by provider where a probe is the newest that is known: how long its answer took, in
            milliseconds; infinite where it failed.
        burn: spent and reserved in percent of the limit, by budget.
    """

    p50_ms: Mapping[UUID, float] = field(default_factory=dict)
    calls: Mapping[UUID, int] = field(default_factory=dict)
    tokens: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    probe_ms: Mapping[UUID, float] = field(default_factory=dict)
    burn: Mapping[UUID, float] = field(default_factory=dict)
