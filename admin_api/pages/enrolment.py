"""Enrolling a second factor: scan, keep the recovery codes, confirm by a code.

The secret and the recovery codes stand in the answer that made them. So that a mistyped code does not lose
them, the form that confirms carries them along, sealed for this session.
"""

from __future__ import annotations

import base64
from typing import Any

import segno
from fastapi import APIRouter, Request, Response
from markupsafe import Markup

from admin_api.auth import (
    ConfirmBody,
    Enrolment,
    From,
    Own,
    confirm_second_factor,
    enroll_second_factor,
)
from admin_api.pages.again import again_of
from admin_api.pages.controls import Tweak
from admin_api.pages.forms import Form, Group
from admin_api.pages.render import page
from admin_api.pages.route import ENROLLING, PageRoute, Sent, done, shown_at
from admin_api.security import Current, Principal, allow_people
from admin_api.services import Services
from store.vault import Sealed, VaultError

router = APIRouter(route_class=PageRoute)

_ADDRESS = "/account/second-factor"
_CONFIRM = f"{_ADDRESS}/confirm"
_QUIET_ZONE = 4  # modules of white around it, as ISO/IEC 18004 asks for

CODE = Form(
    ConfirmBody,
    Group("3. Confirm", "otp"),
    otp=Tweak(
        label="Code",
        help="The six digits that the authenticator shows now.",
        autocomplete="one-time-code",
    ),
)


@router.post(_ADDRESS)
@allow_people
def begin(request: Request, caller: Current, using: Own) -> Response:
    """Make a second factor, and show it. It is in force once a code of it is confirmed."""
    return _shown(request, caller, using, enroll_second_factor(caller, using))


@router.get(_ADDRESS)
@allow_people
def again(request: Request, caller: Current, using: Own) -> Response:
    """The same again, after a wrong code; there is nothing to see otherwise."""
    refused = again_of(request)
    made = None if refused is None else _opened(using, caller, refused.sent.get("kept"))
    return done(ENROLLING) if made is None else _shown(request, caller, using, made)


@router.post(_CONFIRM)
@allow_people
@shown_at(_ADDRESS)
def confirm(sent: Sent, client: From, caller: Current, using: Own) -> Response:
    """Put it in force."""
    confirm_second_factor(CODE.body(sent), client, caller, using)
    return done(ENROLLING, "Your second factor is on. Your other sessions are over.")


def qr_code(text: str) -> Markup:
    """The text as a QR code: dark on white, whatever the page's colours, for phones read no other."""
    drawn = segno.make(text, error="m", micro=False).svg_inline(
        border=_QUIET_ZONE, dark="#000", light="#fff", omitsize=True, svgclass="qr", lineclass=None
    )
    return Markup(drawn)  # noqa: S704 - paths of numbers


def _shown(request: Request, caller: Principal, using: Services, made: Enrolment) -> Response:
    secret = made.secret
    return page(
        request,
        "enrolment.html",
        qr=qr_code(made.otpauth_uri),
        secret=secret,
        in_fours=" ".join(secret[start : start + 4] for start in range(0, len(secret), 4)),
        codes=made.recovery_codes,
        kept=_sealed(using, caller, made),
        form=CODE.view(request, action=_CONFIRM),
        here=ENROLLING,
    )


def _sealed(using: Services, caller: Principal, made: Enrolment) -> str:
    sealed = using.vault.seal(made.model_dump_json(), **_place(caller))
    return base64.urlsafe_b64encode(sealed.blob).decode()


def _opened(using: Services, caller: Principal, kept: str) -> Enrolment | None:
    try:
        opened = using.vault.open(Sealed(base64.urlsafe_b64decode(kept)), **_place(caller))
    except (VaultError, ValueError):
        return None
    return Enrolment.model_validate_json(opened)


def _place(caller: Principal) -> dict[str, Any]:
    return {"table": "logins", "row": str(caller.session_id), "field": "enrolment", "version": 1}
