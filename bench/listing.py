"""How long lists and statistics take over HTTP, with a million finished jobs and three calls each on record.

Thirty days, twelve features, eight models at four providers, ten thousand users; one call in twenty failed.
One client asks, one request after the other; somebody counts once a second, as a worker would.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta

import psycopg

from bench.api import api
from bench.history import beside
from bench.result import BenchError, Bound, Effort, Result, percentile
from bench.stage import Stage
from standalone import people
from standalone.api_client import ApiClient
from store.database import Pool, Role, open_pool
from workers import rollup

_JOBS = 1_000_000
_CALLS_EACH = 3
_DAYS = 30
_AT_ONCE = 20_000  # jobs of a transaction
_REQUESTS = 40
_MOST_MS = 100.0
_EMAIL = "bench@example.com"

_GROUPINGS = (
    *("", "provider", "model", "feature", "user", "hour", "day", "provider,model,feature"),
    *("day,provider", "day,provider,model,feature", "hour,feature", "user,day", "user,model"),
)
_ATTEMPTS = (
    *("", "limit=200", "provider=provider-1", "model=model-3", "feature=feature_2", "feature=none"),
    *("user_id=user-77", "user_id=nobody", "outcome=failed", "error_class=timeout", "error_class=quota"),
    "feature=feature_2&error_class=server_error",
)
_LISTED_JOBS = (
    *("", "limit=200", "feature=feature_3", "feature=none", "state=succeeded", "state=failed"),
    *("state=cancelled", "state=queued", "user_id=user-77", "user_id=nobody", "error_class=timeout"),
    *("error_class=none", "feature=feature_1&state=failed", "feature=feature_3&user_id=user-77"),
    *("q=aries", "q=user-77", "q=nothing+like+it", "q=nothing+like+it&state=failed"),
)

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
    jsonb_build_object('text', repeat('stars and signs ', 40)), 'provider-' || n %% 4, 'model-' || n %% 8,
    300, 60, 0.00037, 700, CASE WHEN n %% 20 = 0 THEN 'timeout' END, 'host:1'
FROM ({_MOMENTS}) AS moments"""
_INVENT_CALLS = f"""
INSERT INTO ai_usage_analytics (
    job_id, run, n, finished_at, started_at, feature, capability, lane, user_id, provider_id, provider,
    model_row_id, model, outcome, called, breaker, error_class, status, latency_ms, input_tokens,
    output_tokens, cost_usd, raw_usage, worker)
SELECT uuidv7(ended - now()), 1, number, ended, ended - interval '1 s', feature, 'text', 'batch', user_id,
    md5('p' || n %% 4)::uuid, 'provider-' || n %% 4, md5('m' || n %% 8)::uuid, 'model-' || n %% 8,
    CASE WHEN n %% 20 = 0 THEN 'failed' ELSE 'succeeded' END, true, 'closed',
    CASE WHEN n %% 20 = 0 THEN (ARRAY['timeout', 'server_error', 'rate_limited'])[number] END, 200,
    50 + (hashint4(n) & 1023) + (hashint4(n + number) & 1023), 300, 60, 0.00037,
    '{{"prompt_tokens": 300, "completion_tokens": 60}}', 'host:1'
FROM ({_MOMENTS}) AS moments, generate_series(1, %(calls)s) AS number"""


