"""Somebody runs jobs, looks at them, ends them and runs them again; lanes stop and go."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

from standalone.api_client import ApiClient
from standalone.up import FIRST_ADMIN
from tests.ui.browser import Visit, barriers
from tests.ui.conftest import Installation
from tests.ui.work import ARABIC


@pytest.mark.clicks("/playground")
def test_a_job_is_run_in_the_playground_and_its_answer_appears(keeper: Visit) -> None:
    page = keeper.open("/playground")
    keeper.follow("chat_assistant")
    page.locator("[name='input.message']").fill(f"{ARABIC} <b>hi</b>")
    page.get_by_role("button", name="Who would win?").click()
    expect(page.locator("#plan")).to_contain_text("sandbox-text")
    expect(page.locator("[name='input.message']")).to_have_value(re.compile(ARABIC))

    keeper.press("Run")

    expect(page.locator("#answer")).not_to_be_empty()
    assert page.locator("#answer b").count() == 0, "what a model writes is text"


@pytest.fixture
def slow(installation: Installation) -> Iterator[None]:
    """Providers write a byte at a time."""
    machine = installation.machine
    with machine.api(machine.command("token", "admin", "--email", FIRST_ADMIN, "--mfa").strip()) as api:
        sandbox = urlsplit(api.call("GET", f"/api/v1/providers/{installation.ids['sandbox_id']}")["base_url"])
    with closing(ApiClient(f"{sandbox.scheme}://{sandbox.netloc}")) as faults:
        faults.call("POST", "/_sandbox/faults", {"protocol": "*", "mode": "drip", "seconds": 0.002})
        yield
        faults.call("DELETE", "/_sandbox/faults")


@pytest.mark.clicks("/playground")
@pytest.mark.usefixtures("slow")
def test_a_text_is_shown_as_it_is_written(keeper: Visit) -> None:
    page = keeper.open("/playground?feature=chat_assistant")
    assert page.get_by_label("Show as it is written").is_checked()

    keeper.press("Run")

    written = page.locator("[data-follow]")
    expect(written).not_to_be_empty()
    begun = written.inner_text()
    expect(page.locator("#answer")).to_contain_text(begun, timeout=60_000)
    assert len(page.locator("#answer").inner_text()) > len(begun), "it was shown while it was written"
    assert page.locator("[data-follow]").count() == 0


@pytest.fixture
def lane(installation: Installation) -> Iterator[str]:
    """A lane that runs afterwards, whatever the walk leaves behind; other walks run no job of it."""
    yield "batch"
    machine = installation.machine
    with machine.api(machine.command("token", "admin", "--email", FIRST_ADMIN, "--mfa").strip()) as api:
        api.call("POST", "/api/v1/queues/batch/resume")


@pytest.mark.clicks(
    "/queues/{lane}/pause",
    "/queues/{lane}/resume",
    "/playground",
    "/jobs/{job_id}/cancel",
    "/jobs/{job_id}/retry",
)
def test_a_paused_lane_keeps_a_job_that_is_cancelled_and_run_again(keeper: Visit, lane: str) -> None:
    page = keeper.open("/queues")
    keeper.press(f"Pause {lane}", confirm=True)
    keeper.told(f"{lane} is paused", "warn")

    keeper.open("/playground?feature=analytics_insights")
    keeper.press("Run")
    keeper.follow("All of it")
    job = keeper.path
    expect(page.locator("main .page-head")).to_contain_text("queued")
    keeper.press("Cancel", confirm=True)
    keeper.told("cancelled")
    expect(page.locator("main .page-head")).to_contain_text("cancelled")

    keeper.open("/queues")
    keeper.press(f"Resume {lane}")
    keeper.told(f"{lane} runs again")
    keeper.open(job)
    keeper.press("Retry", confirm=True)
    keeper.told("Enqueued again")
    assert keeper.path != job
    expect(page.locator("main .page-head")).to_contain_text("succeeded", timeout=30_000)


@pytest.mark.clicks("/jobs/selection", "/jobs/matching")
def test_jobs_are_run_again_as_picked_and_as_found(keeper: Visit) -> None:
    page = keeper.open("/jobs?feature=text_embedding")
    assert page.get_by_role("button", name="Retry").first.is_disabled()
    page.locator("[data-pick]").first.check()
    keeper.press("Retry", confirm=True)
    keeper.told("1 job")

    keeper.open("/jobs?feature=code_generation&state=failed")
    keeper.follow("retry")
    keeper.press("Retry")
    keeper.told("jobs")


def test_jobs_are_narrowed_by_who_served_them(keeper: Visit) -> None:
    page = keeper.open("/jobs")
    page.get_by_label("Provider").select_option("broken")
    keeper.press("Filter")
    assert "provider=broken" in page.url
    expect(page.locator("table.jobs")).to_contain_text("code_generation")
    expect(page.locator("table.jobs")).not_to_contain_text("chat_assistant")

    keeper.expecting |= {422}
    keeper.open(f"/jobs?q={'x' * 201}")
    expect(page.locator(".error").first).to_be_visible()
    assert barriers(page) == ""


def test_audio_plays_and_records_can_be_saved(keeper: Visit, installation: Installation) -> None:
    page = keeper.open(f"/jobs/{installation.ids['speech_id']}")
    audio = page.locator("audio")
    page.wait_for_function("document.querySelector('audio').duration > 0.5")
    assert audio.get_attribute("controls") is not None
    keeper.follow("Record as JSON")
    assert page.locator("body").inner_text().startswith("{")


@pytest.mark.clicks("/queues/failed/{job_id}/replay", "/queues/failed/replay")
def test_failures_are_replayed(keeper: Visit) -> None:
    keeper.open("/queues")
    keeper.press("Replay code_generation")
    keeper.told("repeats it: code_generation")
    keeper.press("Replay all", confirm=True)
    keeper.told("jobs")


@pytest.mark.clicks("/alerts/{alert_id}/acknowledge")
def test_an_alert_is_acknowledged(keeper: Visit) -> None:
    page = keeper.open("/alerts")
    open_alerts = page.get_by_role("button", name="Acknowledge").count()
    assert open_alerts
    keeper.press("Acknowledge")
    keeper.told("Acknowledged")
    expect(page.get_by_role("button", name="Acknowledge")).to_have_count(open_alerts - 1)
