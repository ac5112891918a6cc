"""A budget holds, however many processes spend it and however they end; its thresholds are told once."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson
import psycopg
import redis

from store.database import conninfo
from tests.fleet import Fleet
from tests.rows import Rows
from tests.sandbox import Sandbox
from tests.workers.conftest import until
from workers.client import Client

INPUT = {"profile": "Sam, gardener", "job": "Head gardener"}
LIMIT = Decimal("1.00")


def test_a_budget_is_not_overspent_by_processes_that_die(fleet: Fleet, rows: Rows, sandbox: Sandbox) -> None:
    model = rows.model(rows.provider("paid", sandbox.openai), "m", prices=("0.01", "0.1"))
    rows.assign("cv_draft", model, user="{{ profile }}", parameters={"max_tokens": 400})
    sandbox.fault("latency", seconds=0.2)
    api = fleet.api()
    client = Client(fleet.settings)
    with (
        _webhook() as (url, told),
        psycopg.connect(conninfo(fleet.settings.database()), autocommit=True) as db,
    ):
        api.call(
            "POST",
            "/api/v1/integrations",
            {"name": "hook", "type": "webhook", "endpoint": url, "settings": {"allow_private_network": True}},
        )
        api.call(
            "POST",
            "/api/v1/budgets",
            {"scope": "global", "period": "month", "limit_usd": str(LIMIT), "action": "block"},
        )
        workers = [fleet.worker(lanes="standard", threads=32) for _ in range(2)]
        ids = [client.enqueue("cv_draft", INPUT) for _ in range(300)]
        until(lambda: _recorded(db) > LIMIT / 5, seconds=60)
        workers[0].kill()
        workers[0].wait()
        redis.Redis.from_url(fleet.settings.redis()).flushall()
        fleet.worker(lanes="standard", threads=32)
        states = Counter(client.result(job_id, timeout=120).state for job_id in ids)
        spent = _recorded(db)
        classes = {
            row[0]
            for row in db.execute("SELECT DISTINCT error_class FROM job_history WHERE state = 'failed'")
        }

        assert states["succeeded"] > 0
        assert states["failed"] > 0
        assert classes == {"budget"}
        assert LIMIT * Decimal("0.8") <= spent <= LIMIT
        until(lambda: len(told) >= 1)
        thresholds = Counter(
            event["data"]["percent"] for event in told if event["data"].get("kind") == "budget"
        )
        assert thresholds in (Counter({80: 1}), Counter({80: 1, 100: 1}))
        assert api.call("GET", "/api/v1/budgets")["items"][0]["spent"]["usd"] == f"{spent:f}"
    client.close()


def _recorded(db: psycopg.Connection[Any]) -> Decimal:
    row = db.execute("SELECT coalesce(sum(cost_usd), 0) FROM ai_usage_analytics").fetchone()
    assert row is not None
    return Decimal(row[0])


@contextmanager
def _webhook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A receiver on this machine, and what it was told."""
    told: list[dict[str, Any]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(orjson.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook", told
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
