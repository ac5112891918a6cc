"""The whole routing configuration as one immutable value with its version.

A snapshot is read in one REPEATABLE READ transaction together with its version, so it never mixes a key of
one version with a base URL of another. A claim returns the version that was committed when it began; a
process whose snapshot is older loads a newer one first. So a change holds for every job that starts after it,
without a cache to invalidate and without a round trip on the jobs in between.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg import Connection, sql
from psycopg.rows import DictRow

from routing.values import (
    Assignment,
    Capability,
    Feature,
    Model,
    Price,
    PriceUnit,
    Prompt,
    Provider,
)
from store.database import Pool
from store.vault import Sealed


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The configuration at one version. `features` by name, `assignments` by feature id, others by id."""

    version: int
    features: Mapping[str, Feature]
    assignments: Mapping[UUID, Assignment]
    models: Mapping[UUID, Model]
    providers: Mapping[UUID, Provider]
    prices: Mapping[UUID, Sequence[Price]] = field(default_factory=dict)

    def price(self, model_id: UUID, at: datetime) -> Price | None:
        """The price in force at `at`, or None where none is known."""
        started = (price for price in self.prices.get(model_id, ()) if price.valid_from <= at)
        return max(started, key=lambda price: price.valid_from, default=None)


class Snapshots:
    """Keeps a process's newest snapshot. Thread-safe; never goes back to an older version.

    Args:
        pool: connections of a role that may read the configuration.
        with_keys: also read the sealed keys. Only the worker role may.
    """

    def __init__(self, pool: Pool, *, with_keys: bool) -> None:
        self._pool = pool
        self._with_keys = with_keys
        self._lock = threading.Lock()
        self._newest: Snapshot | None = None

    def at_least(self, version: int) -> Snapshot:
        """The newest snapshot, loaded anew where the one at hand is older than `version`."""
        newest = self._newest
        if newest is not None and newest.version >= version:
            return newest
        with self._lock:
            if self._newest is None or self._newest.version < version:
                with self._pool.connection() as connection:
                    self._newest = load(connection, with_keys=self._with_keys)
            return self._newest

    def newest(self) -> Snapshot:
        """The newest snapshot this process has, loaded where there is none yet."""
        return self.at_least(0)


def load(connection: Connection[DictRow], *, with_keys: bool) -> Snapshot:
    """Read the whole configuration and its version from one database snapshot."""
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        version = connection.execute("SELECT version FROM config_state").fetchone()
        assert version is not None, "config_state always has its one row"  # noqa: S101
        features = [_feature(row) for row in connection.execute(_FEATURES)]
        key = sql.SQL("sealed_key") if with_keys else sql.SQL("NULL::bytea AS sealed_key")
        return Snapshot(
            version=version["version"],
            features={feature.name: feature for feature in features},
            assignments={row["feature_id"]: _assignment(row) for row in connection.execute(_ASSIGNMENTS)},
            models={row["id"]: _model(row) for row in connection.execute(_MODELS)},
            providers={
                row["id"]: _provider(row) for row in connection.execute(sql.SQL(_PROVIDERS).format(key=key))
            },
            prices=_prices(connection.execute(_PRICES)),
        )


_FEATURES = "SELECT id, name, capability, lane, input_schema, is_active, max_queued FROM features"

_MODELS = """
SELECT id, provider_id, model_id, capabilities, context_window, max_output_tokens, default_parameters,
       constraints, is_active, sort_order
FROM ai_models"""

_PROVIDERS = """
SELECT id, slug, type, base_url, api_version, organization, settings, {key}, key_version,
       allow_shared_for_normal_admins, allow_private_network, timeout_seconds, is_active
FROM ai_providers"""

_ASSIGNMENTS = """
SELECT a.id, a.feature_id, a.strategy, a.parameters, a.max_retries, a.retry_delay_seconds, a.timeout_seconds,
       a.deadline_seconds, a.use_any_active_model, a.is_active,
       p.id AS prompt_id, p.version AS prompt_version, p.system_template, p.user_template,
       (SELECT array_agg(t.model_id ORDER BY t.position)
        FROM assignment_targets t WHERE t.assignment_id = a.id) AS targets
FROM feature_ai_assignments a LEFT JOIN prompt_templates p ON p.id = a.prompt_template_id"""

_PRICES = """
SELECT model_id, valid_from, price_unit, input_price_per_1k, output_price_per_1k, cached_input_price_per_1k,
       cache_write_price_per_1k
FROM model_prices"""


def _feature(row: Mapping[str, Any]) -> Feature:
    return Feature(
        id=row["id"],
        name=row["name"],
        capability=Capability(row["capability"]),
        lane=row["lane"],
        input_schema=row["input_schema"],
        is_active=row["is_active"],
        max_queued=row["max_queued"],
    )


def _model(row: Mapping[str, Any]) -> Model:
    return Model(**{**row, "capabilities": frozenset(row["capabilities"])})


def _provider(row: Mapping[str, Any]) -> Provider:
    values = dict(row)
    key = values.pop("sealed_key")
    return Provider(protocol=values.pop("type"), sealed_key=None if key is None else Sealed(key), **values)


def _assignment(row: Mapping[str, Any]) -> Assignment:
    values = dict(row)
    prompt_id, version = values.pop("prompt_id"), values.pop("prompt_version")
    system, user = values.pop("system_template"), values.pop("user_template")
    prompt = None if prompt_id is None else Prompt(prompt_id, version, system, user)
    return Assignment(prompt=prompt, targets=tuple(values.pop("targets") or ()), **values)


def _prices(rows: Any) -> dict[UUID, list[Price]]:
    prices: dict[UUID, list[Price]] = defaultdict(list)
    for row in rows:
        prices[row["model_id"]].append(
            Price(
                valid_from=row["valid_from"],
                unit=PriceUnit(row["price_unit"]),
                input_per_1k=row["input_price_per_1k"],
                output_per_1k=row["output_price_per_1k"],
                cached_input_per_1k=row["cached_input_price_per_1k"],
                cache_write_per_1k=row["cache_write_price_per_1k"],
            )
        )
    return dict(prices)
