"""Suspects run side by side, each alone in its process, and one death is no concern of the others."""

from __future__ import annotations

import os
import signal
from uuid import UUID

import psutil

from store.database import Pool
from store.settings import Settings
from tests.rows import Rows
from tests.sandbox import Sandbox
from tests.workers.conftest import until
from workers import jobs
from workers.client import Client
from workers.run import WorkerProcess

SUSPECTS = 5
PROCESSES = 3
INPUT = {"profile": "Sam, gardener", "job": "Head gardener"}


def test_several_suspects_run_at_once_and_a_death_among_them_marks_only_its_own_job(
    settings: Settings, rows: Rows, sandbox: Sandbox, client: Client, db: Pool
) -> None:
    rows.assign("cv_draft", rows.model(rows.provider("slow", sandbox.openai), "m"), user="{{ profile }}")
    ids = _suspects(client, db)
    sandbox.fault("latency", seconds=600)  # until they are told to end
    worker = WorkerProcess(
        settings.model_copy(update={"lease_seconds": 3.0}), lanes=["batch"], threads=PROCESSES
    )
    worker.start()
    try:
        until(
            lambda: len(_running(db)) == PROCESSES and sandbox.calls()["in_flight"] == PROCESSES, seconds=60
        )
        by_process = _running(db)
        assert by_process.keys() == {process.pid for process in _processes()}
        sandbox.heal()  # of the calls to come
        killed = min(by_process)
        os.kill(killed, signal.SIGKILL)
        for pid in by_process.keys() - {killed}:
            os.kill(pid, signal.SIGTERM)  # gives its job back once its grace is over
        states = {job_id: client.result(job_id, timeout=60).state for job_id in ids}
        assert states == dict.fromkeys(ids, "succeeded")
        until(lambda: not _processes(), seconds=30)  # nothing came for a lease
    finally:
        worker.stop()
    with db.connection() as connection:
        ended = connection.execute("SELECT id, crashes FROM job_history").fetchall()
    assert {row["id"]: row["crashes"] for row in ended} == {
        job_id: int(job_id == by_process[killed]) for job_id in ids
    }


def test_a_stop_gives_back_what_runs_alone_and_counts_no_crash(
    settings: Settings, rows: Rows, sandbox: Sandbox, client: Client, db: Pool
) -> None:
    rows.assign("cv_draft", rows.model(rows.provider("slow", sandbox.openai), "m"), user="{{ profile }}")
    ids = _suspects(client, db)
    sandbox.fault("latency", seconds=600)
    worker = WorkerProcess(
        settings.model_copy(update={"grace_seconds": 4.0}), lanes=["batch"], threads=PROCESSES
    )
    worker.start()
    try:
        until(lambda: sandbox.calls()["in_flight"] > 0, seconds=60)
    finally:
        worker.stop()
    assert not _processes()
    with db.connection() as connection:
        left = connection.execute("SELECT id, state, suspect, crashes FROM jobs ORDER BY id").fetchall()
    assert left == [{"id": job_id, "state": "queued", "suspect": True, "crashes": 0} for job_id in ids]


def _suspects(client: Client, db: Pool) -> list[UUID]:
    """Jobs that were running when their process died."""
    ids = [client.enqueue("cv_draft", INPUT) for _ in range(SUSPECTS)]
    with db.connection() as connection:
        for job_id in ids:
            assert jobs.claim(connection, job_id, lease_seconds=0.01, worker="gone:1")
    return ids


def _running(db: Pool) -> dict[int, UUID]:
    """The jobs that run alone, by process."""
    with db.connection() as connection:
        rows = connection.execute("SELECT id, worker FROM jobs WHERE alone").fetchall()
    return {int(row["worker"].rpartition(":")[2]): row["id"] for row in rows}


def _processes() -> list[psutil.Process]:
    """The processes for suspects of this one that have not ended."""
    return [
        process
        for process in psutil.Process().children()
        if process.status() != psutil.STATUS_ZOMBIE and "workers.alone" in process.cmdline()
    ]
