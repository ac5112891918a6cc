"""Logging in and out, and second factors."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Request, status
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, StringConstraints

from admin_api import logins
from admin_api.credentials import (
    LONGEST_EMAIL,
    LONGEST_PASSWORD,
    SHORTEST_PASSWORD,
    checked_password,
)
from admin_api.logins import Client, Issued
from admin_api.security import (
    Actor,
    Current,
    GuardedRoute,
    Principal,
    SecondFactor,
    allow,
    allow_anybody,
    allow_people,
)
from admin_api.services import Services, services
from admin_api.tokens import SESSION_MINUTES

router = APIRouter(prefix="/auth", tags=["auth"], route_class=GuardedRoute)

_USER_AGENT = 300  # characters that are kept


def _client(request: Request) -> Client:
    agent = request.headers.get("user-agent", "")[:_USER_AGENT]
    shown = "".join(character for character in agent if character.isprintable())
    return Client(request.client.host if request.client else None, shown or None)


From = Annotated[Client, Depends(_client)]
# The API's own: nobody else may read a password's hash or a second factor's secret.
Own = Annotated[Services, Depends(services)]


def _settable(secret: SecretStr) -> SecretStr:
    checked_password(secret.get_secret_value())
    return secret


Password = Annotated[SecretStr, Field(min_length=1, max_length=LONGEST_PASSWORD)]
NewPassword = Annotated[
    SecretStr,
    AfterValidator(_settable),
    Field(
        min_length=SHORTEST_PASSWORD,
        max_length=LONGEST_PASSWORD,
        description="Write-only. Length is all that is asked of it: a few words do.",
    ),
]
Code = Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z -]{6,40}$")]


class _Sent(BaseModel):
    model_config = ConfigDict(extra="forbid")


class LoginBody(_Sent):
    """Who logs in."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"email": "ada@example.com", "password": "four words like these", "otp": "123456"}]
        }
    )

    email: Annotated[str, StringConstraints(pattern=rf"^[ -~]{{1,{LONGEST_EMAIL}}}$")]
    password: Password
    otp: Annotated[
        Code | None,
        Field(description="Where there is a second factor: its code of now, or a recovery code."),
    ] = None


class Tokens(BaseModel):
    """A session's tokens. `expires_in`: seconds until the access token ends; refresh the session before."""

    access_token: str
    refresh_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 - RFC 6750's word
    expires_in: int


class RefreshBody(_Sent):
    model_config = ConfigDict(json_schema_extra={"examples": [{"refresh_token": "orrr_..."}]})

    refresh_token: Annotated[str, StringConstraints(pattern=r"^[!-~]{1,200}$")]


class Enrolment(BaseModel):
    """A second factor to be confirmed. Shown this once.

    `secret` (base32) and `otpauth_uri` are for the authenticator. Each of `recovery_codes` works once;
    keep them where the authenticator is not.
    """

    secret: str
    otpauth_uri: str
    recovery_codes: list[str]


class ConfirmBody(_Sent):
    model_config = ConfigDict(json_schema_extra={"examples": [{"otp": "123456"}]})

    otp: Annotated[Code, Field(description="The code that the authenticator shows now.")]


class PasswordBody(_Sent):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"current": "four words like these", "new": "other words that are longer"}]
        }
    )

    current: Password
    new: NewPassword


class Me(BaseModel):
    """The caller. `mfa`: what needs a second factor is allowed.

    `second_factor`: `postponed` = none yet, and not needed as long as only this machine reaches the API.
    `session_id`: null for a token that an operator minted at the machine.
    """

    id: UUID
    email: str
    role: Literal["super_admin", "admin"]
    mfa: bool
    second_factor: SecondFactor
    session_id: UUID | None


@router.post("/login")
@allow_anybody
def login(body: LoginBody, client: From, using: Own) -> Tokens:
    """Begin a session.

    401 tells in its `type` what is missing: `wrong-credentials`, `otp-required` (send `otp`, too), or
    `otp-wrong`. After some failures 429 tells in `Retry-After` when to try again.
    """
    issued = logins.log_in(
        using, client, email=body.email, password=body.password.get_secret_value(), code=body.otp
    )
    return _shown(issued)


@router.post("/refresh")
@allow_anybody
def refresh(body: RefreshBody, using: Own) -> Tokens:
    """Exchange a refresh token for new tokens. It is used up: sent a second time it ends the session.

    A session that is not refreshed for 7 days ends, and every session after 30.
    """
    return _shown(logins.refresh(using, body.refresh_token))


@router.post("/logout", status_code=status.HTTP_204_NO_CONTENT)
@allow_people
def logout(caller: Current, using: Own) -> None:
    """End this session: its tokens are refused from now on."""
    logins.log_out(using, caller)


@router.post("/mfa/enroll")
@allow_people
def enroll_second_factor(caller: Current, using: Own) -> Enrolment:
    """Make a second factor (TOTP). It is not in force until a code of it was confirmed."""
    made = logins.enrol(using, caller)
    return Enrolment(secret=made.secret, otpauth_uri=made.uri, recovery_codes=list(made.recovery_codes))


@router.post("/mfa/confirm")
@allow_people
def confirm_second_factor(body: ConfirmBody, client: From, caller: Current, using: Own) -> Me:
    """Put the second factor in force that was made last. Your other sessions end; this one has it at once."""
    logins.confirm(using, client, caller, body.otp)
    mfa = caller.mfa or caller.session_id is not None
    return _me(using, caller, mfa=mfa, second_factor=SecondFactor.ENROLLED)


@router.post("/password", status_code=status.HTTP_204_NO_CONTENT)
@allow(Actor.SUPER_ADMIN, Actor.ADMIN, mfa=True)
def change_password(body: PasswordBody, client: From, caller: Current, using: Own) -> None:
    """Change your own password. Your other sessions end."""
    logins.change_password(
        using, client, caller, body.current.get_secret_value(), body.new.get_secret_value()
    )


@router.get("/me")
@allow_people
def get_me(caller: Current, using: Own) -> Me:
    """Who you are, and whether you have a second factor."""
    return _me(using, caller, mfa=caller.mfa, second_factor=caller.second_factor)


def _me(using: Services, caller: Principal, *, mfa: bool, second_factor: SecondFactor) -> Me:
    with using.pool.connection() as db:
        row = db.execute("SELECT id, email, role FROM admins WHERE id = %s", [caller.admin_id]).fetchone()
    assert row is not None, "the guard has seen the person"  # noqa: S101
    return Me(**row, mfa=mfa, second_factor=second_factor, session_id=caller.session_id)


def _shown(issued: Issued) -> Tokens:
    return Tokens(
        access_token=issued.access_token,
        refresh_token=issued.refresh_token,
        expires_in=SESSION_MINUTES * 60,
    )
