"""Many jobs in one request."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import httpx
import pytest

from admin_api.bulk import MOST_ROWS
from tests.admin_api.conftest import Api, Json, People
from tests.admin_api.nouns import assigned
from tests.admin_api.test_jobs import JOB
from tests.workers.conftest import until
from workers.doorbells import Doorbells

NDJSON = {"content-type": "application/x-ndjson"}


@pytest.fixture(autouse=True)
def ready(api: Api) -> Json:
    return assigned(api)


def job(**members: Any) -> Json:
    return JOB | members


def lines(jobs: Iterable[Json]) -> bytes:
    return b"".join(json.dumps(one).encode() + b"\n" for one in jobs)


def count(people: People) -> int:
    return int(people.run("SELECT count(*) FROM jobs")[0][0])


def test_an_array_and_a_stream_store_what_single_jobs_store(api: Api, people: People) -> None:
    rows = [
        job(user_id="u1", plan="free", priority=-5, metadata={"order": 7}, deadline_seconds=60),
        job(run_at="2999-01-01T00:00:00Z", input={"cards": ["Die Närrin \t\\N", "🃏\n"]}),
        job(),
    ]
    made = [api.made("/jobs", row)["id"] for row in rows]
    columns = (
        "feature, capability, lane, priority, state, input, user_id, plan, metadata, caller_admin_id, "
        "token_id, CASE WHEN scheduled THEN run_at END, extract(epoch FROM deadline_at - run_at), scheduled, "
        "(rung_at IS NULL)"
    )
    shown = f"SELECT {columns} FROM jobs WHERE id = %s"
    wanted = [people.run(shown, [id_]) for id_ in made]
    for answer in (
        api.post("/jobs/bulk", rows),
        api.post("/jobs/bulk", content=b"\n \r\n" + lines(rows).strip(), headers=NDJSON),
    ):
        assert answer.status_code == 202, answer.text
        bulk = answer.json()
        assert bulk["accepted"] == 3
        assert [UUID(id_).version for id_ in bulk["ids"]] == [7, 7, 7]
        assert [people.run(shown, [id_]) for id_ in bulk["ids"]] == wanted
        assert api.get(f"/jobs/{bulk['ids'][1]}").json()["input"] == rows[1]["input"]
    assert count(people) == 9
    assert api.post("/jobs/bulk", []).json() == {"accepted": 0, "ids": []}


def test_errors_name_their_rows_and_nothing_is_stored(api: Api, people: People) -> None:
    rows = [
        job(),
        job(input={}),
        job(feature="nothing"),
        job(priority=101, plan=""),
        job(input={"cards": [1]}),
        7,
        job(model="m"),
    ]
    fields = ["1/input/cards", "2/feature", "3/plan", "3/priority", "4/input/cards/0", "5", "6/model"]
    body = b"".join(json.dumps(row).encode() + b"\n\n" for row in rows)
    for refused in (api.post("/jobs/bulk", rows), api.post("/jobs/bulk", content=body, headers=NDJSON)):
        assert refused.status_code == 422
        assert refused.headers["content-type"] == "application/problem+json"
        assert [error["field"] for error in refused.json()["errors"]] == [f"rows/{field}" for field in fields]
        assert all(error["message"] for error in refused.json()["errors"])
    broken = (
        lines([job()]) + b'{"feature": \n' + b'{"feature": "tarot_reading", "input": {"cards": ["\\u0000"]}}'
    )
    errors = api.post("/jobs/bulk", content=broken, headers=NDJSON).json()["errors"]
    assert [error["field"] for error in errors] == ["rows/1", "rows/2/input/cards/0"]
    many = api.post("/jobs/bulk", content=lines([job(input={})] * 5000), headers=NDJSON)
    assert len(many.json()["errors"]) == 100
    nul = api.post("/jobs/bulk", [job(), job(user_id="\0")]).json()["errors"]
    assert [error["field"] for error in nul] == ["rows/1/user_id"]
    twice = lines([job()]) + lines([job()]).replace(b"{", b'{"feature": "cv_draft", ', 1)
    errors = api.post("/jobs/bulk", content=twice, headers=NDJSON).json()["errors"]
    assert [error["field"] for error in errors] == ["rows/1/feature"]
    assert count(people) == 0


def test_what_is_no_bulk_is_refused(api: Api, people: People) -> None:
    for status, answer in (
        (422, api.post("/jobs/bulk", JOB)),
        (422, api.post("/jobs/bulk", [JOB] * (MOST_ROWS + 1))),
        (400, api.post("/jobs/bulk", content=b"[", headers={"content-type": "application/json"})),
        (400, api.post("/jobs/bulk")),
        (415, api.post("/jobs/bulk", content=b"a,b", headers={"content-type": "text/csv"})),
        (413, api.post("/jobs/bulk", content=b" " * (41 * 1024 * 1024), headers=NDJSON)),
        (413, api.post("/jobs/bulk", content=b" " * (41 * 1024 * 1024))),
    ):
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
    assert count(people) == 0
    assert people.application("jobs:read").post("/jobs/bulk", [JOB]).status_code == 403


def test_a_stream_of_any_length_is_stored_and_rung_for_as_far_as_the_window_goes(
    api: Api, people: People, redis_url: str
) -> None:
    """More rows than an array may have, in pieces that end anywhere."""
    body = lines(job(user_id=f"u{n}") for n in range(MOST_ROWS + 2345))

    def pieces() -> Iterator[bytes]:
        yield from (body[place : place + 70_001] for place in range(0, len(body), 70_001))

    answer = api.post("/jobs/bulk", content=pieces(), headers=NDJSON)
    assert answer.status_code == 202
    ids = answer.json()["ids"]
    assert answer.json()["accepted"] == len(set(ids)) == MOST_ROWS + 2345
    stored = people.run("SELECT id::text, user_id FROM jobs ORDER BY id")
    assert stored == [(id_, f"u{n}") for n, id_ in enumerate(ids)]
    ((lane,),) = people.run("SELECT DISTINCT lane FROM jobs")
    doorbells = Doorbells(redis_url)
    assert doorbells.waiting(lane) == 2000
    doorbells.close()
    assert people.run("SELECT count(*), max(id::text) FROM jobs WHERE rung_at IS NOT NULL") == [
        (2000, ids[1999])
    ]


def test_a_caller_who_leaves_stores_nothing(api: Api, people: People) -> None:
    def torn() -> Iterator[bytes]:
        yield lines([job()] * 20_000)
        raise ConnectionAbortedError

    with pytest.raises((ConnectionAbortedError, httpx.HTTPError)):
        api.post("/jobs/bulk", content=torn(), headers=NDJSON)
    until(lambda: people.run("SELECT count(*) FROM pg_class WHERE relname = 'bulk_jobs'") == [(0,)])
    assert count(people) == 0
    assert api.post("/jobs/bulk", [JOB]).json()["accepted"] == 1


def test_the_configuration_may_change_while_rows_come_in(api: Api, people: People) -> None:
    """What does not concern the rows is harmless; what they were checked against is a conflict."""
    changed = threading.Event()

    def bulks() -> int:
        return int(people.run("SELECT count(*) FROM pg_class WHERE relname = 'bulk_jobs'")[0][0])

    def slow() -> Iterator[bytes]:
        yield lines([job()] * 2000)
        assert changed.wait(20)
        yield lines([job()])

    def during(members: Json) -> httpx.Response:
        changed.clear()
        until(lambda: bulks() == 0)
        with ThreadPoolExecutor() as pool:
            sending = pool.submit(api.post, "/jobs/bulk", content=slow(), headers=NDJSON)
            until(lambda: bulks() == 1)
            assert api.patch("/features/tarot_reading", members).status_code == 200
            changed.set()
            return sending.result()

    assert during({"description": "Other"}).json()["accepted"] == 2001
    moved = during({"input_schema": {"type": "object"}})
    assert moved.status_code == 409
    assert "tarot_reading" in moved.json()["detail"]
    assert during({"is_active": False}).status_code == 422
    assert count(people) == 2001


def test_a_bulk_is_sent_once_with_a_key(api: Api, people: People) -> None:
    key = {"Idempotency-Key": "nightly"}
    body = lines(job(user_id=f"u{n}") for n in range(50))
    first = api.post("/jobs/bulk", content=body, headers=NDJSON | key)
    assert first.status_code == 202
    assert "idempotent-replayed" not in first.headers
    api.patch("/features/tarot_reading", {"is_active": False})
    again = api.post("/jobs/bulk", content=body, headers=NDJSON | key)
    assert again.status_code == 202
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json() == first.json()
    other = api.post("/jobs/bulk", content=body[:-1], headers=NDJSON | key)
    assert other.status_code == 422
    assert other.json()["errors"][0]["field"] == "Idempotency-Key"
    assert count(people) == 50
