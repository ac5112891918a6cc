"""Queues and usage in a real browser: lanes are paused, what failed is replayed, charts tell their values."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.ui.browser import Visit


@pytest.mark.clicks("/queues/{lane}/pause", "/queues/{lane}/resume")
def test_a_lane_is_paused_and_resumed(keeper: Visit) -> None:
    page = keeper.open("/queues")
    keeper.press("Pause batch", confirm=True)
    _tells(keeper, "The lane batch is paused")
    page.get_by_text("Paused: new jobs are accepted and wait").wait_for()
    keeper.press("Resume batch")
    _tells(keeper, "The lane batch runs again")


@pytest.mark.clicks("/queues/failed/{job_id}/replay", "/queues/failed/replay")
def test_what_failed_is_replayed(keeper: Visit) -> None:
    keeper.open("/queues")
    keeper.press("Replay code_generation")
    _tells(keeper, "repeats it: code_generation")
    keeper.press("Replay all", confirm=True)
    _tells(keeper, "what failed")


def test_the_page_asks_for_news(keeper: Visit) -> None:
    page = keeper.open("/queues")
    with page.expect_response("**/queues") as news:
        pass
    assert news.value.request.headers["x-live"] == "1"


def test_charts_tell_their_values_by_keyboard(keeper: Visit) -> None:
    page = keeper.open("/usage")
    marks = page.locator("svg.plot").first.locator(".mark")
    assert marks.count() == 7
    marks.first.focus()
    for _ in range(6):
        page.keyboard.press("ArrowRight")
    told = page.locator(".tip").inner_text()
    assert "$" in told
    assert marks.last.get_attribute("aria-label") == told


def test_usage_is_narrowed_and_downloaded(keeper: Visit) -> None:
    page = keeper.open("/usage")
    page.get_by_role("link", name="Feature", exact=True).click()
    page.locator("table.groups").get_by_role("link", name="chat_assistant").click()
    page.get_by_role("link", name="Take away").wait_for()
    page.locator("summary", has_text="Data table").first.click()
    for link in (page.locator("figure a[download]").first, page.locator("#calls a[download]")):
        with page.expect_download() as download:
            link.click()
        assert download.value.suggested_filename.endswith(".csv")


def _tells(visit: Visit, text: str) -> None:
    expect(visit.page.locator("#flash")).to_contain_text(text)
