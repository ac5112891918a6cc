"""Every page, as each kind of person, in a real browser under the real policy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from statistics import median

import pytest
from axe_playwright_python.sync_playwright import Axe

from admin_api.pages.route import PageRoute
from tests.ui.browser import Visit
from tests.ui.conftest import Installation, Visitors

LARGEST = 60_000  # bytes of a page with all that it loads
MOST_REQUESTS = 8
NO_PAGE = ("/", "/login", "/login/code", "/logout")
"""Redirects, and what is only for who is not logged in."""

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]


@pytest.fixture
def paths(routes: list[PageRoute], installation: Installation) -> list[str]:
    """The address of each page that is HTML, and each kind of job."""
    ids = installation.ids
    found = [
        re.sub(r"{(\w+)}", lambda key: ids[key[1]], route.path)
        for route in routes
        if "GET" in (route.methods or ())
        and not route.path.startswith("/static")
        and route.path not in NO_PAGE
        and not re.search(r"artifact|\.csv|\.json|download|/raw", route.path)
    ]
    return [
        *found,
        f"/jobs/{ids['speech_id']}",
        f"/jobs/{ids['failed_id']}",
        "/jobs?state=failed",
        "/usage?days=7",
    ]


def _opened(visit: Visit, paths: list[str]) -> Iterator[str]:
    for path in paths:
        visit.requests.clear()
        visit.open(path)
        yield path


def test_a_super_admin_sees_every_page_without_a_complaint(visiting: Visitors, paths: list[str]) -> None:
    visit = visiting("keeper")
    times = []

    for path in _opened(visit, paths):
        page = visit.page
        assert page.locator("h1").count() == 1, f"{path} has a heading"
        links = page.locator("nav a").evaluate_all("all => all.map(each => each.getAttribute('href'))")
        assert links, f"{path} has a <nav>"
        assert all(link.startswith("/") and not link.startswith("//") for link in links), path
        found = Axe().run(page, options={"runOnly": RULES, "resultTypes": ["violations"]})
        assert found.violations_count == 0, f"{path}: {found.generate_report()}"
        times.append(page.evaluate("performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd"))
    visit.check()
    assert median(times) > 0


def test_pages_are_small(visiting: Visitors, paths: list[str]) -> None:
    too_large = {}
    for path in paths:
        visit = visiting("keeper")  # nothing cached
        visit.open(path)
        own = [each for each in visit.requests if each.request.resource_type != "media"]
        size = sum(len(each.body()) for each in own if each.status == 200)
        if size > LARGEST or len(own) > MOST_REQUESTS:
            too_large[path] = (size, len(own))
        visit.context.close()
    assert too_large == {}


def test_an_admin_reads_and_finds_no_button_that_would_be_refused(
    visiting: Visitors, paths: list[str]
) -> None:
    visit = visiting("admin")
    visit.expecting |= {403}

    for path in _opened(visit, paths):
        assert visit.page.locator("h1").count() == 1, path
        if any(each.status == 403 for each in visit.requests):
            continue  # a page that only writes
        actions = visit.page.locator("main form[method=post]").evaluate_all(
            "all => all.map(each => each.getAttribute('action'))"
        )
        refused = [
            action for action in actions if not re.match(r"/(account|jobs|playground)\b", action or path)
        ]
        assert refused == [], f"{path} offers what an admin may not do"
    visit.check()


def test_a_stranger_is_led_to_the_login(visiting: Visitors, paths: list[str]) -> None:
    visit = visiting(None)
    for path in _opened(visit, paths):
        assert visit.path == "/login", path
    visit.check()


@pytest.mark.parametrize("width", [360, 1360, 3840])
def test_nothing_runs_out_of_the_window(width: int, visiting: Visitors, paths: list[str]) -> None:
    visit = visiting("keeper", width=width, height=900)
    for path in _opened(visit, paths):
        wide = visit.page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        assert wide <= 0, f"{path} is {wide} px too wide"
    visit.check()


def test_nothing_moves_for_who_asked_for_that(visiting: Visitors) -> None:
    visit = visiting("keeper", reduced_motion="reduce")
    visit.open("/overview")
    moving = visit.page.evaluate(
        "document.getAnimations().filter(each => each.playState === 'running').length"
    )
    assert moving == 0


def test_arabic_reads_from_right_to_left(visiting: Visitors, installation: Installation) -> None:
    visit = visiting("keeper")
    visit.open(f"/jobs/{installation.ids['job_id']}")
    output = visit.page.locator("main .output[dir=auto]").first
    assert re.search("[\u0600-\u06ff]", output.inner_text())
    assert output.evaluate("each => getComputedStyle(each).direction") == "rtl"


def test_pages_work_by_keyboard(visiting: Visitors, paths: list[str]) -> None:
    """Tab reaches every link, button and field that can be seen, in their order, and none holds it."""
    visit = visiting("keeper")
    for path in _opened(visit, paths):
        visit.page.evaluate("document.activeElement.blur()")
        visit.page.keyboard.press("Tab")
        assert visit.page.evaluate("document.activeElement.textContent") == "Skip to content", path
        unreachable = visit.page.locator(
            "main :is(a[href], button, input:not([type=hidden]), select, textarea, summary):visible"
        ).evaluate_all(
            """all => all.filter(each => !each.disabled && each.tabIndex < 0 && !each.closest('dialog'))
               .map(each => each.outerHTML.slice(0, 120))"""
        )
        assert unreachable == [], path
