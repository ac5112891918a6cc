"""A worker process and its neighbours."""

from __future__ import annotations

from contextlib import closing

from store.settings import Settings
from tests.rows import Rows
from tests.sandbox import Sandbox
from tests.workers.conftest import until
from workers.client import Client
from workers.doorbells import Doorbells
from workers.run import WorkerProcess

THREADS = 2
INPUT = {"profile": "Sam, gardener", "job": "Head gardener"}


def test_a_process_takes_no_doorbell_that_another_could_answer_sooner(
    settings: Settings, rows: Rows, sandbox: Sandbox, client: Client
) -> None:
    rows.assign("cv_draft", rows.model(rows.provider("slow", sandbox.openai), "m"), user="{{ profile }}")
    sandbox.fault("latency", seconds=4)
    for _ in range(2 * THREADS):
        client.enqueue("cv_draft", INPUT)
    patient = settings.model_copy(update={"grace_seconds": 20.0})
    worker = WorkerProcess(patient, lanes=["standard"], threads=THREADS)
    worker.start()
    try:
        until(lambda: sandbox.calls()["in_flight"] == THREADS)
        with closing(Doorbells(settings.redis())) as doorbells:
            assert doorbells.waiting("standard") == THREADS
    finally:
        worker.stop()