def measure(stage: Stage, effort: Effort, progress: Callable[[str], None]) -> Result:
    """The 50th and 95th percentile of each list and grouping."""
    jobs = effort.samples(_JOBS)
    with beside(stage, "bench_listing") as full:
        progress(f"writing {jobs:,} finished jobs and {jobs * _CALLS_EACH:,} calls")
        _invent(full.db, jobs)
        with closing(open_pool(full.settings.database(), Role.WORKER, size=1)) as pool:
            progress("counting them")
            began = time.monotonic()
            _count(pool)
            counted_in = time.monotonic() - began
            full.db.execute("VACUUM (ANALYZE)")
            with _counting(pool), api(full.settings) as running:
                people.create_admin(full.settings, email=_EMAIL, role="admin", password="stars and signs")
                token = people.admin_jwt(full.settings, email=_EMAIL, mfa=False)
                progress("asking")
                with ApiClient(running.url, token) as client:
                    figures = {
                        path: _asked(client, path, effort.samples(_REQUESTS, least=5)) for path in _paths()
                    }
    worst = {
        noun: max((figure["p95_ms"], path) for path, figure in figures.items() if path.startswith(noun))
        for noun in ("/usage/stats", "/usage/attempts", "/jobs", "/catalog")
    }
    return Result(
        title=f"Lists and statistics over HTTP, {jobs:,} jobs and {jobs * _CALLS_EACH:,} calls on record",
        columns=("request", "p50 ms", "p95 ms"),
        rows=[[path, f"{f['p50_ms']:.0f}", f"{f['p95_ms']:.0f}"] for path, f in figures.items()],
        data={
            "jobs": jobs,
            "calls": jobs * _CALLS_EACH,
            "counted_in_seconds": counted_in,
            "requests": figures,
        },
        note=f"All calls were counted in {counted_in:.0f} s.",
        bounds=[Bound(f"p95 of the slowest {noun}", p95, _MOST_MS, "ms") for noun, (p95, _) in worst.items()],
    )


def _paths() -> Iterator[str]:
    for grouping in _GROUPINGS:
        yield f"/usage/stats?group_by={grouping}" if grouping else "/usage/stats"
    yield "/usage/stats?group_by=day,model&user_id=user-77"
    for filters in _ATTEMPTS:
        yield f"/usage/attempts?{filters}" if filters else "/usage/attempts"
    middle = datetime.now(UTC) - timedelta(days=_DAYS / 2)
    yield f"/usage/attempts?until={middle:%Y-%m-%dT%H:%M:%SZ}&feature=feature_2"
    for filters in _LISTED_JOBS:
        yield f"/jobs?{filters}" if filters else "/jobs"
    yield f"/jobs?until={middle:%Y-%m-%dT%H:%M:%SZ}"
    yield f"/jobs?since={middle:%Y-%m-%dT%H:%M:%SZ}&user_id=nobody"
    yield "/catalog"


def _invent(db: psycopg.Connection, jobs: int) -> None:
    db.execute(
        "SELECT ensure_partitions((now() AT TIME ZONE 'UTC')::date - %(days)s, %(days)s)", {"days": _DAYS}
    )
    for first in range(1, jobs + 1, _AT_ONCE):
        values = {
            "first": first,
            "last": min(jobs, first + _AT_ONCE - 1),
            "jobs": jobs,
            "days": _DAYS,
            "calls": _CALLS_EACH,
        }
        db.execute(_INVENT_JOBS.encode(), values)
        db.execute(_INVENT_CALLS.encode(), values)
    db.execute("CHECKPOINT")


def _count(pool: Pool) -> None:
    while True:
        with pool.connection() as db:
            step = rollup.advance(db, pause_seconds=0)
        if step is not None and step.caught_up:
            return


@contextmanager
def _counting(pool: Pool) -> Iterator[None]:
    """Somebody counts once a second."""
    ended = threading.Event()

    def count_on() -> None:
        while not ended.wait(1):
            _count(pool)

    thread = threading.Thread(target=count_on, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _asked(client: ApiClient, path: str, times: int) -> Mapping[str, float]:
    """Milliseconds. The first two do not count: they find cold caches."""
    took = []
    for _ in range(times + 2):
        began = time.perf_counter()
        answer = client.call("GET", f"/api/v1{path}")
        took.append((time.perf_counter() - began) * 1000)
        if "items" not in answer:
            raise BenchError(f"{path} is no list.")
    return {f"p{percent}_ms": percentile(took[2:], percent) for percent in (50, 95)}
