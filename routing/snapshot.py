"""The whole routing configuration as one immutable value with its version.

A snapshot is read in one REPEATABLE READ transaction together with its version, so it never mixes a key of
one version with a base URL of another. A claim returns the version that was committed when it began; a
process whose snapshot is older loads a newer one first. So a change holds for every job that starts after it,
without a cache to invalidate and without a round trip on the jobs in between.

What changes by itself is no configuration: the tokens that personal keys with a monthly limit have spent are
counted again every few seconds beside it. A process that makes calls may overrun a limit by what was called
since its last count.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg import Connection, sql
from psycopg.rows import DictRow

from routing.values import (
    Assignment,
    Budget,
    Caller,
    Capability,
    Feature,
    Model,
    PersonalKey,
    Price,
    PriceUnit,
    Prompt,
    Provider,
    Target,
)
from store.database import UNAVAILABLE, Pool
from store.vault import Sealed

logger = logging.getLogger(__name__)

COUNT_SECONDS = 5.0
"""How old a count of spent tokens may be; more where counting would take over a twentieth of the time."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The configuration at one version. `features` by name, `assignments` by feature id, `personal_keys` by
    admin and provider, others by id."""

    version: int
    features: Mapping[str, Feature]
    assignments: Mapping[UUID, Assignment]
    models: Mapping[UUID, Model]
    providers: Mapping[UUID, Provider]
    prices: Mapping[UUID, Sequence[Price]] = field(default_factory=dict)
    personal_keys: Mapping[tuple[UUID, UUID], PersonalKey] = field(default_factory=dict)
    budgets: Sequence[Budget] = ()

    def personal_key(self, caller: Caller, provider_id: UUID) -> PersonalKey | None:
        """The caller's own active key for a provider."""
        return None if caller.admin_id is None else self.personal_keys.get((caller.admin_id, provider_id))

    def price(self, model_id: UUID, at: datetime) -> Price | None:
        """The price in force at `at`, or None where none is known."""
        started = (price for price in self.prices.get(model_id, ()) if price.valid_from <= at)
        return max(started, key=lambda price: price.valid_from, default=None)


class Snapshots:
    """Keeps a process's newest snapshot. Thread-safe; never goes back to an older version.

    Args:
        pool: connections of a role that may read the configuration.
        with_keys: for a process that makes calls: also read the sealed keys, and count what personal keys
            spend. Only the worker role may.
    """

    def __init__(self, pool: Pool, *, with_keys: bool) -> None:
        self._pool = pool
        self._with_keys = with_keys
        self._lock = threading.Lock()
        self._newest: Snapshot | None = None
        self._count_at = math.inf  # when spent tokens are to be counted again, on the monotonic clock

    def at_least(self, version: int) -> Snapshot:
        """The newest snapshot, loaded anew where the one at hand is older than `version`."""
        newest = self._newest
        if newest is not None and newest.version >= version:
            return newest if time.monotonic() < self._count_at else self._counted(newest)
        with self._lock:
            if self._newest is None or self._newest.version < version:
                began = time.monotonic()
                with self._pool.connection() as connection:
                    self._newest = load(connection, with_keys=self._with_keys)
                self._count_later(self._newest, began)
            return self._newest

    def newest(self) -> Snapshot:
        """The newest snapshot this process has, loaded where there is none yet."""
        return self.at_least(0)

    def _counted(self, newest: Snapshot) -> Snapshot:
        """`newest` with a new count, made by one thread; the others go on with the old one meanwhile."""
        if not self._lock.acquire(blocking=False):
            return newest
        try:
            began = time.monotonic()
            if self._newest is newest and began >= self._count_at:
                self._count_at = began + COUNT_SECONDS
                with self._pool.connection() as connection:
                    self._newest = counted(newest, connection)
                self._count_later(self._newest, began)
        except UNAVAILABLE as error:
            logger.warning("What personal keys have spent could not be counted: %s", error)
        finally:
            self._lock.release()
        return self._newest or newest

    def _count_later(self, snapshot: Snapshot, began: float) -> None:
        now = time.monotonic()
        counts = self._with_keys and any(True for _ in _limited(snapshot))
        self._count_at = now + max(COUNT_SECONDS, 20 * (now - began)) if counts else math.inf


def load(connection: Connection[DictRow], *, with_keys: bool) -> Snapshot:
    """Read the whole configuration and its version from one database snapshot."""
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        version = connection.execute("SELECT version FROM config_state").fetchone()
        assert version is not None, "config_state always has its one row"  # noqa: S101
        features = [_feature(row) for row in connection.execute(FEATURES)]
        key = sql.SQL("sealed_key") if with_keys else sql.SQL("NULL::bytea AS sealed_key")
        personal = _PERSONAL_KEYS if with_keys else _PERSONAL_KEYS_UNSEEN
        snapshot = Snapshot(
            version=version["version"],
            features={feature.name: feature for feature in features},
            assignments={row["feature_id"]: _assignment(row) for row in connection.execute(_ASSIGNMENTS)},
            models={row["id"]: _model(row) for row in connection.execute(_MODELS)},
            providers={
                row["id"]: _provider(row) for row in connection.execute(sql.SQL(_PROVIDERS).format(key=key))
            },
            prices=_prices(connection.execute(_PRICES)),
            personal_keys={
                (row["admin_id"], row["provider_id"]): _personal_key(row)
                for row in connection.execute(personal)
            },
            budgets=[Budget(**row) for row in connection.execute(_BUDGETS)],
        )
        return counted(snapshot, connection) if with_keys else snapshot


def of_features(rows: Iterable[Mapping[str, Any]]) -> Snapshot:
    """A snapshot of rows of `FEATURES` alone: enough to check what jobs are given, not to serve them."""
    features = [_feature(row) for row in rows]
    return Snapshot(0, {feature.name: feature for feature in features}, {}, {}, {})


