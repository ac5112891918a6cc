"""Many jobs at once from Python, and one idempotency key from many threads."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID, uuid4

import psycopg
import pytest

from routing.errors import InputRejected
from store.database import UNAVAILABLE
from store.settings import Settings
from store.tables import AIModel
from tests.rows import Rows
from tests.workers.conftest import until
from tests.workers.test_client import ARIES, TEXT, model
from workers.backpressure import QueueFull
from workers.bulk import ConfigurationMoved
from workers.client import Client
from workers.records import JobFilter
from workers.requests import JobRequest, KeyInvalid, KeyReused, Sender
from workers.run import WorkerProcess

__all__ = ["model"]  # the fixture

LEO = {"sign": "leo"}
THREADS = 64


def test_one_key_in_many_threads_is_one_job(client: Client, model: UUID) -> None:
    gate = threading.Barrier(THREADS)

    def enqueue(_: int) -> UUID:
        gate.wait()
        return client.enqueue(TEXT, ARIES, idempotency_key="once")

    with ThreadPoolExecutor(THREADS) as pool:
        (job_id,) = set(pool.map(enqueue, range(THREADS)))
    assert [job.id for job in client.jobs(JobFilter())] == [job_id]
    accepted = client.put(JobRequest(TEXT, ARIES), idempotency_key="once")
    assert (accepted.job_id, accepted.replayed) == (job_id, True)
    with pytest.raises(KeyReused):
        client.enqueue(TEXT, LEO, idempotency_key="once")
    other = client.put(JobRequest(TEXT, LEO), Sender(token_id=uuid4()), idempotency_key="once")
    assert not other.replayed
    with pytest.raises(KeyInvalid):
        client.enqueue(TEXT, LEO, idempotency_key="")


def test_many_jobs_are_stored_and_run(client: Client, model: UUID, worker: WorkerProcess) -> None:
    requests = [JobRequest(TEXT, ARIES if n % 2 else LEO, user_id=f"u{n}") for n in range(60)]
    ids = client.enqueue_many(requests)
    found = [client.result(job_id) for job_id in ids]
    assert [(job.user_id, job.input) for job in found] == [(r.user_id, r.input) for r in requests]
    assert {job.state for job in found} == {"succeeded"}


def test_one_bad_job_keeps_all_out(client: Client, model: UUID) -> None:
    with pytest.raises(InputRejected, match="ariess") as refused:
        client.enqueue_many([JobRequest(TEXT, ARIES), JobRequest(TEXT, {"sign": "ariess"})])
    assert any("job 1 of" in note for note in refused.value.__notes__)
    assert client.jobs(JobFilter()) == []
    assert client.enqueue_many([]) == []


def test_a_change_meanwhile_counts(client: Client, rows: Rows, model: UUID) -> None:
    with client.bulk(Sender()) as bulk:
        bulk.add(JobRequest(TEXT, ARIES))
        rows.change(AIModel, model, sort_order=7)
        assert len(client.committed(bulk)) == 1
    with client.bulk(Sender()) as bulk:
        bulk.add(JobRequest(TEXT, ARIES))
        rows.change_feature(TEXT, input_schema={"type": "object", "required": ["moon"]})
        with pytest.raises((ConfigurationMoved, InputRejected)):
            client.committed(bulk)
    with client.bulk(Sender()) as bulk:
        bulk.add(JobRequest(TEXT, {"moon": 1}))
        rows.change_feature(TEXT, input_schema={"type": "object", "required": ["moon"], "title": "Moon"})
        with pytest.raises(ConfigurationMoved, match=TEXT):
            client.committed(bulk)
    assert len(client.jobs(JobFilter())) == 1


def test_bulks_at_once_are_bounded(client: Client, model: UUID) -> None:
    """Each holds a connection of its own."""
    with client.bulk(Sender()), client.bulk(Sender()), client.bulk(Sender()):
        with client.bulk(Sender()), pytest.raises(UNAVAILABLE), client.bulk(Sender()):
            pass
        assert len(client.enqueue_many([JobRequest(TEXT, ARIES)])) == 1


def test_a_slow_bulk_holds_back_no_clean_up(client: Client, settings: Settings, model: UUID) -> None:
    """Between two pieces there is no transaction whose age would keep dead rows of the queue alive."""
    with client.bulk(Sender()) as bulk, psycopg.connect(settings.database(), autocommit=True) as owner:
        for _ in range(6000):
            bulk.add(JobRequest(TEXT, ARIES))
        held = owner.execute(
            "SELECT state, backend_xid, backend_xmin FROM pg_stat_activity "
            "WHERE application_name = 'orrery bulk' AND datname = current_database()"
        ).fetchall()
        assert held == [("idle", None, None)]


def test_a_cap_lets_in_what_it_says_and_more_once_jobs_have_ended(
    client: Client, rows: Rows, model: UUID
) -> None:
    rows.change_feature(TEXT, max_queued=5)
    ids = client.enqueue_many([JobRequest(TEXT, ARIES)] * 4)
    with pytest.raises(QueueFull):
        client.enqueue_many([JobRequest(TEXT, ARIES)] * 2)
    ids.append(client.enqueue(TEXT, ARIES))
    with pytest.raises(QueueFull) as full:
        client.enqueue(TEXT, ARIES, idempotency_key="later")
    assert full.value.retry_after >= 1
    assert client.cancel(ids[0])

    def let_in() -> bool:
        try:
            client.enqueue(TEXT, ARIES, idempotency_key="later")
        except QueueFull:
            return False
        return True

    until(let_in)
    assert len(client.jobs(JobFilter(state="queued"))) == 5


def test_cancelling_ends_what_has_not_ended(client: Client, model: UUID) -> None:
    job_id = client.enqueue(TEXT, ARIES)
    assert client.cancel(job_id)
    assert client.result(job_id, timeout=1).state == "cancelled"
    assert not client.cancel(job_id)
    assert not client.cancel(uuid4())
