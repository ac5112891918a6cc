"""Who is calling, and whether they may.

Every route under /api/v1 says who may call it with `@allow(...)`; `GuardedRoute` refuses to be made of an
endpoint that does not. It asks before FastAPI reads the body, so that strangers cannot make the API parse
megabytes and a malformed body tells them nothing. The same rule is written into OpenAPI as `x-orrery-roles`,
and `x-orrery-public` where no credential is asked for at all (logging in).

A super admin who has logged in without a second factor may call what is declared `enrolling`
(`x-orrery-enrolling`), until one is enrolled. Where the setting `second_factor_postponable` says so it counts
as given meanwhile. Tokens that an operator mints at the machine belong to no login: without `--mfa` they only
read.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import Annotated, Any, TypeVar
from uuid import UUID

from fastapi import Depends, Request, Response, Security
from fastapi.concurrency import run_in_threadpool
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from psycopg.rows import DictRow
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException

from admin_api import etags
from admin_api.bodies import JsonRequest
from admin_api.refusals import Forbidden, SecondFactorMissing, Unauthenticated
from admin_api.services import Services, services
from admin_api.tokens import APP_PREFIX, LONGEST, InvalidToken, token_hash, verify_admin_jwt
from routing.values import Caller
from store.audit import request_id
from store.database import Identity, Role
from workers.requests import Sender


class Actor(StrEnum):
    """Kinds of callers. The first two are the roles of `admins`."""

    SUPER_ADMIN = "super_admin"
    ADMIN = "admin"
    APPLICATION = "application"


_ROLES = {
    Actor.SUPER_ADMIN: Role.SUPER_ADMIN,
    Actor.ADMIN: Role.ADMIN,
    Actor.APPLICATION: Role.APPLICATION,
}


class Scope(StrEnum):
    """What an application token may do."""

    ENQUEUE = "jobs:enqueue"
    READ = "jobs:read"
    METRICS = "metrics"


class SecondFactor(StrEnum):
    """Whether a person has one. POSTPONED: not yet, and not needed as long as only this machine asks."""

    ENROLLED = "enrolled"
    MISSING = "missing"
    POSTPONED = "postponed"


@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated caller.

    `mfa`: an admin who gave a second factor, or may postpone it. `token_id` and `scopes` belong to
    applications, `session_id` (the login; None for an operator's token) and `second_factor` to people.
    `acts_for` is the admin whose access decides about provider keys: the caller, or the token's owner.
    """

    actor: Actor
    acts_for: Caller
    mfa: bool = False
    token_id: UUID | None = None
    scopes: frozenset[str] = frozenset()
    session_id: UUID | None = None
    second_factor: SecondFactor = SecondFactor.MISSING

    @property
    def may_only_enrol(self) -> bool:
        """Whether this is a super admin who has logged in without a second factor."""
        return self.actor is Actor.SUPER_ADMIN and self.session_id is not None and not self.mfa

    @property
    def sender(self) -> Sender:
        """The caller as the queue knows it."""
        return Sender(self.acts_for, self.token_id)

    @property
    def identity(self) -> Identity:
        """The caller as the database knows it."""
        return Identity(
            _ROLES[self.actor], self.acts_for.admin_id, self.token_id, self.mfa, request_id.get() or ""
        )

    @property
    def admin_id(self) -> UUID | None:
        """The admin who calls, for `created_by` and `updated_by`; None for an application."""
        return None if self.actor is Actor.APPLICATION else self.acts_for.admin_id


