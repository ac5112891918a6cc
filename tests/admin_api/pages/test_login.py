"""Logging in at a browser, and out; sessions that a cookie holds."""

from __future__ import annotations

import re
from collections.abc import Callable

import httpx
import pytest

from store.settings import Settings
from tests.admin_api.conftest import People
from tests.admin_api.logins import PASSWORD, Person, audited, no_waiting, person
from tests.admin_api.pages.conftest import Browse, Browser, said

Serve = Callable[..., httpx.Client]


def test_the_way_in_leads_to_the_overview(browse: Browse, admin: Person) -> None:
    browser = browse()
    assert browser.get("/").headers["location"] == "/login"
    page = browser.get("/login")
    assert re.findall(r'<input [^>]*name="(\w+)"', page.text) == ["email", "password"]
    assert page.text.count("<button") == 1
    assert browser.log_in(admin).headers["location"] == "/overview"
    assert browser.get("/").headers["location"] == "/overview"
    assert browser.get("/login").headers["location"] == "/overview"
    shown = browser.get("/overview")
    assert shown.status_code == 200
    assert admin.email in shown.text


def test_no_script_reads_the_cookie_and_no_other_site_sends_it(browse: Browse, admin: Person) -> None:
    (cookie,) = [
        each for each in browse().log_in(admin).headers.get_list("set-cookie") if "_session=" in each
    ]
    parts = {part.strip().lower() for part in cookie.split(";")[1:]}
    assert parts == {"httponly", "samesite=lax", "path=/", "max-age=2592000"}
    assert cookie.startswith("orrery_session=")


def test_behind_tls_the_cookie_stays_there(
    settings: Settings, serve: Serve, browse: Browse, admin: Person
) -> None:
    behind = browse(serve(settings.model_copy(update={"trusted_proxies": "127.0.0.1"})))
    behind.http.headers["X-Forwarded-Proto"] = "https"
    answer = behind.log_in(admin)
    (cookie,) = [each for each in answer.headers.get_list("set-cookie") if "_session=" in each]
    assert cookie.startswith("__Host-orrery_session=")
    assert "secure" in cookie.lower()
    value = cookie.partition("=")[2].partition(";")[0]
    assert behind.get("/overview", headers={"Cookie": f"__Host-orrery_session={value}"}).status_code == 200
    assert behind.get("/overview", headers={"Cookie": f"orrery_session={value}"}).status_code == 303


def test_the_database_keeps_no_cookie(browse: Browse, admin: Person, people: People) -> None:
    browser = browse().entered(admin)
    ((kept, mfa),) = people.run("SELECT cookie_hash, mfa FROM admin_sessions")
    assert browser.session is not None
    assert browser.session.encode() not in bytes(kept)
    assert (len(kept), mfa) == (32, False)
    assert "login" in [action for action, _ in audited(people)]


def test_a_wrong_password_shows_the_form_again(browse: Browse, admin: Person) -> None:
    answer = browse().log_in(admin, "not the password at all")
    assert answer.status_code == 401
    assert "e-mail address or the password is wrong" in said(answer)
    assert f'value="{admin.email}"' in answer.text
    assert "not the password" not in answer.text
    assert "www-authenticate" not in answer.headers
    nobody = Person(admin.people, "", "nobody@example.com")
    assert said(browse().log_in(nobody)).replace(nobody.email, "") == said(answer).replace(admin.email, "")


def test_too_many_wrong_passwords_are_told_to_wait(browse: Browse, admin: Person) -> None:
    browser = browse()
    answers = [browser.log_in(admin, f"wrong password {number}") for number in range(7)]
    assert answers[-1].status_code == 429
    assert int(answers[-1].headers["retry-after"]) >= 1
    assert "Try again in" in said(answers[-1])


@pytest.mark.parametrize(
    ("wanted", "led"),
    [
        ("%2Fjobs%3Fstate%3Dfailed", "/jobs?state=failed"),
        ("%2F%2Fevil.example", "/overview"),
        ("%2F%5Cevil.example", "/overview"),
        ("%2F%09%2Fevil.example", "/overview"),
        ("https%3A%2F%2Fevil.example", "/overview"),
        ("javascript%3Aalert(1)", "/overview"),
        ("jobs", "/overview"),
        ("", "/overview"),
    ],
)
def test_the_way_in_leads_back_to_pages_of_ours_only(
    browse: Browse, admin: Person, wanted: str, led: str
) -> None:
    assert browse().log_in(admin, path=f"/login?next={wanted}").headers["location"] == led


def test_who_is_not_logged_in_is_led_to_the_way_in(browse: Browse) -> None:
    answer = browse().get("/overview?x=1&y=2")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/login?next=%2Foverview%3Fx%3D1%26y%3D2"


def _enrolled(people: People, role: str = "admin") -> Person:
    who = person(people, role)
    who.enrol(who.api())
    no_waiting(people)
    return who


def test_a_second_factor_is_asked_for_in_a_second_step(browse: Browse, people: People) -> None:
    who = _enrolled(people)
    browser = browse()
    first = browser.log_in(who, path="/login?next=%2Fjobs")
    assert first.headers["location"] == "/login/code?next=%2Fjobs"
    assert "orrery_session" not in browser.http.cookies
    page = browser.get("/login/code")
    assert PASSWORD not in page.text
    assert re.findall(r'<input [^>]*name="(\w+)"', page.text) == ["code"]
    wrong = browser.post("/login/code", {"code": "000000"})
    assert wrong.status_code == 401
    assert "The code is wrong" in said(wrong)
    assert browser.post("/login/code", {"code": "x"}).status_code == 401
    done = browser.post("/login/code?next=%2Fjobs", {"code": who.code()})
    assert done.headers["location"] == "/jobs"
    assert browser.session is not None
    assert "orrery_step" not in browser.http.cookies
    assert people.run("SELECT mfa FROM admin_sessions WHERE cookie_hash IS NOT NULL") == [(True,)]


