"""A daily schedule is made, run, watched and listened to; others are edited, paused and deleted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import expect

from standalone.up import FIRST_ADMIN
from tests.ui.browser import Visit, barriers
from tests.ui.conftest import Installation, Visitors
from tests.workers.conftest import until


@pytest.mark.clicks("/schedules/new", "/schedules/{schedule_id}/run-now")
def test_the_daily_schedule_is_made_run_and_listened_to(keeper: Visit) -> None:
    page = keeper.open("/schedules")
    keeper.follow("New schedule")
    keeper.fill(name="Every morning")
    page.get_by_label("Feature").select_option("daily_zodiac_text")
    expect(page.locator("[name='lines.sign']:checked")).to_have_count(12)
    keeper.fill(timezone="Europe/Berlin", cron="0 6 * * *")
    expect(page.locator("#instants .badge")).to_have_count(5)
    expect(page.locator("#instants")).to_contain_text("06:00")
    page.locator("[name='lines.language']").fill("en\nde")
    expect(page.locator("#jobs")).to_contain_text("24 jobs each time")
    page.locator("[name='lines.language']").fill("en")
    expect(page.locator("#jobs")).to_contain_text("12 jobs each time")
    page.get_by_role("button", name="Add a step").click()
    page.locator("[name='then.0.feature_name']").select_option("daily_zodiac_tts")
    assert barriers(page) == ""
    keeper.press("Save schedule")
    keeper.told("Every morning is there.")

    keeper.press("Run now", confirm=True)

    keeper.told("12 jobs enqueued.")
    expect(page.locator("#group")).to_contain_text("24 of 24", timeout=60_000)
    expect(page.locator("#group")).to_contain_text("finished")
    players = page.locator("li audio")
    expect(players).to_have_count(12)
    expect(page.locator("li.card", has_text="pisces")).to_contain_text("daily_zodiac_tts")
    players.first.focus()
    page.keyboard.press("Space")
    until(lambda: players.first.evaluate("each => each.currentTime") > 0.2)

    page.locator("li.card", has_text="leo").get_by_role("link", name="daily_zodiac_tts").click()
    page.wait_for_url("**/jobs/*")
    chain = page.locator("#chain")
    expect(chain.get_by_role("link", name="daily_zodiac_text")).to_be_visible()
    expect(chain.locator("[aria-current=step]")).to_have_text("daily_zodiac_tts")
    keeper.follow("Every morning")
    expect(page.locator("h1")).to_contain_text("Every morning")


@pytest.fixture
def schedule(installation: Installation) -> Iterator[str]:
    """The path of a schedule whose jobs fail."""
    body: dict[str, Any] = {
        "name": "Code of the hour",
        "cron": "0 * * * *",
        "feature_name": "code_generation",
        "inputs_matrix": {"task": ["Sort a list.", "<script>alert(1)</script>"]},
    }
    machine = installation.machine
    with machine.api(machine.command("token", "admin", "--email", FIRST_ADMIN, "--mfa").strip()) as api:
        id_ = api.call("POST", "/api/v1/schedules", body)["id"]
        yield f"/schedules/{id_}"
        if any(each["id"] == id_ for each in api.pages("/api/v1/schedules")):
            api.call("DELETE", f"/api/v1/schedules/{id_}")


@pytest.mark.clicks(
    *("/schedules/{schedule_id}/edit", "/schedules/{schedule_id}/pause"),
    *("/schedules/{schedule_id}/resume", "/schedules/{schedule_id}/delete"),
)
def test_a_schedule_is_edited_paused_resumed_and_deleted(keeper: Visit, schedule: str) -> None:
    keeper.expecting |= {422}
    page = keeper.open(schedule)
    keeper.follow("Edit")
    keeper.fill(cron="61 * * * *")
    expect(page.locator("#instants .error")).to_be_visible()
    keeper.press("Save schedule")
    expect(page.locator("#field-cron-error")).to_be_visible()
    assert barriers(page) == ""
    keeper.fill(cron="30 7 * * 1-5")
    page.get_by_role("button", name="Add a step").click()
    page.get_by_role("button", name="Remove step 1").click()
    expect(page.locator("#steps")).to_contain_text("Nothing: each job stands alone.")
    keeper.press("Save schedule")
    keeper.told("Schedule saved.")
    expect(page.locator(".page-head")).to_contain_text("Monday to Friday at 07:30")

    keeper.press("Pause")
    keeper.told("is paused", "warn")
    keeper.open("/schedules")
    keeper.press("Resume Code of the hour")
    keeper.told("runs again")
    keeper.press("Delete Code of the hour", confirm=True)
    keeper.told("is deleted")


@pytest.mark.clicks("/schedules/{schedule_id}/run-now", "/jobs/matching")
def test_what_failed_of_a_group_is_run_again(keeper: Visit, schedule: str) -> None:
    page = keeper.open("/schedules")
    keeper.press("Run now Code of the hour", confirm=True)
    expect(page.locator("#group")).to_contain_text("2 failed", timeout=60_000)
    assert barriers(page) == ""
    keeper.follow("Run failed again")
    expect(page.locator("main")).to_contain_text("2 jobs")
    keeper.press("Retry 2 jobs")
    keeper.told("2 jobs enqueued again.")
    keeper.follow("group")
    keeper.follow("Code of the hour")
    assert keeper.path == schedule


@pytest.mark.clicks("/schedules/new")
def test_a_schedule_is_made_without_scripts(visiting: Visitors) -> None:
    visit = visiting("keeper", java_script_enabled=False)
    page = visit.open("/schedules/new")
    visit.fill(name="By hand", cron="0 6 * * *")
    page.get_by_label("Feature").select_option("daily_zodiac_text")
    visit.press("Show its inputs")
    visit.press("Preview")
    expect(page.locator("#instants .badge")).to_have_count(5)
    visit.press("Add a step")
    visit.press("Remove step 1")
    page.locator("[name='lines.language']").fill("en\nde\nar")
    visit.press("Count the jobs")
    expect(page.locator("#jobs")).to_contain_text("36 jobs each time")
    expect(page.locator("[name=name]")).to_have_value("By hand")
    visit.check()
