"""Who ends a job first ends it, and nobody after: a cancel against a completion."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from functools import partial

import psycopg
import pytest
from psycopg.rows import dict_row

from store.database import Role, conninfo
from store.ids import new_id
from store.settings import Settings
from workers import jobs
from workers.jobs import Claimed, Completion, Database, Ending, NewJob

DONE = Ending(state="succeeded", result={"text": "done"}, cost_usd=Decimal("0.5"))


@pytest.mark.parametrize("races", [200, pytest.param(2000, marks=pytest.mark.full)])
def test_cancel_racing_complete_leaves_exactly_one_record_each(settings: Settings, races: int) -> None:
    winners: Counter[str] = Counter()
    with _connected(settings, Role.WORKER) as worker, _connected(settings, Role.CLIENT) as api:
        for _ in range(races):
            job = _claimed(worker)
            completed, cancelled = _race(partial(_complete, worker, job), partial(_cancel, api, job))
            assert completed != cancelled
            rows = worker.execute("SELECT state FROM job_history WHERE id = %s", [job.id]).fetchall()
            assert [row["state"] for row in rows] == ["succeeded" if completed else "cancelled"]
            winners[rows[0]["state"]] += 1
        assert worker.execute("SELECT count(*) FROM jobs").fetchone() == {"count": 0}
    print(f"{races} races: {dict(winners)}")
    assert min(winners["succeeded"], winners["cancelled"]) > races // 20, "there was no race"


def _race(*runners: Callable[[], bool]) -> list[bool]:
    """Let them start within a millisecond; what each returned."""
    results = [False] * len(runners)
    gate = threading.Barrier(len(runners))

    def go(place: int) -> None:
        gate.wait()
        time.sleep(random.uniform(0, 0.001))
        results[place] = runners[place]()

    threads = [threading.Thread(target=go, args=[place]) for place in range(len(runners))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def _connected(settings: Settings, role: Role) -> Database:
    return psycopg.connect(conninfo(settings.database(), role), autocommit=True, row_factory=dict_row)


def _claimed(db: Database) -> Claimed:
    version = db.execute("SELECT version FROM config_state").fetchone()
    assert version is not None
    job = NewJob(id=new_id(), feature="cv_draft", capability="text", lane="standard", input={})
    assert jobs.insert(db, job, config_version=version["version"], rung=False)
    claimed = jobs.claim(db, job.id, lease_seconds=30, worker="test")
    assert claimed is not None
    return claimed


def _complete(db: Database, job: Claimed) -> bool:
    return jobs.complete(db, [Completion(job, DONE, [])]) == {job.id}


def _cancel(db: Database, job: Claimed) -> bool:
    return len(db.execute("SELECT cancel_jobs(%s)", [[job.id]]).fetchall()) == 1
