"""What every page has: its guard, its policy, its errors, and forms that are shown again."""

from __future__ import annotations

import base64
import logging
import re
from collections.abc import Callable
from typing import Any
from uuid import UUID

import httpx
import pytest
from fastapi import APIRouter, Request, Response
from pydantic import SecretStr

from admin_api.browser import csrf_token
from admin_api.fields import PATTERNS, SLUG
from admin_api.pages import route
from admin_api.pages.controls import Tweak
from admin_api.pages.forms import Form, Group
from admin_api.pages.render import page
from admin_api.pages.route import PageRoute, Sent, changes, done, shown_at
from admin_api.providers import ProviderBody, change_provider, create_provider, get_provider
from admin_api.refusals import Conflict
from admin_api.security import Current, UnguardedRoute, allow_reading, allow_writing
from admin_api.services import Using
from admin_api.sessions import Reading, Writing
from store.settings import Settings
from tests.admin_api.conftest import Api, People
from tests.admin_api.logins import Person
from tests.admin_api.nouns import KEY, provider_body
from tests.admin_api.pages.conftest import HTML, Browse, Browser, said

Serve = Callable[..., httpx.Client]
router = APIRouter(route_class=PageRoute)

PROVIDER = Form(
    ProviderBody,
    Group("Account", "name", "slug", "type", "base_url", "api_key", "capabilities", "is_active"),
    Group("More", "settings", "timeout_seconds", "requests_per_minute", "description", is_advanced=True),
    type=Tweak(choices=[("openai_compatible", "OpenAI-compatible"), ("gemini", "Gemini")]),
)


def _form(request: Request, stored: Any = None, **hints: str) -> Response:
    view = PROVIDER.view(request, stored, hints=hints)
    return page(
        request,
        "form.html",
        title="Provider",
        lead="",
        crumbs=[("Providers", "/providers")],
        form=view,
        submit="Save",
        cancel="",
    )


@router.get("/test/new")
@allow_writing
def new(request: Request) -> Response:
    return _form(request)


@router.post("/test/new")
@allow_writing
def create(sent: Sent, session: Writing, caller: Current, using: Using) -> Response:
    made = create_provider(PROVIDER.body(sent), session, caller, using)
    return done(f"/test/{made.id}", "Provider saved.")


@router.get("/test/{provider_id}")
@allow_reading
def edit(provider_id: UUID, request: Request, session: Reading) -> Response:
    stored = get_provider(provider_id, session)
    return _form(request, stored, api_key=f"Ends in {stored.api_key_last4}.")


@router.post("/test/{provider_id}")
@allow_writing
@changes(get_provider)
def save(provider_id: UUID, sent: Sent, session: Writing, caller: Current, using: Using) -> Response:
    change_provider(provider_id, PROVIDER.changes(sent), session, caller, using)
    return done(f"/test/{provider_id}", "Provider saved.")


@router.post("/test/{provider_id}/refused")
@allow_writing
def refused(provider_id: UUID) -> Response:
    raise Conflict("Not now.", hint="Send later: true.")


@router.post("/test/{provider_id}/shown-again")
@allow_writing
@shown_at("/test/{provider_id}")
def shown_again(provider_id: UUID) -> Response:
    raise Conflict("Not there either.")


@pytest.fixture
def site(serve: Serve, local: Settings) -> httpx.Client:
    """An installation on one machine, with the pages above."""
    return serve(local, router)


@pytest.fixture
def desk(site: httpx.Client, browse: Browse, keeper: Person) -> Browser:
    """A super admin at a browser."""
    return browse(site).entered(keeper)


TYPED = {
    "name": "Own server",
    "slug": "own",
    "type": "openai_compatible",
    "base_url": "https://models.example/v1",
    "api_key": KEY,
    "capabilities": ["text", "vision"],
    "is_active": "on",
    "settings": '{"max_tokens_field": "max_completion_tokens"}',
    "timeout_seconds": "12.5",
    "requests_per_minute": "",
    "description": "",
}


def test_a_page_that_names_nobody_cannot_be_made() -> None:
    with pytest.raises(UnguardedRoute):

        @APIRouter(route_class=PageRoute).get("/open")
        def leak() -> None: ...


def test_every_page_says_who_may_see_it_and_none_is_in_the_api_document(http: httpx.Client) -> None:
    rules = route.pages()
    public = {path for path, rule in rules.items() if rule.is_public}
    assert public == {"/", "/login", "/login/code"}
    assert not set(rules) & set(http.get("/openapi.json").json()["paths"])


