"""Budgets as pages: a threshold that was reached is found where people look."""

from __future__ import annotations

from tests.admin_api.conftest import Api, People
from tests.admin_api.logins import Person
from tests.admin_api.nouns import provider_body
from tests.admin_api.pages.conftest import Browse
from tests.admin_api.test_budgets import CALL


def test_a_reached_threshold_is_shown_and_leads_to_its_budget(
    api: Api, people: People, browse: Browse, admin: Person
) -> None:
    provider = api.made("/providers", provider_body("acme"))["id"]
    api.made("/budgets", {"scope": "global", "limit_usd": "10"})
    people.run(CALL, ["cv_draft", None, provider, "9"])
    browser = browse().entered(admin)

    assert "$9.00 of $10.00" in browser.get("/budgets").text
    alerts = browser.get("/alerts").text
    assert "The budget of this month has reached 80 %" in alerts
    assert 'href="/budgets"' in alerts
    assert browser.get("/overview").status_code == 200
