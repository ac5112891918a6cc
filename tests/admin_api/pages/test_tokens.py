"""Tokens: made, shown once, revoked; read only for admins."""

from __future__ import annotations

import re

from tests.admin_api.conftest import People
from tests.admin_api.logins import Person
from tests.admin_api.pages.conftest import Browser, said

TYPED = {"name": "web shop", "owner_admin_id": "", "scopes": ["jobs:enqueue", "jobs:read"], "expires_at": ""}


def _token(text: str) -> list[str]:
    return re.findall(r"orr_[\w-]{43}", text)


def test_a_token_is_shown_once_and_works(desk: Browser, people: People) -> None:
    assert "No token yet" in said(desk.get("/tokens"))
    answer = desk.post("/tokens/new", TYPED)
    assert answer.status_code == 200
    (token,) = _token(answer.text)
    assert people.nobody(token).get("/jobs").status_code == 200
    assert "no-store" in answer.headers["cache-control"]
    assert "set-cookie" not in answer.headers
    assert 'data-here="/tokens"' in answer.text, "loading the page again asks for the list"
    assert "$ORRERY_TOKEN" in said(answer)
    assert "/api/v1/jobs" in said(answer)
    for path in ("/tokens", "/tokens/new", "/audit"):
        assert not _token(desk.get(path).text)
    assert f"…{token[-4:]}" in said(desk.get("/tokens"))


def test_the_example_suits_the_scopes(desk: Browser) -> None:
    assert "/metrics" in said(desk.post("/tokens/new", {**TYPED, "scopes": ["metrics"]}))
    assert "Content-Type" not in said(desk.post("/tokens/new", {**TYPED, "scopes": ["jobs:read"]}))


def test_a_token_has_an_owner_and_an_end(desk: Browser, people: People, admin: Person) -> None:
    form = desk.get("/tokens/new")
    assert f'<option value="{admin.id}">{admin.email}</option>' in form.text
    desk.post("/tokens/new", {**TYPED, "owner_admin_id": admin.id, "expires_at": "2999-01-01T10:00"})
    ((owner, expires, scopes),) = people.run(
        "SELECT owner_admin_id::text, expires_at, scopes FROM app_tokens"
    )
    assert (owner, expires.isoformat()[:16]) == (admin.id, "2999-01-01T10:00")
    assert scopes == ["jobs:enqueue", "jobs:read"]
    assert admin.email in said(desk.get("/tokens"))


def test_what_makes_no_token_stands_at_its_field(desk: Browser, people: People) -> None:
    typed = {"name": "\n", "owner_admin_id": "", "expires_at": "2001-01-01T10:00"}
    answer = desk.post("/tokens/new", typed)
    assert answer.status_code == 422
    assert 'id="field-name-error"' in answer.text
    assert 'id="field-scopes-error"' in answer.text
    assert "give it a scope" in said(answer)
    past = desk.post("/tokens/new", {**TYPED, "expires_at": "2001-01-01T10:00"})
    assert "This time has passed" in said(past)
    assert 'id="field-expires_at-error"' in past.text
    assert people.run("SELECT count(*) FROM app_tokens") == [(0,)]


def test_a_token_is_revoked(desk: Browser, people: People) -> None:
    (token,) = _token(desk.post("/tokens/new", TYPED).text)
    (action,) = re.findall(r'action="(/tokens/[^"]+/revoke)"', desk.get("/tokens").text)
    assert desk.post(action).headers["location"] == "/tokens"
    assert people.nobody(token).get("/jobs").status_code == 401
    page = desk.get("/tokens")
    assert "revoked" in said(page)
    assert action not in page.text


def test_a_tokens_name_is_text(desk: Browser) -> None:
    name = "<script>alert(1)</script> متجر"
    assert "<script>alert" not in desk.post("/tokens/new", {**TYPED, "name": name}).text
    page = desk.get("/tokens").text
    assert "<script>alert" not in page
    assert "<bdi>&lt;script&gt;alert(1)&lt;/script&gt; متجر</bdi>" in page


def test_an_admin_reads_and_writes_nothing(desk: Browser, reader: Browser, people: People) -> None:
    desk.post("/tokens/new", TYPED)
    page = reader.get("/tokens")
    assert "web shop" in said(page)
    assert re.findall(r'<form[^>]*action="([^"]+)"', page.text) == ["/logout"]
    assert 'href="/tokens/new"' not in page.text
    assert reader.get("/tokens/new").status_code == 403
    assert reader.post("/tokens/new", TYPED).status_code == 403
    ((token_id,),) = people.run("SELECT id FROM app_tokens")
    assert reader.post(f"/tokens/{token_id}/revoke").status_code == 403
    assert people.run("SELECT count(*) FROM app_tokens WHERE revoked_at IS NULL") == [(1,)]
