"""Providers' pages: the list, one provider, its key, and the form that tries before it saves."""

from __future__ import annotations

from typing import Any

import pytest

from tests.admin_api.conftest import Api, Json, People
from tests.admin_api.nouns import KEY, assigned, model_body, provider_body
from tests.admin_api.pages.conftest import Browser, said
from tests.sandbox import Sandbox


@pytest.fixture
def typed(sandbox: Sandbox) -> dict[str, Any]:
    """What a form sends for the sandbox."""
    return {
        "name": "Own server",
        "slug": "own",
        "type": "openai_compatible",
        "base_url": sandbox.openai,
        "api_key": KEY,
        "allow_private_network": "on",
        "is_active": "on",
    }


@pytest.fixture
def stored(api: Api, sandbox: Sandbox) -> Json:
    """The sandbox as a provider."""
    return api.made("/providers", provider_body("own", base_url=sandbox.openai, api_key=KEY))


def test_without_providers_the_page_says_what_to_do(desk: Browser, reader: Browser) -> None:
    page = desk.get("/providers")
    assert "No provider yet" in said(page)
    for address in ("/setup", "/catalog", "/providers/new"):
        assert f'href="{address}"' in page.text
    assert "/providers/new" not in reader.get("/providers").text


def test_readers_see_all_of_it_but_no_button_that_writes(api: Api, reader: Browser, stored: Json) -> None:
    api.made("/models", model_body(stored, input_price_per_1k="0.00015", output_price_per_1k="0.0006"))
    listed = reader.get("/providers")
    for words in ("Acme", "own", "1 model", f"key …{KEY[-4:]}", "unknown"):
        assert words in said(listed)
    page = reader.get(f"/providers/{stored['id']}")
    for words in ("Acme One", "$0.15", "$0.60", "closed in every worker", "none known"):
        assert words in said(page)
    assert 'method="post" action="/providers' not in page.text
    assert KEY not in page.text
    assert reader.get("/providers/new").status_code == 403
    assert reader.post(f"/providers/{stored['id']}").status_code == 403


def test_many_providers_are_shown_page_by_page(api: Api, desk: Browser) -> None:
    for number in range(26):
        api.made("/providers", provider_body(f"p{number}", name=f"Number {number}", sort_order=number))
    first = desk.get("/providers")
    assert "Number 23" in said(first)
    assert "Number 24" not in said(first)
    older = first.text.partition('href="/providers?cursor=')[2].partition('"')[0]
    assert "Number 25" in said(desk.get(f"/providers?cursor={older}"))


def test_what_is_typed_is_tried_and_not_stored(desk: Browser, people: People, typed: dict[str, Any]) -> None:
    page = desk.post("/providers/new", {**typed, "try": "yes"})
    assert page.status_code == 200
    assert "It works." in said(page)
    assert "Status 200" in said(page)
    assert 'value="Own server"' in page.text
    assert KEY not in page.text
    assert "type it again before you save" in said(page)
    assert people.run("SELECT count(*) FROM ai_providers") == [(0,)]


def test_a_key_that_does_not_work_is_told_before_it_is_saved(desk: Browser, typed: dict[str, Any]) -> None:
    page = desk.post("/providers/new", {**typed, "api_key": "bad-key", "try": "yes"})
    assert "It does not work." in said(page)
    assert "Status 401" in said(page)
    page = desk.post("/providers/new", {**typed, "slug": "No Slug!", "try": "yes"})
    assert page.status_code == 422
    verdict = page.text.partition('id="verdict"')[2]
    assert 'href="#field-slug"' in verdict


def test_a_provider_is_added_and_changed(desk: Browser, people: People, typed: dict[str, Any]) -> None:
    address = desk.post("/providers/new", typed).headers["location"]
    assert "Own server was added" in said(desk.get(address))
    evil = '"><script>alert(1)</script>'
    answer = desk.post(f"{address}/edit", {**typed, "api_key": "", "name": evil, "description": "مزود"})
    assert answer.headers["location"] == address
    assert people.run("SELECT name, description, key_last4 FROM ai_providers") == [(evil, "مزود", KEY[-4:])]
    page = desk.get(address)
    assert "<script>alert" not in page.text
    assert '<dd dir="auto">مزود</dd>' in page.text


