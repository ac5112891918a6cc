"""Providers, their keys and models, through their whole lives."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from tests.ui.browser import Visit, barriers
from tests.ui.conftest import Installation

_ID = "[0-9a-f-]{36}"


@pytest.fixture
def openai(keeper: Visit, installation: Installation) -> str:
    """The base URL of the sandbox's OpenAI protocol."""
    page = keeper.open(f"/providers/{installation.ids['sandbox_id']}/edit")
    return page.locator("[name=base_url]").input_value()


@pytest.mark.clicks(
    *("/providers/new", "/providers/{provider_id}", "/providers/{provider_id}/rotate"),
    *(
        "/providers/{provider_id}/edit",
        "/providers/{provider_id}/deactivate",
        "/providers/{provider_id}/activate",
    ),
    "/providers/{provider_id}/delete",
)
def test_a_provider_is_tried_added_rotated_changed_and_removed(keeper: Visit, openai: str) -> None:
    keeper.expecting |= {422}
    page = keeper.open("/providers/new")
    keeper.fill(name="Walk <script>", slug="walk", base_url=openai, api_key="bad-key")
    page.locator("[name=type]").select_option("openai_compatible")
    page.locator("[name=allow_private_network]").check()
    verdict = page.locator("#verdict")
    page.get_by_role("button", name="Test before saving").click()
    expect(verdict).to_contain_text("401")
    keeper.fill(api_key="good-key-1234")
    page.get_by_role("button", name="Test before saving").click()
    expect(verdict).to_contain_text("It works")
    assert page.locator("[name=api_key]").input_value() == "good-key-1234", "what was typed stays"
    keeper.press("Add provider")
    assert re.fullmatch(f"/providers/{_ID}", keeper.path)
    provider = keeper.path
    assert "good-key" not in page.content()

    page.get_by_role("button", name="Test now").click()
    expect(verdict).to_contain_text("It works")
    keeper.fill(api_key="bad-key")
    keeper.press("Rotate key")
    expect(page.get_by_role("alert").first).to_contain_text("old key stays")
    keeper.fill(api_key="good-key-9999")
    keeper.press("Rotate key")
    keeper.told("The new key works")
    expect(page.locator("main")).to_contain_text("Ends in 9999")

    keeper.follow("Edit")
    keeper.fill(name="Walker")
    keeper.press("Save")
    expect(page.locator("h1")).to_contain_text("Walker")
    keeper.press("Deactivate", confirm=True)
    keeper.told("is inactive")
    keeper.press("Undo")
    keeper.told("is active")
    assert keeper.path == provider
    keeper.press("Delete", confirm=True)
    keeper.told("was deleted")


@pytest.mark.clicks(
    *("/models/new", "/models/{model_id}", "/models/{model_id}/use", "/models/{model_id}/undo"),
    *("/models/{model_id}/prices", "/models/{model_id}/prices/{price_id}/delete"),
    *("/models/{model_id}/deactivate", "/models/{model_id}/activate", "/models/{model_id}/delete"),
)
def test_a_model_is_added_priced_put_to_use_and_removed(keeper: Visit, installation: Installation) -> None:
    keeper.expecting |= {422, 409}
    page = keeper.open(f"/models/new?provider={installation.ids['sandbox_id']}")
    keeper.fill(model_id="walk-model", name="نموذج", input_price_per_1k="abc")
    keeper.press("Add model")
    expect(page.locator(".error").first).to_be_visible()
    assert barriers(page) == ""
    keeper.fill(input_price_per_1k="0.001", output_price_per_1k="0.002")
    keeper.press("Add model")
    model = keeper.path
    assert re.fullmatch(f"/models/{_ID}", model)

    page.locator("[name=features][value=tarot_reading]").check()
    page.locator("[name=features][value=cv_draft]").check()
    keeper.press("Move ticked")
    expect(page.locator("[name=features][value=cv_draft]")).to_be_checked()
    keeper.press("Delete", confirm=True)
    expect(page.locator("main")).to_contain_text("tarot_reading")
    keeper.open(model)
    page.locator("[name=features][value=cover_letter]").check()
    keeper.press("Move ticked")
    keeper.told("cover_letter")
    keeper.press("Undo")
    keeper.told("Undone")
    expect(page.locator("[name=features][value=cover_letter]")).not_to_be_checked()

    page.get_by_text("Add a price").click()
    keeper.fill(valid_from="2027-05-01T00:00")
    page.locator("form[action$=prices] [name=input_price_per_1k]").fill("0.005")
    keeper.press("Add price")
    keeper.told("The price was added")
    with page.expect_navigation():
        page.locator("td").get_by_role("button", name="Delete").first.click()
        page.locator("dialog#confirm").get_by_role("button", name="Yes").click()
    keeper.told("The price was deleted")
    page.locator("form.form [name=name]").fill("Model two")
    keeper.press("Save model")
    keeper.told("Model two was saved")
    keeper.press("Deactivate", confirm=True)
    keeper.told("is inactive")
    keeper.press("Undo")
    keeper.told("is active")

    for feature in ("tarot_reading", "cv_draft"):  # back to the models of before
        keeper.open(f"/assignments/{feature}")
        chosen = page.locator("#targets .ranks li")
        expect(chosen.first).to_contain_text("walk-model")
        page.get_by_role("button", name="Remove").first.click()
        expect(chosen.first).not_to_contain_text("walk-model")
        keeper.press("Save")
        keeper.told("Saved")
    keeper.open(model)
    keeper.press("Delete", confirm=True)
    keeper.told("was deleted")
    assert keeper.path == f"/providers/{installation.ids['sandbox_id']}"


@pytest.mark.clicks("/catalog")
def test_a_vendor_is_installed_from_the_catalog(keeper: Visit, openai: str) -> None:
    page = keeper.open("/catalog")
    keeper.follow("Anthropic")
    page.locator("[name=models]").first.check()
    page.get_by_text("Another address").first.click()
    keeper.fill(api_key="sk-ant-walk-1234", base_url=openai.replace("/openai/v1", "/anthropic"))
    page.locator("[name=allow_private_network]").check()
    keeper.press("Install")
    keeper.told("1 model installed. Its key works")
    assert re.fullmatch(f"/providers/{_ID}", keeper.path)
    expect(page.locator("main")).to_contain_text("Ends in 1234")