@dataclass(frozen=True, slots=True)
class Rule:
    """Who may call an operation. `mfa` concerns super admins, `scope` applications.

    `enrolling`: super admins without a second factor, too. `is_public`: everybody, without a credential.
    """

    actors: frozenset[Actor]
    mfa: bool = False
    scope: Scope | None = None
    enrolling: bool = False
    is_public: bool = False

    def permits(self, principal: Principal) -> bool:
        """Whether `principal` may."""
        try:
            self.check(principal)
        except Forbidden:
            return False
        return True

    def check(self, principal: Principal) -> None:
        """Raise Forbidden where `principal` may not."""
        if principal.actor not in self.actors:
            allowed = ", ".join(sorted(self.actors))
            raise Forbidden(f"The role {principal.actor} may not do this. Allowed: {allowed}.")
        if principal.actor is Actor.APPLICATION:
            if self.scope is not None and self.scope not in principal.scopes:
                raise Forbidden(f"The token lacks the scope {self.scope}. Use a token that has it.")
        elif principal.may_only_enrol and not self.enrolling:
            raise SecondFactorMissing(
                "A super admin needs a second factor. Enrol one: until then you may do nothing else.",
                hint="POST /auth/mfa/enroll makes one, POST /auth/mfa/confirm puts it in force.",
            )
        elif self.mfa and principal.actor is Actor.SUPER_ADMIN and not principal.mfa:
            raise Forbidden(
                "This needs a second factor: log in with one.", hint="mfa is not true in the token."
            )

    @property
    def openapi(self) -> dict[str, Any]:
        """The rule as members of an OpenAPI operation."""
        described: dict[str, Any] = {"x-orrery-roles": sorted(self.actors)}
        if self.mfa:
            described["x-orrery-mfa"] = True
        if self.scope is not None:
            described["x-orrery-scope"] = str(self.scope)
        if self.enrolling:
            described["x-orrery-enrolling"] = True
        if self.is_public:
            described |= {"x-orrery-public": True, "security": []}
        return described


_Endpoint = TypeVar("_Endpoint", bound=Callable[..., Any])
_RULES: dict[Callable[..., Any], Rule] = {}
_WORDS: set[str] = set()  # addresses without an id


def allow(
    *actors: Actor,
    mfa: bool = False,
    scope: Scope | None = None,
    enrolling: bool = False,
    is_public: bool = False,
) -> Callable[[_Endpoint], _Endpoint]:
    """Declare who may call the endpoint; stands between the router's decorator and the function."""

    def declare(endpoint: _Endpoint) -> _Endpoint:
        _RULES[endpoint] = Rule(frozenset(actors), mfa, scope, enrolling, is_public)
        return endpoint

    return declare


allow_reading = allow(Actor.SUPER_ADMIN, Actor.ADMIN)
allow_writing = allow(Actor.SUPER_ADMIN, mfa=True)
allow_people = allow(Actor.SUPER_ADMIN, Actor.ADMIN, enrolling=True)
allow_anybody = allow(*Actor, is_public=True)


class UnguardedRoute(TypeError):
    """A route does not say who may call it."""


def rule_of(endpoint: Callable[..., Any]) -> Rule:
    """What the endpoint's `@allow` says. Raises UnguardedRoute where there is none."""
    rule = _RULES.get(endpoint)
    if rule is None:
        raise UnguardedRoute(f"{endpoint.__module__}.{endpoint.__name__} has no @allow(...).")
    return rule


class GuardedRoute(APIRoute):
    """A route that knows its caller before it reads the body.

    Raises UnguardedRoute where the endpoint has no `@allow`.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        rule = rule_of(endpoint)
        options["openapi_extra"] = {**(options.get("openapi_extra") or {}), **rule.openapi}
        if not rule.is_public:
            # For OpenAPI alone: the answer to a missing credential is `authenticate`'s.
            documented = Security(HTTPBearer(auto_error=False, scheme_name="bearer"))
            options["dependencies"] = [*(options.get("dependencies") or []), documented]
        etags.enter(path, endpoint)
        if "{" not in path:
            _WORDS.add(path)
        super().__init__(path, endpoint, **options)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler behind the guard."""
        handle = super().get_route_handler()
        rule = rule_of(self.endpoint)
        reads_body = self.body_field is not None

        async def guarded(request: Request) -> Response:
            if self._is_word(request):
                raise HTTPException(HTTPStatus.METHOD_NOT_ALLOWED)
            if not rule.is_public:
                principal = await run_in_threadpool(authenticate, services(request), request.headers)
                rule.check(principal)
                request.state.principal = principal
            strict = JsonRequest(request.scope, request.receive)
            strict.check_address()
            etags.expect(request, self.path)
            if reads_body:
                await strict.load()
            return etags.mark(request, self.response_model, await handle(strict))

        return guarded

    def _is_word(self, request: Request) -> bool:
        """Whether the id is an address of its own: `GET /jobs/cancel` asks for no job of that name."""
        if not self.param_convertors:
            return False
        parts = request.url.path.split("/")
        return "/".join(["", *parts[-self.path.count("/") :]]) in _WORDS


def principal(request: Request) -> Principal:
    """The caller that the guard let in."""
    found: Principal = request.state.principal
    return found


Current = Annotated[Principal, Depends(principal)]