def test_pages_run_nothing_but_their_own_files(browse: Browse, admin: Person) -> None:
    browser = browse().entered(admin)
    for path in ("/login", "/overview", "/nowhere"):
        answer = browser.get(path) if path != "/login" else browse().get(path)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert not re.search(r"\s(style|on\w+)=", answer.text)
        assert not re.search(r"<(script|style)(?![^>]*src=)[^>]*>", answer.text)
        assert not re.search(r'(src|href)="(https?:)?//', answer.text)
    assert browser.get("/overview").headers["cache-control"] == "no-store"


def test_files_are_kept_for_ever_under_the_address_that_pages_name(browse: Browse) -> None:
    browser = browse()
    named = re.findall(r'"(/static/[\w.+]+\?v=\w+)"', browser.get("/login").text)
    types = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
    assert len(named) == 3
    for address in named:
        answer = browser.get(address)
        assert answer.headers["content-type"].startswith(types[address.partition("?")[0].rpartition(".")[2]])
        assert "immutable" in answer.headers["cache-control"]
        assert answer.headers["content-encoding"] == "gzip"
        again = browser.get(address, headers={"If-None-Match": answer.headers["etag"]})
        assert again.status_code == 304
        assert browser.get(address.partition("?")[0]).headers["cache-control"] == "no-cache"
        assert browser.get(address + "0").headers["cache-control"] == "no-cache"
    for unknown in (
        "nothing.css",
        "orrery.css+nothing.css",
        "orrery.css+orrery.css",
        "orrery.css+orrery.js",
        "+",
    ):
        assert browser.get(f"/static/{unknown}").status_code == 404
    assert browser.get("/static/..%2Froute.py").status_code == 404


@pytest.mark.parametrize("token", [None, "", "0" * 64])
def test_a_form_without_its_sessions_token_is_refused(
    desk: Browser, people: People, token: str | None
) -> None:
    answer = desk.post("/test/new", {**TYPED, "csrf": token})
    assert answer.status_code == 403
    assert "not of your session" in said(answer)
    assert people.run("SELECT count(*) FROM ai_providers") == [(0,)]


def test_a_form_with_another_sessions_token_is_refused(
    site: httpx.Client, desk: Browser, browse: Browse, keeper: Person
) -> None:
    other = browse(site).entered(keeper)
    found = re.search(r'name="csrf" value="(\w+)"', other.get("/test/new").text)
    assert found is not None
    assert desk.post("/test/new", {**TYPED, "csrf": found.group(1)}).status_code == 403
    assert other.post("/test/new", {**TYPED, "csrf": found.group(1)}).status_code == 303


def test_a_script_sends_the_token_as_a_header(desk: Browser) -> None:
    header = {"X-CSRF-Token": csrf_token(desk.session or "")}
    assert desk.post("/test/new", {**TYPED, "csrf": None}, headers=header).status_code == 303


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}],
)
def test_a_form_from_another_site_is_refused(desk: Browser, headers: dict[str, str]) -> None:
    assert desk.post("/test/new", TYPED, headers=headers).status_code == 403


@pytest.mark.parametrize(
    ("body", "media_type", "status"),
    [
        (b"csrf=x&name=a%00b", "application/x-www-form-urlencoded", 422),
        (b"csrf=x&name=%ED%A0%80", "application/x-www-form-urlencoded", 400),
        (b"csrf=x&name=%FF", "application/x-www-form-urlencoded", 400),
        (b"&".join([b"a=1"] * 2001), "application/x-www-form-urlencoded", 400),
        (b"x" * (1024 * 1024 + 1), "application/x-www-form-urlencoded", 413),
        (b"{}", "application/json", 415),
    ],
)
def test_what_is_no_form_is_refused(desk: Browser, body: bytes, media_type: str, status: int) -> None:
    answer = desk.http.post("/test/new", content=body, headers={"Content-Type": media_type})
    assert answer.status_code == status
    assert answer.headers["content-type"].startswith("text/html")


def test_roles_are_the_apis(site: httpx.Client, browse: Browse, admin: Person) -> None:
    reader = browse(site).entered(admin)
    answer = reader.get("/test/new")
    assert answer.status_code == 403
    assert "may not do this" in said(answer)
    assert reader.post("/test/new", TYPED).status_code == 403
    assert 'href="/overview"' in reader.get("/overview").text


