"""What a process knows of how routes and budgets fared of late: `routing.figures`, counted and kept fresh.

Counted by the clerk every few seconds, and only while the configuration asks for it. Between two counts a
process adds what it chose itself, or all its jobs would run to the route that was used least a moment ago.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from dataclasses import replace
from uuid import UUID

from psycopg import Connection
from psycopg.rows import DictRow

from routing.figures import Figures
from routing.snapshot import Snapshot

FRESH_SECONDS = 5.0
"""How old figures may be."""

_ASKING = frozenset({"cheapest", "fastest", "least_used"})


class Recent:
    """The figures of a process. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counted = Figures()
        self._chosen: Counter[UUID] = Counter()
        self._next = 0.0

    def current(self) -> Figures:
        """The figures now."""
        with self._lock:
            if not self._chosen:
                return self._counted
            calls = Counter(self._counted.calls)
            calls.update(self._chosen)
            return replace(self._counted, calls=calls)

    def chose(self, model_id: UUID) -> None:
        """Note that a job goes to a route first."""
        with self._lock:
            self._chosen[model_id] += 1

    def refresh(self, db: Connection[DictRow], snapshot: Snapshot) -> None:
        """Count again where it is time and anybody asks."""
        if time.monotonic() < self._next or not _is_asked_for(snapshot):
            return
        self._next = time.monotonic() + FRESH_SECONDS
        with self._lock:
            before, self._chosen = self._chosen, Counter()
        try:
            counted = count(db)
        except BaseException:
            with self._lock:
                self._chosen += before
            raise
        with self._lock:
            self._counted = counted


def count(db: Connection[DictRow]) -> Figures:
    """The figures of the last 5,000 calls of a day, of the last week's tokens, of this period's budgets.

    About 10 ms.
    """
    routes = db.execute(_ROUTES).fetchall()
    return Figures(
        p50_ms={row["model_row_id"]: row["p50"] for row in routes if row["p50"] is not None},
        calls={row["model_row_id"]: row["calls"] for row in routes},
        tokens={row["feature"]: (row["input"], row["output"]) for row in db.execute(_TOKENS)},
        probe_ms={
            row["provider_id"]: row["last_probe_ms"] if row["last_probe_ok"] else math.inf
            for row in db.execute(_PROBES)
        },
        burn={row["id"]: row["burn"] for row in db.execute(_BURN)},
    )


def _is_asked_for(snapshot: Snapshot) -> bool:
    return any(
        assignment.strategy in _ASKING
        or any(target.budget_burn_percent is not None for target in assignment.targets)
        for assignment in snapshot.assignments.values()
    )


# What failed fast is not fast.
_ROUTES = """
SELECT model_row_id, count(*) AS calls,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY latency_ms) FILTER (WHERE outcome = 'succeeded') AS p50
FROM (
    SELECT model_row_id, latency_ms, outcome FROM ai_usage_analytics
    WHERE finished_at > now() - interval '1 day' AND called AND model_row_id IS NOT NULL
    ORDER BY finished_at DESC LIMIT 5000
) AS newest
GROUP BY model_row_id"""

_TOKENS = """
SELECT feature, sum(input_tokens)::float8 / sum(calls) AS input,
    sum(output_tokens)::float8 / sum(calls) AS output
FROM usage_daily
WHERE day > (now() AT TIME ZONE 'UTC')::date - 7 AND outcome = 'succeeded'
GROUP BY feature HAVING sum(calls) > 0 AND sum(input_tokens) + sum(output_tokens) > 0"""

_PROBES = """
SELECT provider_id, last_probe_ok, last_probe_ms FROM provider_health
WHERE last_probe_ok IS NOT NULL AND last_probe_at > now() - interval '1 day'
  AND last_probe_at >= coalesce(greatest(last_success_at, last_error_at), '-infinity')"""

_BURN = """
SELECT budget.id, (100 * greatest(usd / limit_usd, tokens::numeric / limit_tokens))::float8 AS burn
FROM budgets_in_force AS budget JOIN budget_usage AS spent
  ON spent.scope = budget.scope AND spent.period = budget.period
 AND spent.starts_at = period_start(budget.period, now())
 AND spent.scope_id = CASE budget.scope WHEN 'global' THEN '' ELSE budget.scope_id END"""
