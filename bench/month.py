"""A month that never was: a million finished jobs and three calls each, of as many kinds as a busy one has.

Thirty days, twelve features, eight models at four providers of `bench/configuration.py`, ten thousand users;
one call in twenty failed.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from bench.past import count
from store.database import Pool

JOBS = 1_000_000
CALLS_EACH = 3
DAYS = 30
_AT_ONCE = 20_000  # jobs of a transaction

# Times rise with the numbers, as they would have.
_MOMENTS = """
SELECT n, now() - (%(days)s - %(days)s * n / %(jobs)s::float8) * interval '1 day' AS ended,
    'feature_' || n %% 12 AS feature, 'user-' || (hashint4(n) & 65535) %% 10000 AS user_id
FROM generate_series(%(first)s::integer, %(last)s) AS n"""
_INVENT_JOBS = f"""
INSERT INTO job_history (
    id, feature, capability, lane, priority, state, input, user_id, metadata, created_at, run_at, started_at,
    finished_at, run, retries, calls, result, provider, model, input_tokens, output_tokens, cost_usd,
    latency_ms, error_class, worker)
SELECT uuidv7(ended - now()), feature, 'text', 'batch', 0,
    CASE WHEN n %% 20 = 0 THEN 'failed' ELSE 'succeeded' END,
    '{{"sign": "aries", "language": "en"}}', user_id, '{{}}', ended, ended, ended, ended, 1, 0, 3,
    jsonb_build_object('text', repeat('stars and signs ', 40)), 'provider-' || n %% 4,
    'model-' || n %% 4 || '-' || n / 4 %% 2, 300, 60, 0.00037, 700,
    CASE WHEN n %% 20 = 0 THEN 'timeout' END, 'host:1'
FROM ({_MOMENTS}) AS moments"""
_INVENT_CALLS = f"""
INSERT INTO ai_usage_analytics (
    job_id, run, n, finished_at, started_at, feature, capability, lane, user_id, provider_id, provider,
    model_row_id, model, outcome, called, breaker, error_class, status, latency_ms, input_tokens,
    output_tokens, cost_usd, raw_usage, worker)
SELECT uuidv7(ended - now()), 1, number, ended, ended - interval '1 s', feature, 'text', 'batch', user_id,
    ai_providers.id, slug, ai_models.id, ai_models.model_id,
    CASE WHEN n %% 20 = 0 THEN 'failed' ELSE 'succeeded' END, true, 'closed',
    CASE WHEN n %% 20 = 0 THEN (ARRAY['timeout', 'server_error', 'rate_limited'])[number] END, 200,
    50 + (hashint4(n) & 1023) + (hashint4(n + number) & 1023), 300, 60, 0.00037,
    '{{"prompt_tokens": 300, "completion_tokens": 60}}', 'host:1'
FROM ({_MOMENTS}) AS moments
JOIN ai_providers ON slug = 'provider-' || n %% 4
JOIN ai_models ON ai_models.model_id = 'model-' || n %% 4 || '-' || n / 4 %% 2,
    generate_series(1, %(calls)s) AS number"""


def invent(db: psycopg.Connection, jobs: int) -> None:
    """Write the month. `db` is the owner's, in autocommit."""
    db.execute(
        "SELECT ensure_partitions((now() AT TIME ZONE 'UTC')::date - %(days)s, %(days)s)", {"days": DAYS}
    )
    for first in range(1, jobs + 1, _AT_ONCE):
        values = {
            "first": first,
            "last": min(jobs, first + _AT_ONCE - 1),
            "jobs": jobs,
            "days": DAYS,
            "calls": CALLS_EACH,
        }
        db.execute(_INVENT_JOBS.encode(), values)
        db.execute(_INVENT_CALLS.encode(), values)
    db.execute("CHECKPOINT")


@contextmanager
def counting(pool: Pool) -> Iterator[None]:
    """Somebody counts once a second, as a worker would."""
    ended = threading.Event()

    def count_on() -> None:
        while not ended.wait(1):
            count(pool)

    thread = threading.Thread(target=count_on, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
