"""The actor as people first write it: a new HTTP client and a new database connection for each job.

Kind in one point: the connection that read the configuration stays open for the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import httpx
import psycopg
from psycopg.types.json import Jsonb

from bench.contenders.actor import ActorWorker, broker
from bench.crew import Orders, Report
from bench.result import BenchError
from store.settings import Settings

if TYPE_CHECKING:
    from bench.stage import Stage

NAME = "naive"

_TABLES = """
CREATE TABLE IF NOT EXISTS naive_configuration (feature text PRIMARY KEY, url text, headers jsonb, body text);
CREATE TABLE IF NOT EXISTS naive_results (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, job bigint, result text, finished_at timestamptz);
TRUNCATE naive_configuration, naive_results;
"""
_CONFIGURE = "INSERT INTO naive_configuration VALUES ('text', %s, %s, %s)"
_READ = "SELECT url, headers, body FROM naive_configuration WHERE feature = %s"
_WRITE = "INSERT INTO naive_results (job, result, finished_at) VALUES (%s, %s, clock_timestamp())"
_FINISHED = "SELECT job, extract(epoch FROM finished_at)::float8 FROM naive_results ORDER BY finished_at"


class Naive:
    """Fills the queue with numbers; the actor leaves a row for each."""

    def __init__(self, stage: Stage) -> None:
        request = stage.provider_request()
        self._db = stage.db
        self._db.execute(_TABLES)
        self._db.execute(_CONFIGURE, [request.url, Jsonb(dict(request.headers)), request.body.decode()])
        self._broker, self._actor = broker(stage.settings.redis(), NAME, lambda _: None)
        self._jobs = 0

    def orders(self, threads: int) -> Orders:
        return Orders(NAME, threads)

    def fill(self, jobs: int) -> None:
        self._jobs = jobs
        self._db.execute("TRUNCATE naive_results")
        for number in range(jobs):
            self._actor.send(number)

    def finished(self, reports: Sequence[Report]) -> list[float]:
        rows = self._db.execute(_FINISHED).fetchall()
        failed = sum(report.failed for report in reports)
        if failed or sorted(job for job, _ in rows) != list(range(self._jobs)):
            raise BenchError(f"Naive: {len(rows)} rows for {self._jobs} jobs; {failed} runs failed.")
        return [at for _, at in rows]

    def close(self) -> None:
        self._broker.close()


def staff(orders: Orders) -> ActorWorker:
    """An actor that keeps nothing from one job to the next."""
    settings = Settings()
    database_url = settings.database()

    def perform(number: int) -> None:
        with psycopg.connect(database_url) as db:
            row = db.execute(_READ, ["text"]).fetchone()
            assert row is not None
            url, headers, body = row
            with httpx.Client(timeout=60) as client:
                response = client.post(url, headers=headers, content=body)
            response.raise_for_status()
            db.execute(_WRITE, [number, response.json()["choices"][0]["message"]["content"]])
            db.commit()

    return ActorWorker(settings.redis(), NAME, perform, threads=orders.threads)