def test_what_is_saved_is_told_once(desk: Browser) -> None:
    answer = desk.post("/test/new", TYPED)
    assert answer.status_code == 303
    address = answer.headers["location"]
    live = desk.get(address, headers={"X-Live": "1"})
    assert "Provider saved." not in said(live)
    assert "Provider saved." in said(desk.get(address))
    assert "Provider saved." not in said(desk.get(address))


def test_a_message_that_is_not_ours_is_not_shown(desk: Browser) -> None:
    forged = base64.urlsafe_b64encode(b'["good", "Send me your key"]').decode()
    for cookie in (forged, f"{forged}.{'0' * 64}", "x.y"):
        desk.http.cookies["orrery_flash"] = cookie
        assert "Send me your key" not in desk.get("/overview").text


def test_a_form_makes_what_was_typed(desk: Browser, people: People) -> None:
    desk.post("/test/new", TYPED)
    ((settings, timeout, limit, capabilities, active, last4),) = people.run(
        "SELECT settings, timeout_seconds, requests_per_minute, capabilities, is_active, key_last4 "
        "FROM ai_providers"
    )
    assert settings == {"max_tokens_field": "max_completion_tokens"}
    assert (timeout, limit, capabilities, active) == (12.5, None, ["text", "vision"], True)
    assert last4 == KEY[-4:]


def test_a_refused_form_is_shown_again_with_what_is_wrong(desk: Browser, people: People) -> None:
    answer = desk.post(
        "/test/new",
        {**TYPED, "slug": "No Slug!", "settings": "{oops", "timeout_seconds": "soon", "name": "  "},
    )
    assert answer.status_code == 422
    text = answer.text
    for name in ("settings", "timeout_seconds", "name", "slug"):
        assert f'id="field-{name}-error"' in text
        assert re.search(rf'id="field-{name}"[^>]*aria-describedby="[^"]*field-{name}-error', text)
    assert 'value="No Slug!"' in text
    assert "{oops" in text
    assert 'value="soon"' in text
    assert KEY not in text
    assert PATTERNS[SLUG] in said(answer)
    assert re.search(r'value="vision" checked', text)
    assert '<details class="group" open>' in text
    assert people.run("SELECT count(*) FROM ai_providers") == [(0,)]


def test_what_the_database_refuses_stands_at_its_field(desk: Browser) -> None:
    assert desk.post("/test/new", TYPED).status_code == 303
    answer = desk.post("/test/new", {**TYPED, "name": "Other"})
    assert answer.status_code == 409
    assert "Another provider has this slug" in said(answer)
    assert 'id="field-slug-error"' in answer.text
    assert 'value="Other"' in answer.text


def _made(desk: Browser) -> str:
    location: str = desk.post("/test/new", TYPED).headers["location"]
    desk.get(location)
    return location


def _etag(page: httpx.Response) -> str:
    found = re.search(r'name="etag" value="([^"]+)"', page.text)
    assert found is not None
    return found.group(1).replace("&#34;", '"')


def test_a_form_is_filled_with_what_is_stored_but_no_secret(desk: Browser) -> None:
    address = _made(desk)
    shown = desk.get(address)
    assert 'value="Own server"' in shown.text
    assert 'value="12.5"' in shown.text
    assert "max_completion_tokens" in shown.text
    assert f"Ends in {KEY[-4:]}." in said(shown)
    assert KEY not in shown.text
    assert desk.get(address).text.count('type="password"') == 1


def test_a_secret_stays_unless_one_is_typed_or_it_is_removed(desk: Browser, people: People) -> None:
    address = _made(desk)

    def version() -> Any:
        return people.run("SELECT key_version, key_last4 FROM ai_providers")[0]

    changed = {**TYPED, "name": "Renamed", "api_key": "", "is_active": None}
    assert desk.post(address, changed).status_code == 303
    assert version() == (1, KEY[-4:])
    assert people.run("SELECT name, is_active FROM ai_providers") == [("Renamed", False)]
    assert desk.post(address, {**TYPED, "api_key": "another-key-1234"}).status_code == 303
    assert version() == (2, "1234")
    assert desk.post(address, {**TYPED, "api_key": "", "api_key.remove": "on"}).status_code == 303
    assert version()[1] is None


def test_an_empty_field_means_nothing_or_its_default_never_what_was_before(
    desk: Browser, people: People
) -> None:
    address = _made(desk)
    assert desk.post(address, {**TYPED, "timeout_seconds": "", "settings": ""}).status_code == 303
    assert people.run("SELECT timeout_seconds, settings FROM ai_providers") == [(None, {})]
    answer = desk.post(address, {**TYPED, "name": ""})
    assert answer.status_code == 422
    assert "This field is required." in said(answer)


