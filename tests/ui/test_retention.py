"""What is kept for how long, and erasing a person's data, by clicks."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.ui.browser import Visit, barriers


@pytest.mark.clicks("/retention/{table_name}/edit", "/retention/erase")
def test_a_policy_is_changed_and_a_person_erased(keeper: Visit) -> None:
    keeper.expecting |= {422}
    page = keeper.open("/retention")
    page.locator("tr", has_text="Calls").get_by_role("link", name="Change").click()
    keeper.fill(keep_days="7")
    keeper.press("Save")
    expect(page.locator(".error").first).to_contain_text("Calls are kept for 31 days at least")
    assert not barriers(page)
    keeper.fill(keep_days="400")
    keeper.press("Save")
    keeper.told("Calls are kept for 400 days")
    expect(page.locator("tr", has_text="Calls")).to_contain_text("400 days")

    keeper.fill(user_id="nobody-at-all")
    keeper.press("Erase", confirm=True)
    keeper.told("There was nothing of nobody-at-all left to erase", "warn")
    page.locator("tr", has_text="Calls").get_by_role("link", name="Change").click()
    keeper.fill(keep_days="")
    keeper.press("Save")
    keeper.told("Calls are kept for ever")
