"""One's own account: password, second factor, sessions and keys, for both roles."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import unescape

import httpx
import pytest

from store.settings import Settings
from tests.admin_api.conftest import Api, Json, People
from tests.admin_api.logins import PASSWORD, Person, no_waiting, person
from tests.admin_api.nouns import provider_body
from tests.admin_api.pages.conftest import Browse, Browser, said

Serve = Callable[..., httpx.Client]

FACTOR = "/account/second-factor"
CONFIRM = f"{FACTOR}/confirm"
OTHER = "other words that are longer"
OWN = "sk-canary-own-7f3a"


# --- password -----------------------------------------------------------------------------------------


def test_the_password_is_changed(reader: Browser, admin: Person) -> None:
    typed = {"current": PASSWORD, "new": OTHER, "again": OTHER}
    elsewhere = admin.api()
    assert reader.post("/account/password", typed).headers["location"] == "/account"
    assert "password is changed" in said(reader.get("/account"))
    assert elsewhere.get("/auth/me").status_code == 401
    assert admin.login().status_code == 401
    assert admin.login(password=OTHER).status_code == 200


@pytest.mark.parametrize(
    ("typed", "field"),
    [
        ({"current": "not my password", "new": OTHER, "again": OTHER}, "current"),
        ({"current": PASSWORD, "new": "short", "again": "short"}, "new"),
        ({"current": PASSWORD, "new": OTHER, "again": OTHER + "!"}, "again"),
        ({"current": "", "new": OTHER, "again": OTHER}, "current"),
    ],
)
def test_a_password_that_is_refused_stands_at_its_field(
    reader: Browser, admin: Person, typed: dict[str, str], field: str
) -> None:
    answer = reader.post("/account/password", typed)
    assert answer.status_code == 422
    assert re.findall(r'id="field-(\w+)-error"', answer.text) == [field]
    assert OTHER not in answer.text
    assert admin.login().status_code == 200


# --- second factor ------------------------------------------------------------------------------------


def _begun(browser: Browser, who: Person) -> httpx.Response:
    page = browser.post(FACTOR)
    assert page.status_code == 200
    found = re.search(r'id="secret">([A-Z2-7 ]+)<', page.text)
    assert found is not None
    who.secret = found.group(1).replace(" ", "")
    return page


def _kept(page: httpx.Response) -> str:
    found = re.search(r'name="kept" value="([^"]+)"', page.text)
    assert found is not None
    return unescape(found.group(1))


def _codes(page: httpx.Response) -> list[str]:
    return re.findall(r"<li><code>([A-Z2-7-]{19})</code>", page.text)


def test_a_second_factor_from_the_first_look_to_the_next_login(
    reader: Browser, browse: Browse, admin: Person, people: People
) -> None:
    assert "off" in said(reader.get("/account"))
    page = _begun(reader, admin)
    codes = _codes(page)
    assert len(codes) == 10
    assert page.headers["cache-control"] == "no-store"
    assert 'data-here="/account"' in page.text
    assert '<svg viewBox="0 0' in page.text
    assert " style=" not in page.text
    done = reader.post(CONFIRM, {"otp": admin.code(-1), "kept": _kept(page)})
    assert done.headers["location"] == "/account"
    account = said(reader.get("/account"))
    assert "Your second factor is on" in account
    assert "10 recovery codes left" in account

    no_waiting(people)
    browser = browse()
    browser.log_in(admin)
    entered = browser.post("/login/code", {"code": codes[0], "csrf": None})
    assert entered.headers["location"] == "/overview"
    assert "9 recovery codes left" in said(browser.get("/account"))


def test_a_wrong_code_says_so_and_loses_neither_secret_nor_codes(reader: Browser, admin: Person) -> None:
    page = _begun(reader, admin)
    wrong = reader.post(CONFIRM, {"otp": "000000", "kept": _kept(page)})
    assert wrong.status_code == 422
    assert 'id="field-otp-error"' in wrong.text
    assert "not that of the new second factor" in said(wrong)
    assert _codes(wrong) == _codes(page)
    assert admin.secret in wrong.text.replace(" ", "")
    assert reader.post(CONFIRM, {"otp": admin.code(), "kept": _kept(wrong)}).status_code == 303


def test_the_secret_is_not_shown_again(reader: Browser, admin: Person) -> None:
    page = _begun(reader, admin)
    kept = _kept(page)
    assert admin.secret not in kept
    for path in ("/account", FACTOR):
        assert admin.secret not in reader.get(path).text.replace(" ", "")
    assert reader.get(FACTOR).headers["location"] == "/account"


def test_what_was_kept_for_one_session_opens_in_no_other(
    reader: Browser, browse: Browse, admin: Person, people: People
) -> None:
    page = _begun(reader, admin)
    thief = browse().entered(person(people, "admin"))
    _begun(thief, person(people, "admin"))
    for kept in (_kept(page), "x", ""):
        answer = thief.post(CONFIRM, {"otp": "000000", "kept": kept})
        assert admin.secret not in answer.text.replace(" ", "")


def test_a_super_admin_without_one_may_only_enrol(
    browse: Browse, http: httpx.Client, people: People, keeper: Person
) -> None:
    browser = browse()
    browser.log_in(keeper)
    led = browser.get("/overview")
    assert led.headers["location"] == "/account"
    page = browser.get("/account")
    assert page.status_code == 200
    assert re.findall(r'<form[^>]*action="([^"]+)"', page.text) == ["/logout", FACTOR]
    assert "/people" not in page.text
    begun = _begun(browser, keeper)
    assert browser.post(CONFIRM, {"otp": "123", "kept": _kept(begun)}).status_code == 422
    assert browser.post(CONFIRM, {"otp": keeper.code(), "kept": _kept(begun)}).status_code == 303
    assert browser.get("/people").status_code == 200


def test_who_did_not_give_the_factor_cannot_replace_it(
    reader: Browser, admin: Person, people: People
) -> None:
    people.run(
        "INSERT INTO admin_second_factors (id, admin_id, sealed_secret, confirmed_at) "
        "VALUES (gen_random_uuid(), %s, 'x', now())",
        [admin.id],
    )
    page = reader.get("/account")
    assert f'action="{FACTOR}"' not in page.text
    assert "You logged in without it" in said(page)
    assert reader.post(FACTOR).status_code == 403


# --- sessions -----------------------------------------------------------------------------------------


def test_sessions_are_told_apart_and_ended(reader: Browser, browse: Browse, admin: Person) -> None:
    program = admin.api(headers={"User-Agent": "curl/8.5.0"})
    other = browse().entered(admin)
    page = reader.get("/account")
    assert "curl 8.5 API" in said(page)
    assert said(page).count("this one") == 1
    ids = re.findall(r'action="(/account/sessions/[0-9a-f-]+/end)"', page.text)
    assert len(ids) == 3
    assert reader.post(ids[1]).headers["location"] == "/account"
    assert program.get("/auth/me").status_code == 401
    assert reader.post("/account/sessions/end-others").headers["location"] == "/account"
    assert other.get("/account").status_code == 303
    page = reader.get("/account")
    assert page.status_code == 200
    assert "end-others" not in page.text


def test_nobody_ends_anothers_session(reader: Browser, people: People) -> None:
    other = person(people, "admin")
    session = other.api()
    ((session_id,),) = people.run("SELECT id FROM admin_sessions WHERE admin_id = %s", [other.id])
    assert reader.post(f"/account/sessions/{session_id}/end").status_code == 404
    assert session.get("/auth/me").status_code == 200


# --- keys ---------------------------------------------------------------------------------------------


@pytest.fixture
def provider(api: Api) -> Json:
    """One that shares its key with no admin."""
    return api.made("/providers", provider_body("own", allow_shared_for_normal_admins=False))


def test_an_admin_brings_a_key_changes_and_removes_it(
    reader: Browser, people: People, provider: Json
) -> None:
    page = reader.get("/account")
    assert 'title="NO_ACCESS"' in page.text
    at = f"/account/keys/{provider['id']}"
    assert f'href="{at}"' in page.text
    stored = reader.post(at, {"api_key": OWN, "monthly_limit": "5000", "is_active": "on"})
    assert stored.headers["location"] == "/account"
    page = reader.get("/account")
    assert 'title="AVAILABLE_PERSONAL"' in page.text
    assert "0 of 5,000" in said(page)
    form = reader.get(at)
    assert OWN not in page.text + form.text
    assert OWN[-4:] in said(form)

    assert reader.post(at, {"api_key": "", "use_shared_api": "on"}).status_code == 303
    assert people.run(
        "SELECT key_version, use_shared_api, is_active, monthly_limit FROM admin_provider_settings"
    ) == [(1, True, False, None)]
    assert reader.post(f"{at}/remove").headers["location"] == "/account"
    assert people.run("SELECT count(*) FROM admin_provider_settings") == [(0,)]


def test_a_key_that_is_refused_stands_at_its_field(reader: Browser, provider: Json) -> None:
    at = f"/account/keys/{provider['id']}"
    missing = reader.post(at, {"api_key": "", "is_active": "on"})
    assert missing.status_code == 422
    assert 'id="field-api_key-error"' in missing.text
    wrong = reader.post(at, {"api_key": OWN, "monthly_limit": "many"})
    assert 'id="field-monthly_limit-error"' in wrong.text
    assert OWN not in wrong.text


def test_a_disabled_provider_says_why(reader: Browser, api: Api, provider: Json) -> None:
    api.patch(f"/providers/{provider['id']}", {"is_active": False})
    page = reader.get("/account")
    assert 'title="DISABLED"' in page.text
    assert "The provider is inactive" in said(page)


def test_without_providers_the_page_says_so(reader: Browser) -> None:
    assert "No provider yet" in said(reader.get("/account"))
    assert reader.get("/account/keys/01990000-0000-7000-8000-000000000000").status_code == 404


def test_a_super_admin_brings_a_key_too(desk: Browser, provider: Json, people: People) -> None:
    assert 'title="AVAILABLE_SHARED"' in desk.get("/account").text
    at = f"/account/keys/{provider['id']}"
    assert desk.post(at, {"api_key": OWN, "is_active": "on"}).status_code == 303
    assert 'title="AVAILABLE_PERSONAL"' in desk.get("/account").text


def test_writing_needs_the_second_factor_that_the_api_asks_for(
    serve: Serve, settings: Settings, browse: Browse, keeper: Person, provider: Json
) -> None:
    browser = browse(serve(settings))
    browser.log_in(keeper)
    for path in (f"/account/keys/{provider['id']}", "/account/password", "/account/sessions/end-others"):
        assert browser.post(path, {}).headers["location"] == "/account"
    assert keeper.login().status_code == 200