def test_a_change_is_tried_with_the_stored_key_at_the_stored_address_only(
    desk: Browser, sandbox: Sandbox, stored: Json, typed: dict[str, Any]
) -> None:
    changed = {**typed, "api_key": "", "try": "yes"}
    address = f"/providers/{stored['id']}/edit"
    assert "It works." in said(desk.post(address, changed))
    elsewhere = {**changed, "base_url": sandbox.anthropic}
    before = sandbox.calls()["count"]
    assert "Type the key to try another address" in said(desk.post(address, elsewhere))
    assert sandbox.calls()["count"] == before


def test_a_stored_provider_is_tried(desk: Browser, sandbox: Sandbox, stored: Json) -> None:
    address = f"/providers/{stored['id']}"
    assert "It works." in said(desk.post(address))
    sandbox.fault("status", status=503)
    page = desk.post(address)
    assert page.status_code == 200
    assert "It does not work." in said(page)
    assert "Status 503" in said(page)


def test_a_new_key_is_tried_before_it_takes_the_old_ones_place(
    desk: Browser, people: People, stored: Json
) -> None:
    def key() -> Any:
        return people.run("SELECT key_version, key_last4 FROM ai_providers")[0]

    address = f"/providers/{stored['id']}"
    page = desk.post(f"{address}/rotate", {"api_key": "bad-key"})
    assert page.status_code == 422
    assert 'id="field-api_key-error"' in page.text
    assert "The old key stays." in said(page)
    assert key() == (1, KEY[-4:])
    assert desk.post(f"{address}/rotate", {"api_key": "fresh-key-5678"}).status_code == 303
    assert "ends in 5678" in said(desk.get(address))
    assert key() == (2, "5678")
    assert desk.post(f"{address}/rotate", {"api_key": "bad-key", "force": "on"}).status_code == 303
    assert "Stored although trying it failed" in said(desk.get(address))


def test_a_provider_is_switched_off_and_on(desk: Browser, people: People, stored: Json) -> None:
    address = f"/providers/{stored['id']}"
    desk.post(f"{address}/deactivate")
    assert people.run("SELECT is_active FROM ai_providers") == [(False,)]
    page = desk.get(address)
    assert "no job calls it" in said(page)
    assert f'action="{address}/activate"' in page.text
    desk.post(f"{address}/activate")
    assert people.run("SELECT is_active FROM ai_providers") == [(True,)]


def test_a_provider_in_use_is_not_deleted_but_may_be_switched_off(
    api: Api, desk: Browser, people: People
) -> None:
    assigned(api, "tarot_reading")
    used = api.get("/providers").json()["items"][0]
    page = desk.post(f"/providers/{used['id']}/delete", {"back": "/providers"})
    assert page.status_code == 409
    assert 'href="/assignments/tarot_reading"' in page.text
    assert "Deactivate instead" in said(page)
    model = api.get("/models").json()["items"][0]
    api.delete(f"/feature-assignments/{api.get('/feature-assignments').json()['items'][0]['id']}")
    page = desk.post(f"/providers/{used['id']}/delete")
    assert "It still has models" in said(page)
    api.delete(f"/models/{model['id']}")
    assert desk.post(f"/providers/{used['id']}/delete").headers["location"] == "/providers"
    assert people.run("SELECT count(*) FROM ai_providers") == [(0,)]


def test_last_errors_and_breakers_are_shown(desk: Browser, people: People, stored: Json) -> None:
    people.run(
        "INSERT INTO provider_health (provider_id, last_error_at, last_error_class, last_error_message) "
        "VALUES (%s, now(), 'server_error', 'تعذر <b>')",
        [stored["id"]],
    )
    page = desk.get(f"/providers/{stored['id']}")
    assert "server error" in said(page)
    assert 'dir="auto">تعذر &lt;b&gt;' in page.text


def test_the_last_probe_is_told(desk: Browser, api: Api, people: People, stored: Json) -> None:
    path = f"/providers/{stored['id']}"
    assert "Last probe none yet" in said(desk.get(path))
    assert api.get(f"{path}/health").json()["last_probe"] is None
    people.run(
        "INSERT INTO provider_health (provider_id, last_probe_at, last_probe_ok, last_probe_ms) "
        "VALUES (%s, now(), true, 34)",
        [stored["id"]],
    )
    assert "answered after 34 ms" in said(desk.get(path))
    people.run("UPDATE provider_health SET last_probe_ok = false, last_probe_error = 'تعذر <b>'")
    assert 'dir="auto">تعذر &lt;b&gt;' in desk.get(path).text
    health = api.get(f"{path}/health").json()
    assert (health["last_probe"]["ok"], health["last_probe"]["error"]) == (False, "تعذر <b>")
    assert health["status"] == "unknown", "a probe is no call"
