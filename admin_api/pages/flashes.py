"""Messages for the next page: one cookie, signed, taken once."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import dataclass
from typing import Literal

from fastapi import Request, Response

from admin_api.pages import cookies
from admin_api.pages.cookies import Cookie
from admin_api.services import services

Kind = Literal["good", "bad", "warn"]

_LONGEST = 600  # characters: what a browser keeps is some 4,000 bytes a cookie
_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Flash:
    """What to tell the person once. `undo`: where a POST takes back what was done; "" = nothing does."""

    kind: Kind
    text: str
    undo: str = ""


def put(response: Response, request: Request, flash: Flash) -> None:
    """Have the next page show the message."""
    told = [flash.kind, flash.text[:_LONGEST], flash.undo]
    content = base64.urlsafe_b64encode(json.dumps(told).encode()).decode()
    cookies.put(response, request, Cookie.FLASH, f"{content}.{_mac(request, content)}", seconds=_SECONDS)


def read(request: Request) -> Flash | None:
    """The message that waits; None where there is none, or it is not ours."""
    content, _, mac = (cookies.read(request, Cookie.FLASH) or "").partition(".")
    if not content or not hmac.compare_digest(mac.encode(), _mac(request, content).encode()):
        return None
    return Flash(*json.loads(base64.urlsafe_b64decode(content)))


def _mac(request: Request, content: str) -> str:
    key = services(request).keyring.derive("flash")
    return hmac.new(key, content.encode(), hashlib.sha256).hexdigest()
