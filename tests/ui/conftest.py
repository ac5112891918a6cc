"""Orrery as `orrery up --sandbox` runs it, with some work done, and people before it."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, StorageState, expect, sync_playwright
from starlette.routing import compile_path

from admin_api.pages import PARTS
from admin_api.pages.route import PageRoute
from standalone.supervisor import orrery
from standalone.up import FIRST_ADMIN
from tests.machine import Machine, environment
from tests.ui.browser import Visit, installed
from tests.ui.work import done

ADMIN, ADMIN_PASSWORD = "reader@example.com", "four words like these"


@dataclass(frozen=True)
class Installation:
    """A machine with some work done. `ids`: what stands for the keys of pages' addresses."""

    machine: Machine
    ids: Mapping[str, str]

    def add(self, email: str, password: str) -> None:
        """Somebody who may read, and keeps the own account."""
        subprocess.run(
            [
                *(*orrery(), "admin", "create", "--email", email, "--role", "admin", "--password-stdin"),
                *("--home", str(self.machine.home)),
            ],
            env=environment(),
            input=f"{password}\n",
            text=True,
            check=True,
            capture_output=True,
        )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A browser and an installation of its own take minutes: this is a battery of `make test-full`."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.full)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    found = installed()
    if found is None:
        assert not os.environ.get("CI"), "CI has a browser: .ci/run installs it"
        pytest.skip("no Chromium is installed: apt install chromium, or set ORRERY_TEST_BROWSER")
    expect.set_options(timeout=20_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def installation(browser: Browser) -> Iterator[Installation]:
    home = Path(tempfile.mkdtemp(prefix="orrery-ui-"))
    home.chmod(0o755)
    with closing(Machine(home, "--sandbox", "--workers", "1", "--threads", "4")) as machine:
        made = Installation(machine, done(machine))
        made.add(ADMIN, ADMIN_PASSWORD)
        yield made


@pytest.fixture(scope="session")
def logins(browser: Browser, installation: Installation) -> dict[str, StorageState]:
    """The cookies of whoever has logged in by the form."""
    machine = installation.machine
    people = {"keeper": (FIRST_ADMIN, machine.password), "admin": (ADMIN, ADMIN_PASSWORD)}
    found = {}
    for role, (email, password) in people.items():
        context = browser.new_context(base_url=machine.url)
        page = context.new_page()
        page.goto("/")
        page.get_by_label("E-mail").fill(email)
        page.get_by_label("Password").fill(password)
        page.get_by_role("button").click()
        page.wait_for_url("**/overview")
        found[role] = context.storage_state()
        context.close()
    return found


Visitors = Callable[..., Visit]


@pytest.fixture
def visiting(
    browser: Browser, installation: Installation, logins: Mapping[str, StorageState]
) -> Iterator[Visitors]:
    """Makes visits: `visiting("keeper")`, `visiting("admin", width=360)`, `visiting(None)` for a stranger."""
    made: list[Visit] = []

    def visit(role: str | None, *, width: int = 1360, height: int = 900, **options: object) -> Visit:
        state = logins[role] if role else None
        context = browser.new_context(
            storage_state=state,
            viewport={"width": width, "height": height},
            **options,  # type: ignore[arg-type]
        )
        made.append(Visit(context, installation.machine.url))
        return made[-1]

    yield visit
    for each in made:
        each.context.close()


@pytest.fixture
def keeper(visiting: Visitors, request: pytest.FixtureRequest) -> Iterator[Visit]:
    """A super admin at a desk. What the test's mark `clicks` names must have been sent, and gone well."""
    visit = visiting("keeper")
    yield visit
    check(visit, request.node)


def check(visit: Visit, test: pytest.Item) -> None:
    """Fail where the browser complained, or where an action that the test's mark names was not sent."""
    visit.check()
    mark = test.get_closest_marker("clicks")
    wanted = mark.args if mark else ()
    missed = [path for path in wanted if not any(compile_path(path)[0].fullmatch(at) for at in visit.posted)]
    assert missed == [], "the walk does not send what its mark names"


def page_routes() -> list[PageRoute]:
    """The pages and actions of the web UI."""
    return [route for part in PARTS for route in part.router.routes if isinstance(route, PageRoute)]