def test_the_first_step_is_void_once_it_was_used(browse: Browse, people: People) -> None:
    who = _enrolled(people)
    browser = browse()
    browser.log_in(who)
    step = browser.http.cookies["orrery_step"]
    assert browser.post("/login/code", {"code": who.code()}).headers["location"] == "/overview"
    thief = browse()
    thief.http.cookies["orrery_step"] = step
    answer = thief.post("/login/code", {"code": who.code(1)})
    assert answer.headers["location"] == "/login"
    assert thief.session is None
    assert "Log in again" in said(thief.get("/login"))


@pytest.mark.parametrize(
    "change",
    ["UPDATE admins SET password_hash = 'x'", "UPDATE admins SET is_active = false"],
)
def test_the_first_step_is_void_once_the_person_has_changed(
    browse: Browse, people: People, change: str
) -> None:
    who = _enrolled(people)
    browser = browse()
    browser.log_in(who)
    people.run(change)
    assert browser.post("/login/code", {"code": who.code()}).headers["location"] == "/login"
    assert browser.session is None


def test_the_first_step_is_no_invention(browse: Browse, people: People) -> None:
    who = _enrolled(people)
    browser = browse()
    assert browser.get("/login/code").headers["location"] == "/login"
    for forged in ("x", "eyJlbWFpbCI6ICJ4In0=", ""):
        browser.http.cookies["orrery_step"] = forged
        assert browser.post("/login/code", {"code": who.code()}).headers["location"] == "/login"


def test_logging_out_ends_the_session_for_good(browse: Browse, admin: Person, people: People) -> None:
    browser = browse().entered(admin)
    cookie = browser.session
    answer = browser.post("/logout")
    assert answer.headers["location"] == "/login"
    assert browser.session is None
    assert "You are logged out." in said(browser.get("/login"))
    assert "You are logged out." not in said(browser.get("/login"))
    browser.http.cookies["orrery_session"] = cookie or ""
    assert browser.get("/overview").status_code == 303
    assert people.run("SELECT revoked_because FROM admin_sessions") == [("logout",)]


def test_the_session_is_listed_and_revoked_like_every_other(browse: Browse, admin: Person) -> None:
    browser = browse().entered(admin)
    program = admin.api()
    sessions = program.get("/sessions").json()["items"]
    (own,) = [each for each in sessions if not each["is_current"]]
    assert program.delete(f"/sessions/{own['id']}").status_code == 204
    assert browser.get("/overview").headers["location"].startswith("/login")


def test_a_cookie_opens_no_address_of_the_api(browse: Browse, admin: Person) -> None:
    browser = browse().entered(admin)
    assert browser.get("/api/v1/features").status_code == 401
    assert browser.get("/api/v1/features").headers["content-type"] == "application/problem+json"


def test_who_is_deactivated_is_out_at_once(browse: Browse, admin: Person, people: People) -> None:
    browser = browse().entered(admin)
    people.run("UPDATE admins SET is_active = false")
    assert browser.get("/overview").status_code == 303


def _expires(people: People) -> float:
    ((seconds,),) = people.run("SELECT extract(epoch FROM expires_at - now())::float8 FROM admin_sessions")
    return float(seconds)


def test_a_session_lives_on_while_it_is_used(browse: Browse, admin: Person, people: People) -> None:
    """At most once an hour it is noted; a page that asks by itself for news is no use; 30 days are all."""
    browser = browse().entered(admin)
    day = 86_400
    age = (
        "UPDATE admin_sessions SET last_used_at = now() - interval '{}', "
        "expires_at = now() + interval '1 day'"
    )
    people.run(age.format("10 minutes"))
    browser.get("/overview")
    assert _expires(people) == pytest.approx(day, abs=60)
    people.run(age.format("2 hours"))
    browser.get("/overview", headers={"X-Live": "1"})
    assert _expires(people) == pytest.approx(day, abs=60)
    browser.get("/overview")
    assert _expires(people) == pytest.approx(7 * day, abs=60)
    people.run("UPDATE admin_sessions SET created_at = now() - interval '29 days'")
    people.run(age.format("2 hours"))
    browser.get("/overview")
    assert _expires(people) == pytest.approx(day, abs=60)
    people.run("UPDATE admin_sessions SET expires_at = now()")
    assert browser.get("/overview").status_code == 303


def test_a_super_admin_without_second_factor_may_only_enrol(
    browse: Browse, keeper: Person, local: Settings, serve: Serve
) -> None:
    browser = browse()
    browser.log_in(keeper)
    assert browser.get("/overview").headers["location"] == "/account"
    postponed = browse(serve(local)).entered(keeper)
    assert "No second factor yet" in said(postponed.get("/overview"))


def _login_from(browser: Browser, who: Person, headers: dict[str, str]) -> int:
    body = {"email": who.email, "password": PASSWORD, "csrf": None}
    return browser.post("/login", body, headers=headers).status_code


def test_no_other_site_logs_somebody_in(browse: Browse, admin: Person) -> None:
    browser = browse()
    assert _login_from(browser, admin, {"Origin": "https://evil.example"}) == 403
    assert _login_from(browser, admin, {"Origin": "null"}) == 403
    assert _login_from(browser, admin, {"Sec-Fetch-Site": "cross-site"}) == 403
    assert _login_from(browser, admin, {"Sec-Fetch-Site": "same-site"}) == 403
    assert browser.session is None
    assert _login_from(browser, admin, {"Sec-Fetch-Site": "same-origin"}) == 303
