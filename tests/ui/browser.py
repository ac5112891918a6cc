"""A real browser, and what it complains of."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import BrowserContext, ConsoleMessage, Page, Request, Response, expect

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]


def installed() -> str | None:
    """The path of a Chromium; ORRERY_TEST_BROWSER names another."""
    given = os.environ.get("ORRERY_TEST_BROWSER")
    return given or next(filter(None, map(shutil.which, _NAMES)), None)


def barriers(page: Page) -> str:
    """What keeps people out of the page, by the rules of WCAG A and AA; empty where nothing does."""
    found = Axe().run(page, options={"runOnly": _RULES, "resultTypes": ["violations"]})
    return found.generate_report() if found.violations_count else ""


@dataclass
class Visit:
    """Somebody at a browser.

    `problems`: what should not have been, in words: console errors (violations of the policy among them),
    uncaught exceptions, failed requests, and answers of 400 and more, but those that `expecting` names.
    `posted`: paths of POSTs that were answered well.
    """

    context: BrowserContext
    url: str
    expecting: set[int] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
    posted: set[str] = field(default_factory=set)
    requests: list[Response] = field(default_factory=list)
    page: Page = field(init=False)

    def __post_init__(self) -> None:
        self.page = self.context.new_page()
        self.page.set_default_timeout(20_000)
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.problems.append(f"uncaught: {error}"))
        self.page.on("requestfailed", self._failed)
        self.page.on("response", self._answered)

    def open(self, path: str) -> Page:
        """Go to a page."""
        self.page.goto(self.url + path, wait_until="load")
        return self.page

    @property
    def path(self) -> str:
        """Where we are."""
        return urlsplit(self.page.url).path

    def press(self, name: str, *, within: str = "main", confirm: bool = False) -> None:
        """Press the button of this name, say yes where we are asked, and wait for the answer's page."""
        button = self.page.locator(within).get_by_role("button", name=name).first
        with self.page.expect_navigation(wait_until="load"):
            button.click()
            if confirm:
                self.page.locator("dialog#confirm").get_by_role("button", name="Yes").click()

    def follow(self, name: str, *, within: str = "main") -> None:
        """Follow the link of this name."""
        with self.page.expect_navigation(wait_until="load"):
            self.page.locator(within).get_by_role("link", name=name).first.click()

    def fill(self, **fields: str) -> None:
        """Type into fields, by their names."""
        for name, value in fields.items():
            self.page.locator(f"main [name='{name}']").first.fill(value)

    def told(self, text: str, kind: str = "good") -> None:
        """The page tells this about what was just done: `good`, `warn` or `bad` news."""
        expect(self.page.locator(f"#flash .alert.{kind}")).to_contain_text(text)

    def check(self) -> None:
        """Fail where there was any problem."""
        assert self.problems == []

    def _said(self, message: ConsoleMessage) -> None:
        is_expected = any(f"status of {status}" in message.text for status in self.expecting)
        if message.type in ("error", "warning") and not is_expected:
            self.problems.append(f"console at {self.path}: {message.text}")

    def _failed(self, request: Request) -> None:
        if "ERR_ABORTED" not in (request.failure or ""):  # a poll that a click outran
            self.problems.append(f"{request.method} {request.url}: {request.failure}")

    def _answered(self, response: Response) -> None:
        self.requests.append(response)
        if response.status < 400 and response.request.method == "POST":
            self.posted.add(urlsplit(response.url).path)
        if response.status >= 400 and response.status not in self.expecting:
            self.problems.append(f"{response.request.method} {response.url}: {response.status}")