def test_who_is_overtaken_is_told_and_loses_nothing(desk: Browser, people: People, api: Api) -> None:
    address = _made(desk)
    etag = _etag(desk.get(address))
    api.patch(f"/providers/{address.rpartition('/')[2]}", {"name": "Theirs"})
    answer = desk.post(address, {**TYPED, "name": "Mine", "etag": etag})
    assert answer.status_code == 412
    assert "Somebody changed this meanwhile" in said(answer)
    assert 'value="Mine"' in answer.text
    assert "Stored now: Theirs" in said(answer)
    assert people.run("SELECT name FROM ai_providers") == [("Theirs",)]
    assert desk.post(address, {**TYPED, "name": "Mine", "etag": _etag(answer)}).status_code == 303
    assert people.run("SELECT name FROM ai_providers") == [("Mine",)]


def test_what_people_type_is_text(desk: Browser) -> None:
    evil = '"><script>alert(1)</script>'
    answer = desk.post("/test/new", {**TYPED, "name": evil, "slug": "No!", "description": evil})
    assert answer.status_code == 422
    assert "<script>alert" not in answer.text
    assert "&lt;script&gt;alert(1)" in answer.text


def test_a_button_that_is_refused_tells_on_the_page_that_it_stands_on(desk: Browser) -> None:
    address = _made(desk)
    answer = desk.post(f"{address}/refused", {"back": "/overview"})
    assert answer.headers["location"] == "/overview"
    assert "Not now." in said(desk.get("/overview"))
    for unsafe in ("//evil.example", "https://evil.example", ""):
        answer = desk.post(f"{address}/refused", {"back": unsafe})
        assert answer.status_code == 409
        assert "Not now." in said(answer)
    again = desk.post(f"{address}/shown-again")
    assert again.status_code == 409
    assert f'data-here="{address}"' in again.text


def test_what_programs_are_told_to_send_is_on_no_page(
    desk: Browser, browse: Browse, http: httpx.Client, api: Api
) -> None:
    refused = said(desk.post(f"{_made(desk)}/refused"))
    assert "Not now." in refused
    assert "Send later" not in refused
    assert "/openapi.json" not in said(browse().get("/nowhere"))
    assert "/openapi.json" in http.get("/nowhere").json()["detail"]
    unknown = api.get("/features/nothing")
    assert unknown.json()["detail"] == "There is no feature 'nothing'. GET /features lists them."


def test_unknown_addresses_are_pages_for_browsers_only(browse: Browse, http: httpx.Client) -> None:
    browser = browse()
    assert browser.get("/nowhere").status_code == 404
    assert "Nothing in this orbit" in said(browser.get("/nowhere"))
    assert http.get("/nowhere").headers["content-type"] == "application/problem+json"
    problem = http.get("/api/v1/nowhere", headers={"Accept": HTML})
    assert problem.headers["content-type"] == "application/problem+json"


def test_a_noun_that_is_gone_is_a_page(desk: Browser) -> None:
    answer = desk.get("/test/01a20014-64af-763e-823e-5bdedc96b077")
    assert answer.status_code == 404
    assert "There is no provider" in said(answer)
    assert "Log out" in said(answer)
    assert desk.get("/test/no-id").status_code == 422


def test_an_incident_tells_no_more_than_its_number(
    desk: Browser, people: People, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    people.run("ALTER TABLE ai_providers RENAME COLUMN base_url TO address")
    answer = desk.post("/test/new", TYPED)
    assert answer.status_code == 500
    assert re.search(r"incident \w{12}", said(answer))
    assert "base_url" not in answer.text


def test_without_database_a_page_says_so_and_tries_again(
    serve: Serve, browse: Browse, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    away = settings.model_copy(update={"database_url": SecretStr("postgresql://x:y@127.0.0.1:9/none")})
    browser = browse(serve(away))
    browser.http.cookies["orrery_session"] = "x"
    answer = browser.get("/overview")
    assert answer.status_code == 503
    assert "The database is away" in said(answer)
    assert 'data-retry="5"' in answer.text
    assert answer.headers["retry-after"] == "5"


def test_the_overview_shows_what_there_is(desk: Browser, api: Api) -> None:
    assert "No provider yet" in said(desk.get("/overview"))
    api.made("/providers", provider_body("own", name="Own"))
    shown = said(desk.get("/overview"))
    for words in ("Interactive", "Standard", "Batch", "Own", "unknown", "No worker runs", "Spent today"):
        assert words in shown
