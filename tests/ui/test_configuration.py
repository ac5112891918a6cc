"""Assignments, features and integrations."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.ui.browser import Visit, barriers
from tests.ui.work import ARABIC


@pytest.mark.clicks(
    "/assignments", "/assignments/{feature}/undo", "/assignments/{feature}", "/assignments/{feature}/rollback"
)
def test_an_assignment_is_swapped_edited_and_rolled_back(keeper: Visit) -> None:
    keeper.expecting |= {422}
    page = keeper.open("/assignments")
    row = page.locator("tr", has=page.locator("a[href='/assignments/cover_letter']"))
    before = row.locator(".chain").inner_text()
    with page.expect_navigation():
        row.get_by_role("button", name="Swap").click()
    keeper.told("cover_letter")
    assert row.locator(".chain").inner_text() != before
    keeper.press("Undo")
    assert row.locator(".chain").inner_text() == before

    keeper.open("/assignments/cover_letter")
    page.locator("#user").fill("{% if %}")
    keeper.press("Save", within=".page-head")
    expect(page.locator(".error").first).to_be_visible()
    assert barriers(page) == ""
    page.locator("#user").fill(f"{ARABIC} {{{{ job }}}}")
    expect(page.locator("#preview")).to_contain_text(ARABIC)
    keeper.press("Save", within=".page-head")
    keeper.told("Saved at configuration version")
    page.locator("#plan").fill("free")
    page.get_by_role("button", name="Ask").click()
    expect(page.locator("#explained")).to_contain_text("wins")
    keeper.open("/assignments/cover_letter")
    keeper.press("Roll back", confirm=True)
    keeper.told("version")
    assert ARABIC not in page.locator("#user").input_value()


@pytest.mark.clicks(
    *("/features/new", "/features/{name}/edit", "/features/{name}/active", "/features/{name}/delete"),
    *("/assignments/{feature}", "/assignments/{feature}/remove"),
)
def test_a_feature_is_made_assigned_changed_and_removed(keeper: Visit) -> None:
    keeper.expecting |= {422, 409}
    page = keeper.open("/features/new")
    keeper.fill(name="Bad Name")
    keeper.press("Save feature")
    expect(page.locator(".error").first).to_be_visible()
    assert barriers(page) == ""
    keeper.fill(name="greeting", description="تحية <script>alert(1)</script>")
    keeper.press("Save feature")
    assert keeper.path == "/assignments/greeting"
    page.locator("select[name=add]").select_option(index=1)
    keeper.press("Save", within=".page-head")
    keeper.told("Assigned")
    keeper.open("/features/greeting/edit")
    keeper.press("Deactivate")
    keeper.told("greeting")
    keeper.press("Delete", confirm=True)
    expect(page.locator("main")).to_contain_text("assign")
    keeper.open("/assignments/greeting")
    keeper.press("Unassign", confirm=True)
    keeper.told("greeting is unassigned")
    keeper.open("/features/greeting/edit")
    keeper.fill(category="small talk")
    keeper.press("Save feature")
    keeper.told("Feature saved")
    keeper.press("Delete", confirm=True)
    keeper.told("greeting is deleted")


@pytest.mark.clicks(
    *("/integrations/new", "/integrations/{integration_id}/edit"),
    *("/integrations/{integration_id}/test", "/integrations/{integration_id}/delete"),
)
def test_an_integration_is_made_tried_changed_and_removed(keeper: Visit) -> None:
    page = keeper.open("/integrations/new")
    keeper.fill(name="walk hook", endpoint="http://127.0.0.1:9/hook", credentials="secret = topsecretvalue")
    keeper.press("Save")
    keeper.told("walk hook is there")
    keeper.open("/integrations")
    keeper.follow("walk hook")
    assert "topsecretvalue" not in page.content()
    keeper.press("Send a test")
    keeper.told("It did not arrive", "bad")
    keeper.fill(endpoint="http://127.0.0.1:9/other")
    keeper.press("Save")
    keeper.told("Integration saved")
    keeper.press("Delete", confirm=True)
    keeper.told("walk hook is deleted")


@pytest.mark.clicks("/budgets/new", "/budgets/{budget_id}/edit", "/budgets/{budget_id}/delete")
def test_a_budget_is_made_changed_and_removed(keeper: Visit) -> None:
    keeper.expecting |= {422}
    page = keeper.open("/budgets/new")
    page.select_option("[name='scope']", "feature")
    keeper.fill(scope_id="no_such_feature", limit_usd="12.50")
    keeper.press("Save")
    expect(page.locator(".error").first).to_contain_text("There is no feature 'no_such_feature'")
    assert not barriers(page)
    page.select_option("[name='action']", "defer")
    keeper.fill(scope_id="tarot_reading", alert_percent="50, 100")
    keeper.press("Save")
    keeper.told("The budget for tarot_reading is there")
    keeper.follow("tarot_reading")
    keeper.fill(limit_usd="20", limit_tokens="100000")
    keeper.press("Save")
    keeper.told("Budget saved")
    row = page.locator("tr", has_text="tarot_reading")
    with page.expect_navigation():
        row.get_by_role("button", name="Delete").click()
        page.locator("dialog#confirm").get_by_role("button", name="Yes").click()
    keeper.told("The budget for tarot_reading is gone")
