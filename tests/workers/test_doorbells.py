"""Doorbells are written and acknowledged as dramatiq would, only many at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from uuid import UUID

import dramatiq
import pytest
import redis
from dramatiq.brokers.redis import RedisBroker

from store.ids import new_id
from store.settings import Settings
from tests.workers.conftest import until
from workers.actors import declare
from workers.broker import worker_broker
from workers.doorbells import NAMESPACE, Doorbells

LANE = "standard"


@pytest.fixture
def doorbells(settings: Settings) -> Iterator[Doorbells]:
    doorbells = Doorbells(settings.redis())
    yield doorbells
    doorbells.close()


@pytest.fixture
def kept(settings: Settings) -> Iterator[Callable[[], set[str]]]:
    """The keys of queues, messages and acknowledgements that hold something."""
    client = redis.Redis.from_url(settings.redis(), decode_responses=True)
    yield lambda: {str(key) for key in client.keys(f"{NAMESPACE}:*")} - {f"{NAMESPACE}:__heartbeats__"}
    client.close()


class Answered:
    """Notes the jobs it is called for. `hold`: whether the first call waits until it is let go."""

    def __init__(self, *, hold: bool = False) -> None:
        self.ids: list[UUID] = []
        self.goes = threading.Event()
        if not hold:
            self.goes.set()

    def __call__(self, job_id: UUID) -> None:
        self.ids.append(job_id)
        assert self.goes.wait(timeout=15)


def _worker(broker: RedisBroker, run: Callable[[UUID], None], threads: int = 2) -> dramatiq.Worker:
    declare(broker, run)
    worker = dramatiq.Worker(broker, queues={LANE}, worker_timeout=20, worker_threads=threads)
    worker.start()
    return worker


@pytest.mark.parametrize("kind", ["ours", "dramatiq's own"])
def test_a_worker_answers_each_once_and_leaves_nothing_behind(
    kind: str, doorbells: Doorbells, settings: Settings, kept: Callable[[], set[str]]
) -> None:
    ids = [new_id() for _ in range(50)]
    answered = Answered()
    broker = (
        worker_broker(settings.redis())
        if kind == "ours"
        else RedisBroker(url=settings.redis(), middleware=[])
    )

    assert doorbells.ring(LANE, [(job_id, "text") for job_id in ids[:49]])
    assert doorbells.ring(LANE, [(ids[49], "speech")])
    assert doorbells.waiting(LANE) == 50
    worker = _worker(broker, answered)
    try:
        until(lambda: len(answered.ids) == 50 and not kept())
    finally:
        worker.stop()

    assert sorted(answered.ids) == sorted(ids)
    assert doorbells.waiting(LANE) == 0


def test_a_stopping_worker_gives_back_what_it_fetched_and_did_not_begin(
    doorbells: Doorbells, settings: Settings, kept: Callable[[], set[str]]
) -> None:
    ids = [new_id() for _ in range(4)]
    first, second = Answered(hold=True), Answered()
    doorbells.ring(LANE, [(job_id, "text") for job_id in ids])
    worker = _worker(worker_broker(settings.redis()), first, threads=1)
    until(lambda: len(first.ids) == 1 and doorbells.waiting(LANE) == 2)  # one runs, one is fetched

    threading.Timer(0.2, first.goes.set).start()
    worker.stop()

    assert doorbells.waiting(LANE) == 4 - len(first.ids)
    worker = _worker(worker_broker(settings.redis()), second)
    until(lambda: len(first.ids) + len(second.ids) == 4 and not kept())
    worker.stop()
    assert sorted(first.ids + second.ids) == sorted(ids)


def test_no_delay_queue_is_polled(settings: Settings) -> None:
    worker = _worker(worker_broker(settings.redis()), Answered())

    names = set(worker.consumers)
    worker.stop()

    assert names == {LANE}
