"""Alerts: the open ones, those that somebody knows of, and the step between."""

from __future__ import annotations

import re

from store.ids import new_id
from tests.admin_api.conftest import People
from tests.admin_api.logins import Person
from tests.admin_api.pages.conftest import Browser, said

EVIL = "<script>alert(1)</script>"


def raised(people: People, kind: str, noun: str, message: str) -> str:
    """What the alert is about."""
    noun_id = str(new_id())
    people.run("SELECT raise_alert(%s, %s, %s, %s, 3)", [kind, noun, noun_id, message])
    return noun_id


def test_where_nothing_is_wrong_the_page_says_so(desk: Browser) -> None:
    assert "All quiet" in said(desk.get("/alerts"))
    assert "Nothing here" in said(desk.get("/alerts?acknowledged=true&kind=poison_job"))


def test_open_alerts_lead_to_what_they_are_about(desk: Browser, people: People) -> None:
    job = raised(people, "poison_job", "jobs", EVIL)
    raised(people, "lane_unserved", "queues", "لا يوجد عامل")
    feature = raised(people, "cost_anomaly", "features", "Dear.")
    raised(people, "cost_anomaly", "usage", "All dear.")
    answer = desk.get("/alerts")
    for address in (f"/jobs/{job}", f"/usage?days=7&amp;feature={feature}", "/usage?days=7"):
        assert f'href="{address}"' in answer.text
    assert '<p dir="auto">لا يوجد عامل</p>' in answer.text
    assert "3 times" in said(answer)
    assert "<script>alert" not in answer.text
    only = said(desk.get("/alerts?kind=poison_job"))
    assert EVIL in only
    assert "لا يوجد عامل" not in only
    assert desk.get("/alerts?kind=none").status_code == 422


def test_an_alert_is_acknowledged(desk: Browser, people: People, keeper: Person) -> None:
    raised(people, "key_refused", "providers", "The key is refused.")
    (action,) = re.findall(r'action="(/alerts/[^"]*/acknowledge)"', desk.get("/alerts").text)
    assert desk.post(action, {"back": "/alerts?kind="}).headers["location"] == "/alerts?kind="
    assert "All quiet" in said(desk.get("/alerts"))
    known = desk.get("/alerts?acknowledged=true")
    assert f"by {keeper.email}" in said(known)
    assert "/acknowledge" not in known.text
    assert "The key is refused." in said(desk.get("/alerts?acknowledged=any"))
    assert people.run("SELECT acknowledged_by::text FROM alerts") == [(keeper.id,)]


def test_a_reader_finds_no_button(reader: Browser, people: People) -> None:
    raised(people, "key_refused", "providers", "The key is refused.")
    answer = reader.get("/alerts")
    assert "The key is refused." in said(answer)
    assert "/acknowledge" not in answer.text
    assert reader.post(f"/alerts/{new_id()}/acknowledge").status_code == 403
