"""Who is calling, and whether they may.

Every route under /api/v1 says who may call it with `@allow(...)`; `GuardedRoute` refuses to be made of an
endpoint that does not. It asks before FastAPI reads the body, so that strangers cannot make the API parse
megabytes and a malformed body tells them nothing. The same rule is written into OpenAPI as `x-orrery-roles`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, TypeVar
from uuid import UUID

from fastapi import Depends, Request, Response, Security
from fastapi.concurrency import run_in_threadpool
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from starlette.datastructures import Headers

from admin_api.bodies import JsonRequest
from admin_api.refusals import Forbidden, Unauthenticated
from admin_api.services import Services, services
from admin_api.tokens import APP_PREFIX, LONGEST, InvalidToken, app_token_hash, verify_admin_jwt
from routing.values import Caller
from workers.requests import Sender


class Actor(StrEnum):
    """Kinds of callers. The first two are the roles of `admins`."""

    SUPER_ADMIN = "super_admin"
    ADMIN = "admin"
    APPLICATION = "application"


class Scope(StrEnum):
    """What an application token may do."""

    ENQUEUE = "jobs:enqueue"
    READ = "jobs:read"


@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated caller.

    `mfa`: an admin who gave a second factor. `token_id` and `scopes` belong to applications. `acts_for` is
    the admin whose access decides about provider keys: the caller, or the token's owner.
    """

    actor: Actor
    acts_for: Caller
    mfa: bool = False
    token_id: UUID | None = None
    scopes: frozenset[str] = frozenset()

    @property
    def sender(self) -> Sender:
        """The caller as the queue knows it."""
        return Sender(self.acts_for, self.token_id)

    @property
    def admin_id(self) -> UUID | None:
        """The admin who calls, for `created_by` and `updated_by`; None for an application."""
        return None if self.actor is Actor.APPLICATION else self.acts_for.admin_id


@dataclass(frozen=True, slots=True)
class Rule:
    """Who may call an operation. `mfa` concerns admins, `scope` applications."""

    actors: frozenset[Actor]
    mfa: bool = False
    scope: Scope | None = None

    def check(self, principal: Principal) -> None:
        """Raise Forbidden where `principal` may not."""
        if principal.actor not in self.actors:
            allowed = ", ".join(sorted(self.actors))
            raise Forbidden(f"The role {principal.actor} may not do this. Allowed: {allowed}.")
        if principal.actor is Actor.APPLICATION:
            if self.scope is not None and self.scope not in principal.scopes:
                raise Forbidden(f"The token lacks the scope {self.scope}. Use a token that has it.")
        elif self.mfa and not principal.mfa:
            raise Forbidden("This needs a second factor: log in with one (mfa is not true in the token).")

    @property
    def openapi(self) -> dict[str, Any]:
        """The rule as members of an OpenAPI operation."""
        described: dict[str, Any] = {"x-orrery-roles": sorted(self.actors)}
        if self.mfa:
            described["x-orrery-mfa"] = True
        if self.scope is not None:
            described["x-orrery-scope"] = str(self.scope)
        return described


_Endpoint = TypeVar("_Endpoint", bound=Callable[..., Any])
_RULES: dict[Callable[..., Any], Rule] = {}


def allow(*actors: Actor, mfa: bool = False, scope: Scope | None = None) -> Callable[[_Endpoint], _Endpoint]:
    """Declare who may call the endpoint; stands between the router's decorator and the function."""

    def declare(endpoint: _Endpoint) -> _Endpoint:
        _RULES[endpoint] = Rule(frozenset(actors), mfa, scope)
        return endpoint

    return declare


allow_reading = allow(Actor.SUPER_ADMIN, Actor.ADMIN)
allow_writing = allow(Actor.SUPER_ADMIN, mfa=True)


class UnguardedRoute(TypeError):
    """A route does not say who may call it."""


class GuardedRoute(APIRoute):
    """A route that knows its caller before it reads the body.

    Raises UnguardedRoute where the endpoint has no `@allow`.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        rule = _RULES.get(endpoint)
        if rule is None:
            raise UnguardedRoute(f"{path}: {endpoint.__name__} has no @allow(...).")
        options["openapi_extra"] = {**(options.get("openapi_extra") or {}), **rule.openapi}
        # For OpenAPI alone: the answer to a missing credential is `authenticate`'s.
        documented = Security(HTTPBearer(auto_error=False, scheme_name="bearer"))
        options["dependencies"] = [*(options.get("dependencies") or []), documented]
        super().__init__(path, endpoint, **options)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler behind the guard."""
        handle = super().get_route_handler()
        rule = _RULES[self.endpoint]
        reads_body = self.body_field is not None

        async def guarded(request: Request) -> Response:
            principal = await run_in_threadpool(authenticate, services(request), request.headers)
            rule.check(principal)
            request.state.principal = principal
            strict = JsonRequest(request.scope, request.receive)
            strict.check_address()
            if reads_body:
                await strict.load()
            return await handle(strict)

        return guarded


def principal(request: Request) -> Principal:
    """The caller that the guard let in."""
    found: Principal = request.state.principal
    return found


Current = Annotated[Principal, Depends(principal)]


def authenticate(using: Services, headers: Headers) -> Principal:
    """Who sent `Authorization`. Raises Unauthenticated."""
    token = _bearer(headers.get("authorization"))
    return _application(using, token) if token.startswith(APP_PREFIX) else _admin(using, token)


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


def _admin(using: Services, token: str) -> Principal:
    try:
        claims = verify_admin_jwt(using.keyring, token)
    except InvalidToken as error:
        raise Unauthenticated(str(error)) from None
    with using.pool.connection() as db:
        row = db.execute("SELECT role, is_active FROM admins WHERE id = %s", [claims.admin_id]).fetchone()
    if row is None or not row["is_active"]:
        raise Unauthenticated("The admin of this token is not active any more.")
    return Principal(Actor(row["role"]), Caller(claims.admin_id, row["role"]), mfa=claims.mfa)


_APPLICATION = """
SELECT app_tokens.id, scopes, owner_admin_id, admins.role AS owner_role,
       revoked_at IS NULL AND coalesce(expires_at > now(), true)
       AND (owner_admin_id IS NULL OR admins.is_active) AS is_valid
FROM app_tokens LEFT JOIN admins ON admins.id = owner_admin_id
WHERE token_hash = %s"""


def _application(using: Services, token: str) -> Principal:
    with using.pool.connection() as db:
        row = db.execute(_APPLICATION, [app_token_hash(token)]).fetchone()
    if row is None or not row["is_valid"]:
        raise Unauthenticated("The token is unknown, revoked or expired.")
    return Principal(
        Actor.APPLICATION,
        Caller(row["owner_admin_id"], row["owner_role"]),
        token_id=row["id"],
        scopes=frozenset(row["scopes"]),
    )
