"""A limit holds while Valkey is killed, wiped and stopped."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime

import pytest

from store.tables import AIProvider
from tests.chaos.installation import FEATURE, Installation
from tests.promises.test_limits import INPUT, LIMIT, most
from tests.rows import Rows
from workers.client import Client

JOBS = 900


@pytest.mark.full
def test_no_minute_holds_more_than_the_limit_whatever_becomes_of_valkey() -> None:
    with Installation(processes=4, threads=4, lease_seconds=3, call_seconds=0.05) as installation:
        _limit(installation)
        client = Client(installation.settings)
        ids = [client.enqueue(FEATURE, INPUT) for _ in range(JOBS)]
        harms: tuple[Callable[[], None], ...] = (
            lambda: installation.empty_valkey(down_seconds=3),
            installation.flush_valkey,
            lambda: installation.suspend_valkey(4),
        )
        for harm in harms:
            time.sleep(8)
            harm()
        ended = [client.result(job_id, timeout=240) for job_id in ids]
        client.close()
        calls = installation.sandbox.calls()["calls"]
        with installation.connect() as db:
            retries = db.execute("SELECT max(retries) AS most FROM job_history").fetchone()
    instants = sorted(datetime.fromisoformat(call["at"]).timestamp() for call in calls)
    held = {seconds: most(instants, seconds) for seconds in (1, 6, 60)}
    print(f"{len(instants)} calls in {instants[-1] - instants[0]:.0f} s; most in 1, 6, 60 s: {held}")
    assert {job.state for job in ended} == {"succeeded"}
    assert retries == {"most": 0}
    assert len(instants) == JOBS
    assert held[60] <= LIMIT


def _limit(installation: Installation) -> None:
    with installation.connect() as db:
        [row] = db.execute("SELECT id FROM ai_providers").fetchall()
    rows = Rows(installation.settings)
    rows.change(AIProvider, row["id"], requests_per_minute=LIMIT)
    rows.close()
