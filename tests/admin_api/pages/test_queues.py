"""Queues and workers: what the page shows, and what its buttons do."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from html import unescape
from uuid import UUID

import httpx
import pytest

from store.database import Role, open_pool
from store.ids import new_id
from store.settings import Settings
from tests.admin_api.conftest import Api, People
from tests.admin_api.logins import Person
from tests.admin_api.nouns import assigned
from tests.admin_api.pages.conftest import Browse, Browser, said
from tests.admin_api.test_jobs import JOB
from tests.clock import away_from_the_edges_of
from tests.usage_rows import Ledger, call
from workers import presence
from workers.presence import Presence

Serve = Callable[..., httpx.Client]

ARABIC = "لا تعمل"
_FAILED = """
INSERT INTO job_history (
    id, feature, capability, lane, priority, state, input, metadata, created_at, run_at, finished_at, run,
    retries, calls, error_class, error_message)
VALUES (%s, %s, 'text', 'interactive', 0, 'failed', '{"cards": ["sun"]}', '{}', now(), now(), now(), 1,
    0, 1, %s, %s)"""
_RUN = """
UPDATE jobs SET state = 'running', worker = %s, started_at = now() - interval '75 s', suspect = true
WHERE id = (SELECT id FROM jobs ORDER BY id LIMIT 1) RETURNING id"""


@pytest.fixture
def desk(serve: Serve, local: Settings, browse: Browse, keeper: Person) -> Browser:
    """A super admin at a browser."""
    return browse(serve(local)).entered(keeper)


@pytest.fixture
def ledger(settings: Settings) -> Iterator[Ledger]:
    ledger = Ledger(settings)
    yield ledger
    ledger.close()


def failed(people: People, error_class: str, message: str, feature: str = "tarot_reading") -> UUID:
    """A job that has just failed."""
    job_id = new_id()
    people.run(_FAILED, [job_id, feature, error_class, message])
    return job_id


def arrive(settings: Settings, *names: str, lanes: tuple[str, ...] = ("interactive",)) -> None:
    with open_pool(settings.database(), Role.WORKER, size=1) as pool, pool.connection() as db:
        for name in names:
            presence.arrive(db, Presence(name, lanes, 8, "1.2", beat_seconds=10))


def test_where_nothing_happens_it_says_what_to_do(desk: Browser) -> None:
    answer = desk.get("/queues")
    assert answer.status_code == 200
    shown = said(answer)
    for words in ("No worker runs.", "No worker serves this lane", "Nothing failed", "nothing waits"):
        assert words in shown
    assert 'data-poll="3"' in answer.text


def test_lanes_and_workers_are_shown_with_what_runs(
    desk: Browser, api: Api, people: People, settings: Settings, ledger: Ledger
) -> None:
    assigned(api)
    ((lane,),) = people.run("SELECT lane FROM features WHERE name = 'tarot_reading'")
    arrive(settings, "host-a:17", "host-b:4")
    people.run("UPDATE workers SET last_seen_at = now() - interval '1 hour' WHERE id = 'host-b:4'")
    for _ in range(3):
        api.made("/jobs", JOB)
    ((job_id,),) = people.run(_RUN, ["host-a:17"])
    away_from_the_edges_of(60, least=10)
    ledger.record(*(call(lane=lane) for _ in range(4)))
    answer = desk.get("/queues")
    shown = said(answer)
    assert f'href="/jobs/{job_id}"' in answer.text
    for words in ("host-a process 17 alive", "host-b process 4 lost", "since 1 min ago", "suspect", "oldest"):
        assert words in shown
    assert "8 threads in 1 process" in shown
    assert "Finished a minute: 4 now" in unescape(answer.text)
    assert "No worker runs." not in shown
    assert shown.count("No worker serves this lane") == 2


def test_a_lane_is_paused_and_resumed(desk: Browser, people: People) -> None:
    def paused() -> list[tuple[str]]:
        return people.run("SELECT name FROM lanes WHERE is_paused")

    answer = desk.post("/queues/batch/pause")
    assert answer.headers["location"] == "/queues"
    assert paused() == [("batch",)]
    shown = desk.get("/queues")
    assert "The lane batch is paused" in said(shown)
    assert 'action="/queues/batch/resume"' in shown.text
    assert desk.post("/queues/batch/resume").status_code == 303
    assert paused() == []
    assert desk.post("/queues/slow/pause").status_code == 422


def test_a_failed_job_is_replayed_once_it_is_told_so(desk: Browser, api: Api, people: People) -> None:
    assigned(api)
    job_id = failed(people, "timeout", f"<script>alert(1)</script> {ARABIC}")
    before = desk.get("/queues")
    assert "<script>alert" not in before.text
    assert re.search(rf'dir="auto">[^<]*{ARABIC}', before.text)
    assert f'formaction="/queues/failed/{job_id}/replay"' in before.text
    assert desk.post(f"/queues/failed/{job_id}/replay").headers["location"] == "/queues"
    assert people.run("SELECT retry_of FROM jobs") == [(job_id,)]
    after = desk.get("/queues")
    assert "repeats it: tarot_reading." in said(after)
    assert f'formaction="/queues/failed/{job_id}/replay"' not in after.text
    assert "replayed" in said(after)


def test_all_of_a_class_are_replayed_and_no_others(desk: Browser, api: Api, people: People) -> None:
    assigned(api)
    poison = {failed(people, "poison", "It took down its process.") for _ in range(3)}
    failed(people, "timeout", "Too slow.")
    shown = desk.get("/queues")
    assert "poison 3 jobs, last" in said(shown)
    addresses = re.findall(r'formaction="(/queues/failed/replay\?[^"]+)"', shown.text)
    [address] = [unescape(each) for each in addresses if "poison" in each]
    assert "took down their process" in shown.text
    assert desk.post(address).headers["location"] == "/queues"
    assert {retry_of for (retry_of,) in people.run("SELECT retry_of FROM jobs")} == poison
    assert "3 jobs repeat what failed." in said(desk.get("/queues"))


def test_what_cannot_be_replayed_is_told(desk: Browser, people: People) -> None:
    failed(people, "configuration", "No assignment.", feature="cv_draft")
    assert desk.post("/queues/failed/replay?error_class=configuration").status_code == 303
    assert "1 were left out: " in said(desk.get("/queues"))
    assert people.run("SELECT count(*) FROM jobs") == [(0,)]


def test_an_admin_looks_and_touches_nothing(browse: Browse, admin: Person, people: People) -> None:
    job_id = failed(people, "timeout", "Too slow.")
    reader = browse().entered(admin)
    page = reader.get("/queues")
    assert page.status_code == 200
    assert 'action="/queues' not in page.text
    for path in (
        "batch/pause",
        "batch/resume",
        f"failed/{job_id}/replay",
        "failed/replay?error_class=timeout",
    ):
        assert reader.post(f"/queues/{path}").status_code == 403
    assert people.run("SELECT count(*) FROM jobs") == [(0,)]
