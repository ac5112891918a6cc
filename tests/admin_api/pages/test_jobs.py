"""The list of jobs: what it shows, how it is narrowed, and what is done to several jobs at once."""

from __future__ import annotations

import re
from html import unescape
from typing import Any
from uuid import UUID

import httpx
import pytest
from psycopg.errors import QueryCanceled

from admin_api.pages.job_filters import ROWS, Filter
from tests.admin_api.conftest import Api, People
from tests.admin_api.logins import Person
from tests.admin_api.nouns import assigned
from tests.admin_api.pages.conftest import Browser, said
from tests.admin_api.test_jobs import JOB, finish
from workers import lists
from workers.client import Client

EVIL = "<script>alert(1)</script>"
ARABIC = "مستخدم"


def links(answer: httpx.Response) -> list[str]:
    """The jobs that the list shows."""
    return re.findall(r'<a href="/jobs/([0-9a-f-]{36})"', answer.text)


def href(answer: httpx.Response, rel: str) -> str:
    (found,) = re.findall(rf'href="([^"]*)" rel="{rel}"', answer.text)
    return unescape(found)


def states(people: People) -> dict[str, int]:
    return dict(
        people.run(
            "SELECT state, count(*) "
            "FROM (SELECT state FROM jobs UNION ALL SELECT state FROM job_history) AS found GROUP BY state"
        )
    )


def made(api: Api, count: int = 1, **members: Any) -> list[str]:
    return [api.made("/jobs", JOB | members)["id"] for _ in range(count)]


def test_what_there_is_is_listed_and_nothing_of_it_runs(desk: Browser, api: Api, people: People) -> None:
    assert "No jobs yet" in said(desk.get("/jobs"))
    assigned(api)
    (evil,) = made(api, user_id=EVIL)
    (arabic,) = made(api, user_id=ARABIC)
    finish(
        people,
        arabic,
        provider="acme",
        model="m0",
        input_tokens=1200,
        output_tokens=34,
        cost_usd="0.00123",
        latency_ms=431,
    )
    answer = desk.get("/jobs")
    assert links(answer) == [arabic, evil]
    assert f'<bdi dir="auto">{ARABIC}</bdi>' in answer.text
    for words in ("succeeded", "queued", "m0", "acme", "1.2k → 34", "$0.00123", "431 ms", EVIL):
        assert words in said(answer)
    assert "<script>alert" not in answer.text
    assert 'data-poll="5"' in answer.text
    assert "data-poll" not in desk.get("/jobs?q=fool").text


def test_the_list_is_narrowed_by_its_form(desk: Browser, api: Api, people: People) -> None:
    assigned(api)
    ann, bob = made(api, user_id="ann")[0], made(api, user_id="bob")[0]
    finish(people, bob, state="failed", error_class="auth", error_message="No luck")
    none: list[str] = []
    for query, wanted in (
        ("feature=&state=&user_id=&q=&since=&until=", [bob, ann]),
        ("state=failed", [bob]),
        ("state=failed&error_class=auth", [bob]),
        ("state=failed&error_class=quota", none),
        ("user_id=ann&feature=tarot_reading", [ann]),
        ("q=no+luck", [bob]),
        (f"q={ann}", [ann]),
        ("since=2999-01-01T00:00", none),
        ("until=2999-01-01T00:00", [bob, ann]),
    ):
        answer = desk.get(f"/jobs?{query}")
        assert links(answer) == wanted, query
        assert ("Nothing matches" in said(answer)) == (not wanted)
    typed = desk.get("/jobs?user_id=ann&since=2020-01-02T03:04").text
    assert 'value="ann"' in typed
    assert 'value="2020-01-02T03:04"' in typed


def test_what_cannot_be_read_is_told_at_its_field(desk: Browser) -> None:
    answer = desk.get("/jobs?since=tomorrow&user_id=ann")
    assert answer.status_code == 422
    assert 'id="since-error"' in answer.text
    assert 'aria-describedby="since-error"' in answer.text
    assert 'value="ann"' in answer.text
    assert "Nothing was searched" in said(answer)
    assert desk.get("/jobs?state=lost").status_code == 422
    assert desk.get("/jobs?cursor=x").status_code == 422