def counted(snapshot: Snapshot, connection: Connection[DictRow]) -> Snapshot:
    """The snapshot with the tokens that its limited personal keys have spent this month (UTC) by now.

    An index-only scan: 100,000 calls take about 20 ms.
    """
    limited = list(_limited(snapshot))
    if not limited:
        return snapshot
    rows = connection.execute(
        _SPENT,
        {
            "admins": [key.admin_id for key in limited],
            "providers": [key.provider_id for key in limited],
        },
    )
    spent = {(row["admin_id"], row["provider_id"]): int(row["tokens"]) for row in rows}
    now = {
        (key.admin_id, key.provider_id): replace(
            key, tokens_spent=spent.get((key.admin_id, key.provider_id), 0)
        )
        for key in limited
    }
    return replace(snapshot, personal_keys={**snapshot.personal_keys, **now})


def _limited(snapshot: Snapshot) -> Iterable[PersonalKey]:
    return (key for key in snapshot.personal_keys.values() if key.monthly_limit is not None)


FEATURES = """
SELECT id, name, capability, lane, input_schema, output_schema, is_active, max_queued FROM features"""

_MODELS = """
SELECT id, provider_id, model_id, capabilities, context_window, max_output_tokens, default_parameters,
       constraints, is_active, sort_order, is_default, retires_at, api_style, supports_streaming
FROM ai_models"""

_PROVIDERS = """
SELECT id, slug, type, base_url, api_version, organization, settings, {key}, key_version,
       allow_shared_for_normal_admins, allow_private_network, timeout_seconds, is_active,
       requests_per_minute, tokens_per_minute, max_concurrency
FROM ai_providers"""

_ASSIGNMENTS = """
SELECT a.id, a.feature_id, a.strategy, a.parameters, a.max_retries, a.retry_delay_seconds, a.timeout_seconds,
       a.deadline_seconds, a.use_any_active_model, a.is_active,
       p.id AS prompt_id, p.version AS prompt_version, p.system_template, p.user_template,
       (SELECT jsonb_agg(jsonb_build_object(
            'model_id', t.model_id, 'weight', t.weight, 'plan', t.conditions -> 'plan',
            'budget_burn_percent', t.conditions -> 'budget_burn_percent') ORDER BY t.position)
        FROM assignment_targets t WHERE t.assignment_id = a.id) AS targets
FROM feature_ai_assignments a LEFT JOIN prompt_templates p ON p.id = a.prompt_template_id"""

_PRICES = """
SELECT model_id, valid_from, price_unit, input_price_per_1k, output_price_per_1k, cached_input_price_per_1k,
       cache_write_price_per_1k, batch_input_price_per_1k, batch_output_price_per_1k
FROM model_prices"""

_BUDGETS = """
SELECT id, scope, scope_id, period, limit_usd, limit_tokens, action FROM budgets_in_force ORDER BY id"""

_PERSONAL_KEYS = """
SELECT id, admin_id, provider_id, sealed_key, key_version, use_shared_api, monthly_limit
FROM admin_provider_settings WHERE is_active"""

# Whoever makes no calls sees who has a key, not the key.
_PERSONAL_KEYS_UNSEEN = """
SELECT id, admin_id, provider_id, NULL::bytea AS sealed_key, key_version, use_shared_api, monthly_limit
FROM personal_keys_in_force"""

# key_version < 0: made with the caller's own key. The partial index that fits holds nothing else.
_SPENT = """
SELECT admin_id, provider_id, tokens
FROM unnest(%(admins)s::uuid[], %(providers)s::uuid[]) AS wanted (admin_id, provider_id)
CROSS JOIN LATERAL (
    SELECT coalesce(sum(coalesce(input_tokens, 0) + coalesce(output_tokens, 0)), 0) AS tokens
    FROM ai_usage_analytics calls
    WHERE calls.caller_admin_id = wanted.admin_id AND calls.provider_id = wanted.provider_id
      AND calls.key_version < 0 AND calls.finished_at >= date_trunc('month', now(), 'UTC')
) spent"""


def _feature(row: Mapping[str, Any]) -> Feature:
    return Feature(
        id=row["id"],
        name=row["name"],
        capability=Capability(row["capability"]),
        lane=row["lane"],
        input_schema=row["input_schema"],
        is_active=row["is_active"],
        max_queued=row["max_queued"],
        output_schema=row["output_schema"],
    )


def _model(row: Mapping[str, Any]) -> Model:
    return Model(**{**row, "capabilities": frozenset(row["capabilities"])})


def _provider(row: Mapping[str, Any]) -> Provider:
    values = dict(row)
    key = values.pop("sealed_key")
    return Provider(protocol=values.pop("type"), sealed_key=None if key is None else Sealed(key), **values)


def _personal_key(row: Mapping[str, Any]) -> PersonalKey:
    key = row["sealed_key"]
    return PersonalKey(**{**row, "sealed_key": None if key is None else Sealed(key)})


def _assignment(row: Mapping[str, Any]) -> Assignment:
    values = dict(row)
    prompt_id, version = values.pop("prompt_id"), values.pop("prompt_version")
    system, user = values.pop("system_template"), values.pop("user_template")
    prompt = None if prompt_id is None else Prompt(prompt_id, version, system, user)
    targets = tuple(
        Target(**{**target, "model_id": UUID(target["model_id"])}) for target in values.pop("targets") or ()
    )
    return Assignment(prompt=prompt, targets=targets, **values)


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
                batch_input_per_1k=row["batch_input_price_per_1k"],
                batch_output_per_1k=row["batch_output_price_per_1k"],
            )
        )
    return dict(prices)
