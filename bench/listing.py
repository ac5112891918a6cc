"""How long lists and statistics take over HTTP, with the month of `bench/month.py` on record.

One client asks, one request after the other; somebody counts once a second, as a worker would.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta

from bench.api import api
from bench.history import beside
from bench.month import CALLS_EACH, DAYS, JOBS, counting, invent
from bench.past import count
from bench.result import BenchError, Bound, Effort, Result, percentile
from bench.stage import Stage
from standalone import people
from standalone.api_client import ApiClient
from store.database import Role, open_pool

_REQUESTS = 40
_MOST_MS = 100.0
_EMAIL = "bench@example.com"

_GROUPINGS = (
    *("", "provider", "model", "feature", "user", "hour", "day", "provider,model,feature"),
    *("day,provider", "day,provider,model,feature", "hour,feature", "user,day", "user,model"),
)
_ATTEMPTS = (
    *("", "limit=200", "provider=provider-1", "model=model-3-0", "feature=feature_2", "feature=none"),
    *("user_id=user-77", "user_id=nobody", "outcome=failed", "error_class=timeout", "error_class=quota"),
    "feature=feature_2&error_class=server_error",
)
_LISTED_JOBS = (
    *("", "limit=200", "feature=feature_3", "feature=none", "state=succeeded", "state=failed"),
    *("state=cancelled", "state=queued", "user_id=user-77", "user_id=nobody", "error_class=timeout"),
    *(
        "provider=provider-1",
        "provider=none",
        "provider=provider-1&feature=none",
        "provider=provider-2&state=failed",
    ),
    *("error_class=none", "feature=feature_1&state=failed", "feature=feature_3&user_id=user-77"),
    *("q=aries", "q=user-77", "q=nothing+like+it", "q=nothing+like+it&state=failed"),
)


def measure(stage: Stage, effort: Effort, progress: Callable[[str], None]) -> Result:
    """The 50th and 95th percentile of each list and grouping."""
    jobs = effort.samples(JOBS)
    with beside(stage, "bench_listing") as full:
        progress(f"writing {jobs:,} finished jobs and {jobs * CALLS_EACH:,} calls")
        invent(full.db, jobs)
        with closing(open_pool(full.settings.database(), Role.WORKER, size=1)) as pool:
            progress("counting them")
            began = time.monotonic()
            count(pool)
            counted_in = time.monotonic() - began
            full.db.execute("VACUUM (ANALYZE)")
            with counting(pool), api(full.settings) as running:
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
        title=f"Lists and statistics over HTTP, {jobs:,} jobs and {jobs * CALLS_EACH:,} calls on record",
        columns=("request", "p50 ms", "p95 ms"),
        rows=[[path, f"{f['p50_ms']:.0f}", f"{f['p95_ms']:.0f}"] for path, f in figures.items()],
        data={
            "jobs": jobs,
            "calls": jobs * CALLS_EACH,
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
    middle = datetime.now(UTC) - timedelta(days=DAYS / 2)
    yield f"/usage/attempts?until={middle:%Y-%m-%dT%H:%M:%SZ}&feature=feature_2"
    for filters in _LISTED_JOBS:
        yield f"/jobs?{filters}" if filters else "/jobs"
    yield f"/jobs?until={middle:%Y-%m-%dT%H:%M:%SZ}"
    yield f"/jobs?since={middle:%Y-%m-%dT%H:%M:%SZ}&user_id=nobody"
    yield "/catalog"


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