def test_a_search_that_takes_too_long_says_how_to_narrow_it(
    desk: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_long(*_: Any, **__: Any) -> None:
        raise QueryCanceled

    monkeypatch.setattr(Client, "search", too_long)
    answer = desk.get("/jobs?q=aries")
    assert answer.status_code == 422
    assert "takes longer than 5 s" in said(answer)
    assert 'value="aries"' in answer.text


def test_a_search_in_texts_goes_on_where_it_stopped(
    desk: Browser, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    assigned(api)
    (oldest,) = made(api, user_id="needle")
    made(api, 3)
    monkeypatch.setattr(lists, "_AT_ONCE", 2)
    monkeypatch.setattr("admin_api.jobs._READ_SECONDS", 0)
    answer = desk.get("/jobs?q=needle")
    assert "Nothing found so far" in said(answer)
    (onward,) = re.findall(r'href="(/jobs\?q=needle[^"]*cursor=[^"]*)"', answer.text)
    assert links(desk.get(unescape(onward))) == [oldest]


def test_pages_lead_to_older_jobs_and_back(desk: Browser, api: Api) -> None:
    assigned(api)
    ids = made(api, 2 * ROWS + 1)[::-1]
    first = desk.get("/jobs?feature=tarot_reading")
    second = desk.get(href(first, "next"))
    third = desk.get(href(second, "next"))
    assert links(first) + links(second) + links(third) == ids
    assert 'rel="next"' not in third.text
    assert "data-poll" not in second.text
    assert links(desk.get(href(third, "prev"))) == links(second)
    assert links(desk.get(href(desk.get(href(third, "prev")), "prev"))) == links(first)


def test_the_way_back_is_bounded() -> None:
    shown = Filter()
    for page in range(100):
        shown = Filter.model_validate(dict(httpx.URL(shown.older(f"c{page}")).params))
    steps = 0
    while shown.newer:
        shown = Filter.model_validate(dict(httpx.URL(shown.newer).params))
        steps += 1
    assert steps == 21
    assert shown.newer == ""


def test_the_selected_jobs_are_cancelled_and_repeated(desk: Browser, api: Api, people: People) -> None:
    assigned(api)
    first, second, third = made(api, 3)
    finish(people, third, state="failed", error_class="auth")
    sent = {"action": "cancel", "back": "/jobs?state=queued"}
    answer = desk.post("/jobs/selection", {**sent, "pick": [first, third]})
    assert answer.headers["location"] == "/jobs?state=queued"
    told = said(desk.get("/jobs?state=queued"))
    assert "1 job cancelled." in told
    assert "1 was left out" in told
    assert "has failed already" in told
    assert states(people) == {"queued": 1, "cancelled": 1, "failed": 1}

    desk.post("/jobs/selection", {**sent, "action": "retry", "pick": [first, second, third]})
    told = said(desk.get("/jobs"))
    assert "2 jobs enqueued again." in told
    assert "only a finished job can be retried" in told
    repeated = {str(row[0]) for row in people.run("SELECT retry_of FROM jobs WHERE retry_of IS NOT NULL")}
    assert repeated == {first, third}

    assert desk.post("/jobs/selection", {**sent, "action": "delete", "pick": [second]}).status_code in (
        303,
        422,
    )
    assert desk.post("/jobs/selection", {"action": "cancel", "pick": "x"}).status_code == 422
    assert states(people)["queued"] == 3


def test_all_that_match_are_acted_on_after_a_second_look(desk: Browser, api: Api, people: People) -> None:
    assigned(api)
    made(api, 3, user_id="ann")
    made(api, 1, user_id="bob")
    page = desk.get("/jobs?user_id=ann")
    (address,) = re.findall(r'href="(/jobs/matching\?user_id=ann&amp;action=cancel)"', page.text)
    look = desk.get(unescape(address))
    assert "3 jobs" in said(look)
    assert "ann" in said(look)
    assert states(people) == {"queued": 4}

    answer = desk.post(unescape(address))
    assert answer.headers["location"] == "/jobs?user_id=ann"
    assert "3 jobs cancelled." in said(desk.get("/jobs?user_id=ann"))
    assert states(people) == {"queued": 1, "cancelled": 3}

    assert "3 jobs" in said(desk.get("/jobs/matching?user_id=ann&action=retry"))
    desk.post("/jobs/matching?user_id=ann&action=retry")
    assert "3 jobs enqueued again." in said(desk.get("/jobs"))
    assert states(people) == {"queued": 4, "cancelled": 3}
    assert "0 jobs" in said(desk.get("/jobs/matching?user_id=ann&action=retry&state=queued"))


def test_without_a_filter_nothing_can_be_done_to_all(desk: Browser, api: Api, people: People) -> None:
    assigned(api)
    made(api)
    assert "All that match" not in said(desk.get("/jobs"))
    assert "No filter is set" in said(desk.get("/jobs/matching"))
    assert desk.post("/jobs/matching").status_code == 422
    assert states(people) == {"queued": 1}


def test_a_reader_sees_all_jobs_and_acts_on_the_own_ones(
    reader: Browser, api: Api, admin: Person, people: People
) -> None:
    assigned(api)
    theirs, own = made(api, 2)
    assert "data-pick" not in reader.get("/jobs").text
    people.run("UPDATE jobs SET caller_admin_id = %s WHERE id = %s", [UUID(admin.id), own])
    answer = reader.get("/jobs")
    assert links(answer) == [own, theirs]
    assert re.findall(r'name="pick" value="([^"]*)"', answer.text) == [own]
    reader.post("/jobs/selection", {"action": "cancel", "pick": [theirs, own]})
    assert "not enqueued in your name" in said(reader.get("/jobs"))
    assert states(people) == {"queued": 1, "cancelled": 1}
    assert "0 jobs, of those enqueued in your name" in said(reader.get("/jobs/matching?state=queued"))
