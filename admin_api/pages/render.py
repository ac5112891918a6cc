"""Templates → pages, with what every page has: who is logged in, the rail, messages, and a strict policy."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from admin_api.pages import cookies, flashes, navigation, static
from admin_api.pages.again import again_of
from admin_api.pages.cookies import Cookie
from admin_api.pages.formats import FILTERS
from admin_api.pages.route import ENROLLING, LIVE, here, visitor
from admin_api.security import Actor, SecondFactor

POLICY = "; ".join(
    (
        "default-src 'none'",
        "style-src 'self'",
        "script-src 'self'",
        "img-src 'self' data:",
        "media-src 'self'",
        "connect-src 'self'",
        "font-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)


def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("admin_api.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters.update(FILTERS)
    made.globals.update(static=static.address, is_current=navigation.is_current, enrolling=ENROLLING)
    return made


_TEMPLATES = _environment()


def page(request: Request, template: str, *, status: int = 200, **context: Any) -> HTMLResponse:
    """The page that `template` makes of `context`.

    Templates find besides: `me` (email, role, may_write; None for nobody), `csrf`, `sections` of the rail,
    `flash`, `problem` (why the form is shown again), `here` and `path`.
    """
    flash = None if LIVE in request.headers else flashes.read(request)
    again = again_of(request)
    everywhere = {
        **_person(request),
        "flash": flash,
        "problem": again and again.problem,
        "here": here(request),
        "path": request.url.path,
    }
    html = _TEMPLATES.get_template(template).render(everywhere | context)
    response = HTMLResponse(html, status, {"Content-Security-Policy": POLICY})
    if flash is not None:
        cookies.drop(response, request, Cookie.FLASH)
    return response


def _person(request: Request) -> dict[str, Any]:
    found = visitor(request)
    if found is None:
        return {"me": None, "csrf": "", "sections": []}
    caller = found.principal
    me = {
        "id": caller.admin_id,
        "email": found.email,
        "role": caller.actor.value,
        "may_write": caller.actor is Actor.SUPER_ADMIN and caller.mfa,
        "has_postponed": caller.second_factor is SecondFactor.POSTPONED,
        "may_only_enrol": caller.may_only_enrol,
    }
    return {"me": me, "csrf": found.csrf, "sections": navigation.sections(caller)}
