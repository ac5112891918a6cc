"""Logging in and out at a browser."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field, SecretStr, TypeAdapter, ValidationError

from admin_api import browser, logins
from admin_api.auth import Code, From, LoginBody, Own
from admin_api.browser import STEP_SECONDS
from admin_api.pages import cookies
from admin_api.pages.again import again_of
from admin_api.pages.cookies import Cookie
from admin_api.pages.render import page
from admin_api.pages.route import PageRoute, Sent, done, safe_path, visitor
from admin_api.refusals import CodeWrong, Unauthenticated, WrongCredentials
from admin_api.security import Current, allow_anybody, allow_people

router = APIRouter(route_class=PageRoute)

_HOME = "/overview"
_CODE: TypeAdapter[str] = TypeAdapter(Code)


class NextQuery(BaseModel):
    """Where to go once logged in; anything but a page of ours is the overview."""

    next: Annotated[str, Field(max_length=2000)] = _HOME

    @property
    def path(self) -> str:
        """The page to go to."""
        return safe_path(self.next, otherwise=_HOME)

    @property
    def query(self) -> str:
        """The same as a query, to be handed on."""
        return "" if self.path == _HOME else "?" + urlencode({"next": self.path})


Next = Annotated[NextQuery, Query()]


@router.get("/")
@allow_anybody
def home(request: Request) -> Response:
    """The first page of who is logged in, else the way in."""
    return done(_HOME if visitor(request) else "/login")


@router.get("/login")
@allow_anybody
def login_page(request: Request, wanted: Next) -> Response:
    """The first step."""
    if visitor(request):
        return done(wanted.path)
    again = again_of(request)
    return page(request, "login.html", email=again.sent.get("email") if again else "")


@router.post("/login")
@allow_anybody
def log_in(sent: Sent, request: Request, wanted: Next, client: From, using: Own) -> Response:
    """Begin a session, or the second step."""
    try:
        body = LoginBody(email=sent.get("email").strip(), password=SecretStr(sent.get("password")))
    except ValidationError:
        raise WrongCredentials from None
    person = logins.recognised(using, client, email=body.email, password=body.password.get_secret_value())
    if person["has_factor"]:
        response = done(f"/login/code{wanted.query}")
        step = browser.first_step(using, person)
        cookies.put(response, request, Cookie.STEP, step, seconds=STEP_SECONDS)
        return response
    return _welcomed(request, wanted, browser.begin(using, client, person, None))


@router.get("/login/code")
@allow_anybody
def code_page(request: Request, wanted: Next) -> Response:
    """The second step."""
    if visitor(request):
        return done(wanted.path)
    if not cookies.read(request, Cookie.STEP):
        return done(f"/login{wanted.query}")
    return page(request, "login_code.html")


@router.post("/login/code")
@allow_anybody
def give_code(sent: Sent, request: Request, wanted: Next, client: From, using: Own) -> Response:
    """Begin the session of who gave the password before."""
    try:
        person = browser.second_step(using, client, cookies.read(request, Cookie.STEP) or "")
    except Unauthenticated as void:
        response = done(f"/login{wanted.query}", void.message, kind="warn")
        cookies.drop(response, request, Cookie.STEP)
        return response
    try:
        code = _CODE.validate_python(sent.get("code").strip())
    except ValidationError:
        raise CodeWrong from None
    return _welcomed(request, wanted, browser.begin(using, client, person, code))


@router.post("/logout")
@allow_people
def log_out(request: Request, caller: Current, using: Own) -> Response:
    """End the session."""
    logins.log_out(using, caller)
    response = done("/login", "You are logged out.")
    cookies.drop(response, request, Cookie.SESSION)
    return response


def _welcomed(request: Request, wanted: NextQuery, cookie: str) -> Response:
    response = done(wanted.path)
    cookies.put(response, request, Cookie.SESSION, cookie)
    cookies.drop(response, request, Cookie.STEP)
    return response
