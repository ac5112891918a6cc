"""The audit page: what changed, filters, pages, and the chain."""

from __future__ import annotations

import re

import psycopg

from store import audit
from store.audit import Event
from store.settings import Settings
from tests.admin_api.conftest import Api, People
from tests.admin_api.nouns import KEY, provider_body
from tests.admin_api.pages.conftest import Browser, said

EVIL = '"><script>alert(1)</script>'


def _recorded(settings: Settings, *events: Event) -> None:
    with psycopg.connect(settings.database()) as db:
        for event in events:
            audit.record(db, event)


def test_a_change_is_told_by_what_differs(reader: Browser, api: Api) -> None:
    made = api.made(
        "/providers", provider_body("own", api_key=KEY, description="one\ntwo\nthree\nfour\nfive")
    )
    api.patch(f"/providers/{made['id']}", {"name": "Other", "description": "one\ntwo\nthree\n4\nfive"})
    page = reader.get("/audit?noun=providers&action=update")
    text = said(page)
    assert "<ins>Other</ins>" in page.text
    assert "<del>four</del>" in page.text
    assert "<ins>4</ins>" in page.text
    assert "<ins>two</ins>" not in page.text
    assert "base_url" not in text
    assert KEY not in reader.get("/audit").text
    created = reader.get("/audit?noun=providers&action=create")
    (whole,) = re.findall(r'<a href="(/audit/\d+)">\d+ more lines', created.text)
    assert "sealed_key (secret)" in said(reader.get(whole))


def test_rows_lead_to_what_they_are_about(reader: Browser, api: Api) -> None:
    made = api.made("/providers", provider_body("own"))
    page = reader.get("/audit?noun=providers")
    assert f'href="/providers/{made["id"]}"' in page.text
    (row,) = re.findall(r'href="(/audit/\d+)"><span class="sr">', page.text)
    shown = reader.get(row)
    assert "base_url" in said(shown)
    assert f'href="/providers/{made["id"]}"' in shown.text
    api.delete(f"/providers/{made['id']}")
    assert "/providers/" not in reader.get("/audit?action=delete").text
    assert reader.get("/audit/99999").status_code == 404


def test_hostile_and_arabic_text_is_text(reader: Browser, settings: Settings) -> None:
    event = Event(
        "import", EVIL, EVIL, actor=f"application {EVIL}", before={EVIL: "مرحبا"}, after={EVIL: [EVIL] * 40}
    )
    _recorded(settings, event)
    listed = reader.get("/audit?action=import")
    (row,) = re.findall(r'href="(/audit/\d+)"><span class="sr">', listed.text)
    for page in (listed, reader.get(row)):
        assert "<script>alert" not in page.text
        assert "&lt;script&gt;" in page.text
        assert '<dd dir="auto"' in page.text
    assert "<script>alert" not in reader.get("/audit", params={"actor": EVIL, "noun_id": EVIL}).text


def test_filters_narrow_and_stay(reader: Browser, settings: Settings) -> None:
    _recorded(
        settings,
        Event("export", "usage", "a", actor="cli"),
        Event("export", "configuration", "b", actor="system"),
        Event("import", "configuration", "b", actor="cli"),
    )

    def found(**filters: str) -> list[str]:
        page = reader.get("/audit", params={"actor": "", "action": "", "since": "", **filters})
        assert page.status_code == 200
        return re.findall(r"<b>([\w-]+)</b>", page.text.partition('<ol class="acts">')[2])

    assert found(actor="cli") == ["configuration", "usage"]
    assert found(action="export") == ["configuration", "usage"]
    assert found(noun="configuration", actor="cli") == ["configuration"]
    assert found(noun_id="b") == ["configuration", "configuration"]
    assert found(actor="cli", since="2020-01-01T00:00") == ["configuration", "usage"]
    assert found(actor="cli", until="2020-01-01T00:00") == []
    page = reader.get("/audit?noun=configuration&since=2020-01-01T00:00")
    assert 'value="configuration"' in page.text
    assert 'value="2020-01-01T00:00"' in page.text
    assert "Nothing matches" in said(reader.get("/audit?noun=nothing"))
    assert reader.get("/audit?since=yesterday").status_code == 422


def test_pages_hold_every_row_once_and_keep_the_filters(reader: Browser, settings: Settings) -> None:
    _recorded(settings, *(Event("export", "usage", f"n{n}", actor="cli") for n in range(40)))
    seen: list[str] = []
    at = "/audit?actor=cli"
    while at:
        page = reader.get(at)
        seen += re.findall(r"<code>(n\d+)</code>", page.text)
        older = re.search(r'href="(/audit\?[^"]*)" rel="next"', page.text)
        at = older.group(1).replace("&amp;", "&") if older else ""
        assert not at or "actor=cli" in at
    assert seen == [f"n{n}" for n in range(39, -1, -1)]


def test_the_chain_is_verified_on_demand(reader: Browser, settings: Settings, people: People) -> None:
    assert 'href="/audit/verify"' in reader.get("/audit").text
    _recorded(settings, *(Event("export", "usage", actor="cli") for _ in range(3)))
    ((rows,),) = people.run("SELECT count(*) FROM audit_log")
    good = said(reader.get("/audit/verify"))
    assert "The chain is whole" in good
    assert f"{rows} rows checked" in good
    people.run("UPDATE audit_log SET actor = 'nobody' WHERE id = %s", [rows - 1])
    bad = reader.get("/audit/verify")
    assert "The chain is broken" in said(bad)
    assert f'href="/audit/{rows - 1}"' in bad.text
    assert "was altered" in said(bad)
