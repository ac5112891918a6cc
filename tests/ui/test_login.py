"""In and out at the door."""

from __future__ import annotations

import pytest

from standalone.up import FIRST_ADMIN
from tests.ui.browser import Visit, barriers
from tests.ui.conftest import Installation, Visitors


def _log_in(visit: Visit, email: str, password: str) -> None:
    visit.page.get_by_label("E-mail").fill(email)
    visit.page.get_by_label("Password").fill(password)
    with visit.page.expect_navigation():
        visit.page.get_by_role("button").click()


@pytest.mark.clicks("/login", "/logout")
def test_somebody_comes_and_goes(keeper: Visit, installation: Installation) -> None:
    keeper.context.clear_cookies()
    keeper.open("/")
    assert keeper.path == "/login"
    assert keeper.page.get_by_role("button").count() == 1

    _log_in(keeper, FIRST_ADMIN, installation.machine.password)
    assert keeper.path == "/overview"

    keeper.press("Log out", within="nav#nav")
    assert keeper.path == "/login"
    keeper.open("/overview")
    assert keeper.path == "/login", "the session has ended"


def test_a_wrong_password_is_told_and_leads_on_to_the_page_that_was_wanted(
    visiting: Visitors, installation: Installation
) -> None:
    visit = visiting(None)
    visit.expecting |= {401}
    visit.open("/jobs?state=failed")

    _log_in(visit, FIRST_ADMIN, "not the password")
    assert visit.page.get_by_role("alert").count() == 1
    assert barriers(visit.page) == ""
    assert visit.path == "/login"

    _log_in(visit, FIRST_ADMIN, installation.machine.password)
    assert visit.page.url.endswith("/jobs?state=failed")
    visit.check()