def authenticate(using: Services, headers: Headers) -> Principal:
    """Who sent `Authorization`. Raises Unauthenticated."""
    token = _bearer(headers.get("authorization"))
    if token.startswith(APP_PREFIX):
        return _application(using, token)
    return _admin(using, token, is_local=is_local(using, headers))


def is_local(using: Services, headers: Headers) -> bool:
    """Whether second factors may be postponed: only this machine reaches the API, and no proxy on it."""
    settings = using.settings
    is_forwarded = any(name in headers for name in ("forwarded", "x-forwarded-for", "x-real-ip", "via"))
    return settings.second_factor_postponable and not settings.proxies and not is_forwarded


def _bearer(header: str | None) -> str:
    if not header:
        raise Unauthenticated(
            "Send Authorization: Bearer with an admin's or application's token.", presented=False
        )
    scheme, _, token = header.partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise Unauthenticated("Send the token as Authorization: Bearer <token>.")
    if len(token) > LONGEST:
        raise Unauthenticated(f"The token is longer than {LONGEST} characters.")
    return token


PERSON = """
role, is_active, admin_sessions.mfa AS session_mfa,
revoked_at IS NULL AND expires_at > now() AS session_lives,
EXISTS (
    SELECT FROM admin_second_factors WHERE admin_id = admins.id AND confirmed_at IS NOT NULL
) AS has_factor"""
"""What `person` wants to know of an admin and a session."""

_ADMIN = f"""
SELECT {PERSON}
FROM admins LEFT JOIN admin_sessions ON admin_sessions.id = %(session_id)s AND admin_id = admins.id
WHERE admins.id = %(admin_id)s"""  # noqa: S608 - every part is a constant


def _admin(using: Services, token: str, *, is_local: bool) -> Principal:
    try:
        claims = verify_admin_jwt(using.keyring, token)
    except InvalidToken as error:
        raise Unauthenticated(str(error)) from None
    named = {"admin_id": claims.admin_id, "session_id": claims.session_id}
    with using.pool.connection() as db:
        row = db.execute(_ADMIN, named).fetchone()
    if row is None or not row["is_active"]:
        raise Unauthenticated("The admin of this token is not active any more.")
    if claims.session_id is not None and not row["session_lives"]:
        raise Unauthenticated("The session of this token has ended. Log in again.")
    mfa = claims.mfa if claims.session_id is None else row["session_mfa"]
    return person(row, claims.admin_id, claims.session_id, mfa=mfa, is_local=is_local)


def person(row: DictRow, admin_id: UUID, session_id: UUID | None, *, mfa: bool, is_local: bool) -> Principal:
    """The caller of a row of `PERSON`, whose session lives. `mfa`: a second factor was given."""
    second_factor = SecondFactor.ENROLLED if row["has_factor"] else SecondFactor.MISSING
    if second_factor is SecondFactor.MISSING and row["role"] == Actor.SUPER_ADMIN and is_local:
        second_factor = SecondFactor.POSTPONED
        mfa = mfa or session_id is not None
    return Principal(
        Actor(row["role"]),
        Caller(admin_id, row["role"]),
        mfa=mfa,
        session_id=session_id,
        second_factor=second_factor,
    )


_APPLICATION = """
SELECT app_tokens.id, scopes, owner_admin_id, admins.role AS owner_role,
       revoked_at IS NULL AND coalesce(expires_at > now(), true)
       AND (owner_admin_id IS NULL OR admins.is_active) AS is_valid,
       coalesce(last_used_at > now() - interval '1 minute', false) AS is_noted
FROM app_tokens LEFT JOIN admins ON admins.id = owner_admin_id
LEFT JOIN app_token_uses ON token_id = app_tokens.id
WHERE token_hash = %s"""

_NOTE_USE = """
INSERT INTO app_token_uses AS known (token_id) VALUES (%s)
ON CONFLICT (token_id) DO UPDATE SET last_used_at = now()
WHERE known.last_used_at <= now() - interval '1 minute'"""


def _application(using: Services, token: str) -> Principal:
    with using.pool.connection() as db:
        row = db.execute(_APPLICATION, [token_hash(token)]).fetchone()
        if row is not None and row["is_valid"] and not row["is_noted"]:
            db.execute(_NOTE_USE, [row["id"]])
    if row is None or not row["is_valid"]:
        raise Unauthenticated("The token is unknown, revoked or expired.")
    return Principal(
        Actor.APPLICATION,
        Caller(row["owner_admin_id"], row["owner_role"]),
        token_id=row["id"],
        scopes=frozenset(row["scopes"]),
    )
