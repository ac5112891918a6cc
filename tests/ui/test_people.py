"""People, tokens, the own account, and the log of what all of them did."""

from __future__ import annotations

import base64
import re
import time

import pytest
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.totp import TOTP
from playwright.sync_api import expect

from tests.ui.browser import Visit, barriers
from tests.ui.conftest import Installation, Visitors, check

PASSWORD = "four words like these"


def _code(secret: str, *, steps: int = 0) -> str:
    clear = base64.b32decode(secret.replace(" ", ""))
    return (
        TOTP(clear, 6, SHA1(), 30, enforce_key_length=False).generate(int(time.time()) + 30 * steps).decode()
    )


def _log_in(visit: Visit, email: str, password: str) -> None:
    page = visit.open("/login")
    page.get_by_label("E-mail").fill(email)
    page.get_by_label("Password").fill(password)
    visit.press("Log in")


@pytest.mark.clicks(
    *("/people/new", "/people/{admin_id}", "/people/{admin_id}/deactivate", "/people/{admin_id}/activate"),
    *("/people/{admin_id}/sessions/{session_id}/end", "/people/{admin_id}/delete"),
)
def test_somebody_is_invited_changed_sent_out_and_removed(keeper: Visit, visiting: Visitors) -> None:
    keeper.expecting |= {422}
    page = keeper.open("/people/new")
    keeper.fill(email="no address", password=PASSWORD)
    page.locator("[name=role]").select_option("admin")
    keeper.press("Add")
    expect(page.locator(".error").first).to_be_visible()
    assert barriers(page) == ""
    keeper.fill(email="walker@example.com", password=PASSWORD)
    keeper.press("Add")
    person = keeper.path
    assert re.fullmatch("/people/[0-9a-f-]{36}", person)
    page.locator("[name=role]").select_option("super_admin")
    keeper.press("Save")
    keeper.told("is saved")
    keeper.press("Deactivate", confirm=True)
    keeper.told("is out")
    keeper.press("Activate")
    keeper.told("may log in again")

    walker = visiting(None)
    _log_in(walker, "walker@example.com", PASSWORD)
    assert walker.path == "/overview"
    keeper.open(person)
    keeper.press("End")
    keeper.told("The session is over")
    walker.page.wait_for_url("**/login?next=*")  # it asks for news, and leaves by itself
    assert walker.path == "/login"
    walker.check()
    keeper.open(person)
    keeper.press("Delete", confirm=True)
    keeper.told("deactivated instead", "warn")
    assert keeper.path == person, "who has logged in stays in the log"


@pytest.mark.clicks("/tokens/new", "/tokens/{token_id}/revoke")
def test_a_token_is_shown_once_and_revoked(keeper: Visit) -> None:
    page = keeper.open("/tokens/new")
    keeper.fill(name="متجر الويب")
    keeper.press("Make")
    assert page.locator("#token").inner_text().startswith("orr")
    clear = page.locator("#token").inner_text().strip()
    assert barriers(page) == ""
    keeper.open("/tokens")
    assert clear not in page.content()
    keeper.press("Revoke", confirm=True)
    keeper.told("refused from now on")


@pytest.mark.clicks(
    *("/account/password", "/account/keys/{provider_id}", "/account/keys/{provider_id}/remove"),
    *("/account/sessions/end-others", "/account/sessions/{session_id}/end"),
    *("/account/second-factor", "/account/second-factor/confirm", "/login", "/login/code", "/logout"),
)
def test_an_admin_keeps_the_own_account(
    visiting: Visitors, installation: Installation, request: pytest.FixtureRequest
) -> None:
    email = "account@example.com"
    installation.add(email, PASSWORD)
    visit = visiting(None)
    visit.expecting |= {401, 422}
    page = visit.page
    _log_in(visit, email, PASSWORD)
    others = [visiting(None), visiting(None), visiting(None)]
    for other in others:
        _log_in(other, email, PASSWORD)

    visit.open("/account")
    visit.fill(current="not my password", new="another four words", again="another four words")
    visit.press("Change password")
    expect(page.locator(".error").first).to_be_visible()
    assert barriers(page) == ""
    another = page.locator("main tr", has_not_text="this one")
    another.get_by_role("button", name="End the session").first.click()
    visit.told("The session is over")
    visit.press("End all others", confirm=True)
    visit.told("All your other sessions are over")
    for other in others:  # their pages ask for news, and leave by themselves
        other.page.wait_for_url("**/login?next=*")
        assert other.path == "/login"
    visit.fill(current=PASSWORD, new="another four words", again="another four words")
    visit.press("Change password")
    visit.told("Your password is changed")

    visit.follow("Add key")
    visit.fill(api_key="sk-my-own-1234", monthly_limit="1000000")
    visit.press("Save")
    visit.told("is saved")
    expect(page.locator("#keys")).to_contain_text("…1234")
    visit.follow("Change", within="#keys")
    visit.press("Remove key", confirm=True)
    visit.told("Your key is removed")

    visit.press("Set up")
    secret = page.locator("#secret").inner_text()
    codes = page.locator("#codes").inner_text().split()
    assert page.locator("main svg").count(), "a code to scan"
    assert barriers(page) == ""
    visit.fill(otp="000000")
    visit.press("Turn on")
    expect(page.locator(".error").first).to_be_visible()
    assert barriers(page) == ""
    visit.fill(otp=_code(secret))
    visit.press("Turn on")
    visit.told("Your second factor is on")
    visit.press("Log out", within="nav#nav")
    _log_in(visit, email, "another four words")
    assert visit.path == "/login/code"
    assert barriers(page) == ""
    visit.fill(code="000000")
    visit.press("Continue")
    assert page.get_by_role("alert").count() == 1
    assert barriers(page) == ""
    visit.fill(code=codes[0])
    visit.press("Continue")
    assert visit.path == "/overview"
    check(visit, request.node)


def test_the_log_tells_who_did_what_and_that_nobody_changed_it(keeper: Visit) -> None:
    page = keeper.open("/audit")
    assert page.locator("main").inner_text()
    keeper.follow("Verify now")
    expect(page.locator(".alert.good").first).to_be_visible()
    keeper.open("/audit?actor=nobody-else")
    assert page.locator("h1").count() == 1
