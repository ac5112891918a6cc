"""Sums since the beginning, and rates of the last minutes: what monitoring reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from psycopg import Connection
from psycopg.rows import DictRow

from workers.histogram import counts

Database = Connection[DictRow]

TOKENS = ("input", "output", "cached", "cache_write", "reasoning")
"""Kinds of tokens; input includes cached and cache_write ones, output reasoning ones."""


@dataclass(frozen=True, slots=True)
class Totals:
    """All calls ever of one provider, model and feature that ended in one way."""

    provider: str | None
    model: str | None
    feature: str
    outcome: str
    error_class: str | None
    calls: int
    tokens: Mapping[str, int]
    cost_usd: Decimal
    unpriced_calls: int
    latency_ms_sum: int
    histogram: Sequence[int]


def since_the_beginning(db: Database) -> list[Totals]:
    """All sums. They only grow: retention does not touch them."""
    return [
        Totals(
            **{name: row[name] for name in _MEMBERS},
            tokens={kind: row[f"{kind}_tokens"] for kind in TOKENS},
            histogram=counts(row),
        )
        for row in db.execute("SELECT * FROM usage_totals ORDER BY provider, model, feature, outcome")
    ]


@dataclass(frozen=True, slots=True)
class Minute:
    """The calls that ended within a minute; those without any are left out."""

    minute: datetime
    calls: int
    failed: int


def by_minute(db: Database, minutes: int) -> list[Minute]:
    """The calls of the last minutes (a day's at most), the oldest first."""
    return [Minute(**row) for row in db.execute(_BY_MINUTE, {"minutes": minutes})]


def error_rates(db: Database) -> dict[str, float]:
    """Failed calls of the last five minutes by provider, of 1; those without calls are left out."""
    return {row["slug"]: row["rate"] for row in db.execute(_ERROR_RATES)}


_MEMBERS = (
    *("provider", "model", "feature", "outcome", "error_class", "calls", "cost_usd", "unpriced_calls"),
    "latency_ms_sum",
)

_BY_MINUTE = """
SELECT minute, sum(calls)::bigint AS calls,
    coalesce(sum(calls) FILTER (WHERE error_class IS NOT NULL), 0)::bigint AS failed
FROM usage_minutes WHERE minute > now() - %(minutes)s * interval '1 minute' GROUP BY minute ORDER BY minute"""

_ERROR_RATES = """
SELECT slug, coalesce(sum(calls) FILTER (WHERE error_class IS NOT NULL), 0)::float8 / sum(calls) AS rate
FROM usage_minutes JOIN ai_providers ON ai_providers.id = provider_id
WHERE minute > now() - interval '5 minutes' GROUP BY slug ORDER BY slug"""
