"""`python -m tests.ui.screenshots`: a picture of every page, for docs/screenshots and to be judged."""

from __future__ import annotations

import re
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
from playwright.sync_api import Browser, Page, sync_playwright

from standalone.up import FIRST_ADMIN
from tests import busy
from tests.machine import Machine
from tests.ui.browser import installed
from tests.ui.work import HOROSCOPES, done
from tests.workers.conftest import until

_FOLDER = Path(__file__).parents[2] / "docs" / "screenshots"
_QUALITY = 82  # of a JPEG: a page takes some 100 kB
_COUNTING_SECONDS = 20.0  # in which workers count the past

PAGES: Mapping[str, str] = {
    "overview": "/overview",
    "jobs": "/jobs",
    "job": "/jobs/{job_id}",
    "job-speech": "/jobs/{speech_id}",
    "job-failed": "/jobs/{failed_id}",
    "playground": "/playground?feature=daily_zodiac_text",
    "queues": "/queues",
    "schedules": "/schedules",
    "schedule": "/schedules/{schedule_id}",
    "schedule-edit": "/schedules/{schedule_id}/edit",
    "group": "/groups/{group_id}",
    "job-chain": "/jobs/{chained_id}",
    "usage": "/usage",
    "alerts": "/alerts",
    "providers": "/providers",
    "provider": "/providers/{sandbox_id}",
    "provider-new": "/providers/new",
    "model": "/models/{model_id}",
    "catalog": "/catalog",
    "assignments": "/assignments",
    "assignment": "/assignments/daily_zodiac_text",
    "features": "/features",
    "forecast": "/forecast",
    "batches": "/batches",
    "retention": "/retention",
    "budgets": "/budgets",
    "integrations": "/integrations",
    "people": "/people",
    "tokens": "/tokens",
    "account": "/account",
    "audit": "/audit",
    "setup": "/setup",
}
NARROW = ("overview", "jobs", "job", "group", "usage", "assignment")
"""Pages that are shown on a phone, too."""


def main() -> None:
    """Take all pictures, at 1360 px and some at 360 px; by name where names are given."""
    wanted = sys.argv[1:] or list(PAGES)
    _FOLDER.mkdir(exist_ok=True)
    with _machine() as machine, _browser() as browser:
        ids = done(machine) | _filled(machine)
        page = _entered(browser, machine, 1360)
        for name in wanted:
            _take(page, PAGES[name].format(**ids), name)
        phone = _entered(browser, machine, 360)
        for name in filter(wanted.__contains__, NARROW):
            _take(phone, PAGES[name].format(**ids), f"{name}-360")
        if not sys.argv[1:]:
            _take(browser.new_page(base_url=machine.url), "/login", "login")


@contextmanager
def _machine() -> Iterator[Machine]:
    home = Path(tempfile.mkdtemp(prefix="orrery-shots-"))
    home.chmod(0o755)
    with closing(Machine(home, "--sandbox", "--workers", "1", "--threads", "4")) as machine:
        yield machine


@contextmanager
def _browser() -> Iterator[Browser]:
    found = installed()
    if found is None:
        sys.exit("No Chromium is installed: apt install chromium, or set ORRERY_TEST_BROWSER.")
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])


def _filled(machine: Machine) -> dict[str, str]:
    """Vendors, people and tokens, and a past of theirs; what stands for the keys of pages' addresses."""
    token = machine.command("token", "admin", "--email", FIRST_ADMIN, "--mfa").strip()
    exported = re.search(r"ORRERY_DATABASE_URL='?([^'\n]+)", machine.command("env"))
    assert exported is not None
    with machine.api(token) as api, psycopg.connect(exported[1], autocommit=True) as db:

        def make(path: str, body: dict[str, Any]) -> dict[str, Any]:
            made: dict[str, Any] = api.call("POST", f"/api/v1{path}", body)
            return made

        models = busy.configure(make)
        for email, role in (("ada@example.com", "super_admin"), ("noor@example.com", "admin")):
            make("/admins", {"email": email, "role": role, "password": "four words like these"})
        for name in ("Web shop", "Mobile app", "Nightly horoscopes"):
            make("/tokens", {"name": name})
        assignments = list(api.pages("/api/v1/feature-assignments"))
        served = [each["feature_name"] for each in assignments]
        for at, each in enumerate(assignments):
            if each["feature_name"] in ("tarot_reading", "cv_draft", "analytics_insights"):
                targets = [{"model_id": models[(at + place) % len(models)]["id"]} for place in range(2)]
                api.call("PATCH", f"/api/v1/feature-assignments/{each['id']}", {"targets": targets})
        for scope, scope_id, period, limit, action in (
            ("feature", "daily_zodiac_text", "day", "12.50", "defer"),
            ("provider", models[1]["provider_id"], "month", "40", "downgrade"),
            ("user", None, "month", "2", "block"),
        ):
            whose = {"scope": scope, "scope_id": scope_id, "period": period}
            make("/budgets", {**whose, "limit_usd": limit, "action": action})
        make("/integrations", {"name": "pager", "type": "webhook", "endpoint": "https://example.com/pager"})
        busy.work(db, models, served)
        cheap = {**HOROSCOPES, "name": "Horoscopes by the batch", "use_batch_api": True, "then": []}
        make(f"/schedules/{make('/schedules', cheap)['id']}/run-now", {})
        until(lambda: api.call("GET", "/api/v1/batches?state=submitted")["items"], seconds=60)
    time.sleep(_COUNTING_SECONDS)
    return {"sandbox_id": models[0]["provider_id"], "model_id": models[0]["id"]}


def _entered(browser: Browser, machine: Machine, width: int) -> Page:
    page = browser.new_page(
        base_url=machine.url, viewport={"width": width, "height": 900 if width > 400 else 780}
    )
    page.goto("/")
    page.get_by_label("E-mail").fill(FIRST_ADMIN)
    page.get_by_label("Password").fill(machine.password)
    page.get_by_role("button").click()
    page.wait_for_url("**/overview")
    return page


def _take(page: Page, path: str, name: str) -> None:
    page.goto(path)
    size = page.viewport_size
    assert size is not None
    tall = page.evaluate("document.documentElement.scrollHeight")
    page.set_viewport_size(
        {"width": size["width"], "height": max(tall, size["height"])}
    )  # the rail grows, too
    page.wait_for_timeout(300)  # fonts and the first frame
    page.screenshot(path=_FOLDER / f"{name}.jpg", type="jpeg", quality=_QUALITY)
    page.set_viewport_size(size)
    print(f"{name}: {path}", flush=True)


if __name__ == "__main__":
    main()
