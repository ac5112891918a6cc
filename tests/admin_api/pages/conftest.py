"""People at browsers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from html import unescape
from typing import Any, TypeAlias

import httpx
import pytest

from admin_api.browser import csrf_token
from store.settings import Settings
from tests.admin_api.conftest import People
from tests.admin_api.logins import PASSWORD, Person, person

HTML = "text/html,application/xhtml+xml"


class Browser:
    """A browser that follows no redirect by itself, and sends forms as pages do: with token and origin."""

    def __init__(self, http: httpx.Client) -> None:
        self.origin = str(http.base_url).rstrip("/")
        self.http = httpx.Client(
            base_url=http.base_url, timeout=30, trust_env=False, headers={"Accept": HTML}
        )

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.http.get(path, **options)

    def post(
        self, path: str, fields: Mapping[str, Any] | None = None, *, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """Send a form. A field that is None is left out, also `csrf`."""
        sent = {"csrf": csrf_token(self.session or ""), **(fields or {})}
        return self.http.post(
            path,
            data={name: value for name, value in sent.items() if value is not None},
            headers={"Origin": self.origin, **(headers or {})},
        )

    def log_in(self, who: Person, password: str = PASSWORD, *, path: str = "/login") -> httpx.Response:
        """Send the first form."""
        return self.post(path, {"email": who.email, "password": password, "csrf": None})

    def entered(self, who: Person) -> Browser:
        """This browser, logged in; `who` has no second factor."""
        answer = self.log_in(who)
        assert answer.status_code == 303, answer.text
        assert answer.headers["location"] == "/overview"
        return self

    @property
    def session(self) -> str | None:
        """The cookie that holds the session."""
        return self.http.cookies.get("orrery_session")


Browse: TypeAlias = Callable[..., Browser]


def said(answer: httpx.Response) -> str:
    """The page's text, as people read it."""
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", answer.text))).strip()


@pytest.fixture
def browse(http: httpx.Client) -> Iterator[Browse]:
    """Makes browsers, of the test's API or of the one whose client is given."""
    made: list[Browser] = []

    def browser(at: httpx.Client | None = None) -> Browser:
        made.append(Browser(at or http))
        return made[-1]

    yield browser
    for each in made:
        each.http.close()


@pytest.fixture
def admin(people: People) -> Person:
    """Somebody who may read."""
    return person(people, "admin")


@pytest.fixture
def keeper(people: People) -> Person:
    """A super admin, who may write where second factors are postponed."""
    return person(people, "super_admin")


@pytest.fixture
def local(settings: Settings) -> Settings:
    """Settings of an installation that only its own machine reaches: second factors are postponed."""
    return settings.model_copy(update={"second_factor_postponable": True})


@pytest.fixture
def desk(serve: Callable[..., httpx.Client], local: Settings, browse: Browse, keeper: Person) -> Browser:
    """A super admin at a browser, on an installation of one machine."""
    return browse(serve(local)).entered(keeper)


@pytest.fixture
def reader(browse: Browse, admin: Person) -> Browser:
    """Somebody who may only read, at a browser."""
    return browse().entered(admin)
