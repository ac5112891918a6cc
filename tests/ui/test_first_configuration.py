"""A newcomer at an empty installation: from a provider's key to an answer, then to another provider."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from standalone.up import FIRST_ADMIN
from tests.machine import Machine
from tests.sandbox import Sandbox
from tests.ui.browser import Visit
from tests.ui.conftest import check


@pytest.fixture
def newcomer(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Visit]:
    home = Path(tempfile.mkdtemp(prefix="orrery-ui-"))
    home.chmod(0o755)
    with closing(Machine(home, "--workers", "1", "--threads", "2")) as machine:
        visit = Visit(browser.new_context(viewport={"width": 1360, "height": 900}), machine.url)
        page = visit.open("/")
        page.get_by_label("E-mail").fill(FIRST_ADMIN)
        page.get_by_label("Password").fill(machine.password)
        visit.press("Log in")
        yield visit
        check(visit, request.node)
        visit.context.close()


@pytest.mark.clicks(
    *("/login", "/setup/provider", "/setup/test", "/setup/model", "/setup/assign", "/setup/run"),
    *("/providers/new", "/models/new", "/assignments", "/assignments/{feature}/undo"),
)
def test_from_nothing_to_an_answer_and_to_another_provider(newcomer: Visit, sandbox: Sandbox) -> None:
    page = newcomer.page
    newcomer.follow("Set up Orrery")
    newcomer.follow("Another")
    newcomer.fill(name="Own server", slug="own", base_url=f"{sandbox.url}/openai/v1", api_key="bad-key")
    page.locator("[name=allow_private_network]").check()
    newcomer.press("Add")

    page.get_by_role("button", name="Test now").click()
    expect(page.locator("#verdict")).to_contain_text("401")
    newcomer.follow("Change key or address")
    newcomer.fill(api_key="a-good-key")
    newcomer.press("Save")
    newcomer.open("/setup")
    page.get_by_role("button", name="Test now").click()
    expect(page.locator("#verdict")).to_contain_text("It works")

    newcomer.follow("Go on")
    newcomer.fill(model_id="own-model", name="Own model")
    newcomer.press("Add and go on")
    page.locator("input[value=chat_assistant]").check()
    newcomer.press("Assign and go on")
    newcomer.press("Run the job")
    expect(page.locator("#run")).to_contain_text("own-model", timeout=30_000)
    newcomer.open("/setup")
    expect(page.locator("main")).to_contain_text("All is in orbit")

    newcomer.open("/providers/new")
    newcomer.fill(name="Second", slug="second", base_url=f"{sandbox.url}/anthropic", api_key="another-key")
    page.locator("[name=type]").select_option("anthropic")
    page.locator("[name=allow_private_network]").check()
    newcomer.press("Add provider")
    newcomer.follow("Add model")
    newcomer.fill(model_id="second-model", name="Second model")
    newcomer.press("Add model")
    newcomer.open("/assignments")
    row = page.locator("tr", has=page.locator("a[href='/assignments/chat_assistant']"))
    row.locator("select").select_option(
        label=_containing(row.locator("select option").all_inner_texts(), "econd")
    )
    with page.expect_navigation():
        row.get_by_role("button", name="Swap").click()
    newcomer.told("second-model")

    newcomer.open("/playground?feature=chat_assistant")
    newcomer.press("Run")
    expect(page.locator("main")).to_contain_text("second-model", timeout=30_000)
    newcomer.follow("All of it")
    expect(page.locator("main")).to_contain_text("second-model")

    newcomer.open("/assignments")
    with page.expect_navigation():
        row.get_by_role("button", name="Swap").click()
    expect(row.locator(".chain li").first).to_contain_text("own-model")
    newcomer.press("Undo")
    expect(row.locator(".chain li").first).to_contain_text("second-model")


def _containing(options: list[str], part: str) -> str:
    return next(option for option in options if part in option)
