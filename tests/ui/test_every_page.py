"""Every page, as each kind of person, in a real browser under the real policy."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import pytest
from starlette.routing import compile_path

from admin_api.security import Actor
from tests.ui.browser import Visit, barriers
from tests.ui.conftest import Installation, Visitors, page_routes

LARGEST = 60_000  # bytes of a page with all that it loads
MOST_REQUESTS = 8
WIDTHS = (1360, 3840, 360)

_DOOR = ("/", "/login", "/login/code")  # lead on who is logged in
_NO_PAGE = re.compile(r"artifact|/events$|\.csv|\.json|download|^/static|^/account/second-factor")
"""What answers with other things than HTML, and what is shown only as the answer to a form."""

MORE = (
    "/jobs/{speech_id}",
    "/jobs/{failed_id}",
    "/jobs/{chained_id}",
    "/jobs?state=failed",
    "/jobs?group_id={group_id}",
    "/jobs/matching?action=retry&state=failed",
    "/playground?feature=chat_assistant",
    "/usage?days=7",
    "/alerts?acknowledged=any",
    "/schedules/new?feature=daily_zodiac_text",
    "/providers/{sandbox_id}",
    "/models/new?provider={sandbox_id}",
    "/catalog?vendor=openai",
    "/assignments/code_generation/compare?version=1",
    "/setup/provider?vendor=openai",
    "/setup/provider?vendor=other",
    "/setup/test?provider={sandbox_id}",
    "/setup/model?provider={sandbox_id}",
    "/setup/assign?provider={provider_id}&model={model_id}",
    "/setup/run?feature=chat_assistant",
)
"""Pages of routes that show something else by their query, or by what they are about."""

PATHS = [
    *(
        route.path
        for route in page_routes()
        if "GET" in (route.methods or ()) and route.path not in _DOOR and not _NO_PAGE.search(route.path)
    ),
    *MORE,
]
every_page = pytest.mark.parametrize("path", PATHS)


def _address(path: str, installation: Installation) -> str:
    return re.sub(r"{(\w+)}", lambda key: installation.ids[key[1]], path)


@every_page
def test_a_super_admin_has_nothing_to_complain_of(
    path: str, visiting: Visitors, installation: Installation
) -> None:
    visit = visiting("keeper")  # a browser of its own, so that nothing is cached
    visit.open(_address(path, installation))

    assert visit.page.locator("h1").count() == 1
    _links_lead_below_the_root(visit)
    _is_small(visit)
    assert barriers(visit.page) == ""
    _works_by_keyboard(visit)
    _stays_in_its_window(visit)
    _rests_where_that_is_asked_for(visit)
    visit.check()


def _links_lead_below_the_root(visit: Visit) -> None:
    links = visit.page.locator("nav a").evaluate_all("all => all.map(each => each.getAttribute('href'))")
    assert links
    assert [link for link in links if not re.match("/(?!/)", link)] == []


def _is_small(visit: Visit) -> None:
    own = [each for each in visit.requests if each.request.resource_type != "media"]
    size = sum(len(each.body()) for each in own if each.status == 200)
    assert size <= LARGEST
    assert len(own) <= MOST_REQUESTS, [each.url for each in own]


def _stays_in_its_window(visit: Visit) -> None:
    for width in WIDTHS:
        visit.page.set_viewport_size({"width": width, "height": 900})
        over = visit.page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        assert over <= 0, f"{over} px too wide for {width} px"


def _rests_where_that_is_asked_for(visit: Visit) -> None:
    visit.page.emulate_media(reduced_motion="reduce")
    assert _moving(visit) == 0


def _moving(visit: Visit) -> int:
    return visit.page.evaluate(  # type: ignore[no-any-return]
        "document.getAnimations().filter(each => each.playState === 'running').length"
    )


def _works_by_keyboard(visit: Visit) -> None:
    """The first stop is the way past the navigation, and what can be used can be reached."""
    visit.page.evaluate("document.activeElement.blur()")
    visit.page.keyboard.press("Tab")
    assert visit.page.evaluate("document.activeElement.textContent") == "Skip to content"
    unreachable = visit.page.locator(
        "main :is(a[href], button, input:not([type=hidden]), select, textarea, summary):visible"
    ).evaluate_all(
        """all => all.filter(each => !each.disabled && each.tabIndex < 0 && !each.closest('dialog'))
           .map(each => each.outerHTML.slice(0, 120))"""
    )
    assert unreachable == []


@every_page
def test_an_admin_reads_and_is_offered_nothing_that_would_be_refused(
    path: str, visiting: Visitors, installation: Installation
) -> None:
    visit = visiting("admin")
    address = _address(path, installation)
    if not _may("GET", urlsplit(address).path):
        visit.expecting |= {403}
    visit.open(address)

    assert visit.page.locator("h1").count() == 1
    assert visit.requests[0].status == (403 if visit.expecting else 200)
    offered = visit.page.locator("main :is(form, [formaction], a[href])").evaluate_all(_OFFERED)
    refused = [(method, to) for method, to in offered if not _may(method, to)]
    assert refused == []
    visit.check()


_OFFERED = """all => all.map(each => {
    const to = ["href", "formaction", "action"].map(name => each.getAttribute(name)).find(each => each);
    const method = each.matches("a") ? "GET" : (each.form ?? each).method.toUpperCase();
    return [method, new URL(to ?? "", location.href)];
}).filter(([, to]) => to.origin === location.origin).map(([method, to]) => [method, to.pathname])"""


def _may(method: str, path: str) -> bool:
    """Whether an admin may, by the rule of the route that serves it."""
    for route in page_routes():
        if method in (route.methods or ()) and compile_path(route.path)[0].fullmatch(path):
            return Actor.ADMIN in route.rule.actors or route.rule.is_public
    raise AssertionError(f"nothing serves {method} {path}")


def test_a_stranger_is_led_to_the_login(visiting: Visitors, installation: Installation) -> None:
    visit = visiting(None)
    for path in PATHS:
        visit.open(_address(path, installation))
        assert visit.path == "/login", path
    visit.check()


def test_the_door_is_as_good_as_the_pages_behind_it(visiting: Visitors) -> None:
    visit = visiting(None)
    visit.open("/login")

    _is_small(visit)
    assert barriers(visit.page) == ""
    _stays_in_its_window(visit)
    visit.check()


def test_an_address_that_leads_nowhere_is_told_as_a_page(visiting: Visitors) -> None:
    visit = visiting("keeper")
    visit.expecting |= {404}
    visit.open("/nowhere")

    assert "404" in visit.page.locator("main").inner_text()
    assert barriers(visit.page) == ""
    _stays_in_its_window(visit)
    visit.check()


def test_what_moves_rests_for_who_asked_for_that(visiting: Visitors) -> None:
    visit = visiting("keeper")
    visit.open("/overview")
    assert _moving(visit) > 0

    _rests_where_that_is_asked_for(visit)


def test_arabic_reads_from_right_to_left(visiting: Visitors, installation: Installation) -> None:
    visit = visiting("keeper")
    visit.open(f"/jobs/{installation.ids['job_id']}")
    output = visit.page.locator("main .output[dir=auto]").first
    assert re.search("[\u0600-\u06ff]", output.inner_text())
    assert output.evaluate("each => getComputedStyle(each).direction") == "rtl"
