"""Cookies: which there are, and how they are set.

SameSite=Lax, not Strict: who follows a link from a chat or a mail into a page would otherwise be asked to log
in although they are. Writes do not rest on it: each carries a token of its session (`route.py`).

Behind TLS their names begin with `__Host-`, so that no other host of the domain can set them.
"""

from __future__ import annotations

from enum import StrEnum

from fastapi import Request, Response

from admin_api.logins import LONGEST_DAYS

DAY = 86_400


class Cookie(StrEnum):
    """SESSION holds the login, STEP what the first of two forms proved, FLASH a message for the next page."""

    SESSION = "orrery_session"
    STEP = "orrery_step"
    FLASH = "orrery_flash"


def read(request: Request, cookie: Cookie) -> str | None:
    """The cookie's value; None where it was not sent."""
    return request.cookies.get(_name(request, cookie))


def put(
    response: Response, request: Request, cookie: Cookie, value: str, *, seconds: int = LONGEST_DAYS * DAY
) -> None:
    """Have the browser keep the cookie; no script can read it."""
    response.set_cookie(
        _name(request, cookie),
        value,
        max_age=seconds,
        path="/",
        secure=_is_encrypted(request),
        httponly=True,
        samesite="lax",
    )


def drop(response: Response, request: Request, cookie: Cookie) -> None:
    """Have the browser forget the cookie."""
    put(response, request, cookie, "", seconds=0)


def _name(request: Request, cookie: Cookie) -> str:
    return f"__Host-{cookie}" if _is_encrypted(request) else cookie.value


def _is_encrypted(request: Request) -> bool:
    return request.url.scheme == "https"
