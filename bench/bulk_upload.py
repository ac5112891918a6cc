"""100,000 jobs through `POST /api/v1/jobs/bulk`: how long it takes, and what memory the API needs for it.

Each round has an API process of its own. The body is ready before the clock runs; the clock stops when all of
the answer, which names every id, has come.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from statistics import median
from urllib.parse import urlsplit

from bench.api import Api, api
from bench.configuration import FEATURE, distinct_input
from bench.memory import peak_mb, resident_mb
from bench.result import BenchError, Bound, Effort, Result
from bench.stage import Stage

_ROWS = 100_000
_WARM_UP = 100
_MOST_ROUNDS = 3
_MOST_SECONDS = 6.0
_MOST_MEGABYTES = 64.0
_PATIENCE_SECONDS = 120.0
_STORED = "SELECT count(DISTINCT id), count(DISTINCT input) FROM jobs"


@dataclass(frozen=True, slots=True)
class Upload:
    """One round, and the API's memory in MB: its peak before and after, and what it held in between.

    What the upload needed is the peak after it less what was held before it: a peak of the API's start that
    is long over is no excuse.
    """

    seconds: float
    peak_mb_before: float
    held_mb_before: float
    peak_mb_after: float

    @property
    def mb_more(self) -> float:
        """What the upload needed."""
        return self.peak_mb_after - self.held_mb_before


def measure(stage: Stage, effort: Effort, progress: Callable[[str], None]) -> Result:
    """Median seconds, and the most memory of all rounds."""
    rows = effort.samples(_ROWS)
    body = _lines(rows)
    uploads = []
    for number in range(effort.turns(_MOST_ROUNDS)):
        progress(f"{rows:,} jobs as NDJSON: round {number + 1}")
        uploads.append(_upload(stage, body, rows))
    seconds = median(upload.seconds for upload in uploads)
    more = max(upload.mb_more for upload in uploads)
    return Result(
        title=f"{rows:,} distinct jobs in one request ({len(body) / 1e6:.1f} MB of NDJSON)",
        columns=("round", "seconds", "jobs/s", "API's peak MB before", "held before", "peak after"),
        rows=[
            [
                str(number),
                f"{upload.seconds:.2f}",
                f"{rows / upload.seconds:,.0f}",
                f"{upload.peak_mb_before:.1f}",
                f"{upload.held_mb_before:.1f}",
                f"{upload.peak_mb_after:.1f}",
            ]
            for number, upload in enumerate(uploads, start=1)
        ],
        data={
            "rows": rows,
            "seconds": seconds,
            "mb_more": more,
            "rounds": [asdict(upload) for upload in uploads],
        },
        bounds=[
            Bound("seconds, median", seconds, _MOST_SECONDS, "s"),
            Bound("memory of the API, more", more, _MOST_MEGABYTES, "MB"),
        ],
    )


def _lines(rows: int) -> bytes:
    jobs = ({"feature": FEATURE, "input": distinct_input(n), "user_id": f"user-{n}"} for n in range(rows))
    return b"".join(json.dumps(job).encode() + b"\n" for job in jobs)


def _upload(stage: Stage, body: bytes, rows: int) -> Upload:
    with api(stage.settings) as running:
        _post(running, _lines(_WARM_UP))
        stage.empty_queue()
        peak_before, held_before = peak_mb(running.pid), resident_mb(running.pid)
        began = time.perf_counter()
        answer = _post(running, body)
        seconds = time.perf_counter() - began
        peak_after = peak_mb(running.pid)
    stored = stage.db.execute(_STORED).fetchone()
    stage.empty_queue()
    if stored != (rows, rows) or len(set(json.loads(answer)["ids"])) != rows:
        raise BenchError(f"Of {rows} jobs of a bulk {stored} (ids, inputs) were stored.")
    return Upload(seconds, peak_before, held_before, peak_after)


def _post(running: Api, body: bytes) -> bytes:
    address = urlsplit(running.url).netloc
    headers = {"Authorization": f"Bearer {running.token}", "Content-Type": "application/x-ndjson"}
    with closing(http.client.HTTPConnection(address, timeout=_PATIENCE_SECONDS)) as connection:
        connection.request("POST", "/api/v1/jobs/bulk", body, headers)
        response = connection.getresponse()
        answer = response.read()
    if response.status != http.client.ACCEPTED:
        raise BenchError(f"The API answered {response.status} to a bulk: {answer[:500]!r}")
    return answer
