"""A job that kills its process: it fails, and nobody beside it does."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.chaos.installation import FEATURE, Installation
from tests.chaos.storm import INPUT
from workers.client import Client

INNOCENT = 200


@pytest.mark.parametrize("death", ["exit", pytest.param("segfault", marks=pytest.mark.full)])
def test_a_job_that_kills_its_process_fails_and_the_innocent_do_not(
    death: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    deadly = str(Path(__file__).with_name("deadly"))
    monkeypatch.setenv("PYTHONPATH", deadly, prepend=os.pathsep)
    with Installation(processes=2, threads=4, lease_seconds=2.0, call_seconds=0.05) as installation:
        client = Client(installation.settings)
        innocent = [client.enqueue(FEATURE, INPUT) for _ in range(INNOCENT // 2)]
        poison = client.enqueue(FEATURE, {**INPUT, "profile": death})
        innocent += [client.enqueue(FEATURE, INPUT) for _ in range(INNOCENT // 2)]
        deaths = 0
        give_up = time.monotonic() + 60
        while not all(client.is_finished(job_id) for job_id in (poison, *innocent)):
            assert time.monotonic() < give_up, "not all jobs have ended"
            deaths += installation.tend()
            time.sleep(0.05)
        job = client.job(poison)
        client.close()
        with installation.connect() as db:
            ended = db.execute("SELECT id, state, crashes, run FROM job_history").fetchall()
    assert job is not None
    assert (job.state, job.error_class) == ("failed", "poison")
    marks = {row["id"]: (row["state"], row["crashes"]) for row in ended}
    assert marks.pop(poison) == ("failed", 2)
    assert marks == dict.fromkeys(innocent, ("succeeded", 0))
    assert deaths == 1, "only its first run was beside others"
