"""Errors → `application/problem+json` (RFC 9457): the only module that knows which is which HTTP answer.

Every answer has `type`, `title`, `status`, `detail` and `errors`, a list of `{field, message}`.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from http import HTTPStatus
from typing import Annotated, Any
from uuid import UUID

import psycopg
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field, ValidationError
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError
from sqlalchemy.exc import OperationalError as EngineError
from sqlalchemy.exc import TimeoutError as EngineTimeout
from starlette.exceptions import HTTPException
from starlette.routing import compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from admin_api.fields import PATTERNS
from admin_api.refusals import (
    Conflict,
    FieldError,
    Forbidden,
    InUse,
    Invalid,
    Malformed,
    NotFound,
    Refused,
    Stale,
    TooLarge,
    TooOften,
    TooSlow,
    Unauthenticated,
    WrongMediaType,
    pointer,
)
from routing.errors import ConfigurationError, InputRejected, NoAccess, RoutingError, UnknownFeature
from store.database import UNAVAILABLE
from store.vault import VaultError
from workers.artifacts import ArtifactError
from workers.backpressure import QueueFull
from workers.bulk import ConfigurationMoved
from workers.requests import KeyInvalid, KeyReused

logger = logging.getLogger(__name__)

RETRY_AFTER_SECONDS = 5

_REFUSALS: Mapping[type[Refused], HTTPStatus] = {
    Unauthenticated: HTTPStatus.UNAUTHORIZED,
    Forbidden: HTTPStatus.FORBIDDEN,
    NotFound: HTTPStatus.NOT_FOUND,
    Conflict: HTTPStatus.CONFLICT,
    Stale: HTTPStatus.PRECONDITION_FAILED,
    Invalid: HTTPStatus.UNPROCESSABLE_ENTITY,
    Malformed: HTTPStatus.BAD_REQUEST,
    WrongMediaType: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    TooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    TooSlow: HTTPStatus.REQUEST_TIMEOUT,
    TooOften: HTTPStatus.TOO_MANY_REQUESTS,
}

_ROUTING: Mapping[type[RoutingError], HTTPStatus] = {
    UnknownFeature: HTTPStatus.UNPROCESSABLE_ENTITY,
    InputRejected: HTTPStatus.UNPROCESSABLE_ENTITY,
    ConfigurationError: HTTPStatus.UNPROCESSABLE_ENTITY,
    NoAccess: HTTPStatus.FORBIDDEN,
}

_CONSTRAINTS: Mapping[str, tuple[str, str]] = {
    "uq_ai_providers_slug": ("slug", "Another provider has this slug. Choose another."),
    "uq_ai_models_provider_id_model_id": (
        "model_id",
        "The provider has this model already.",
    ),
    "uq_model_prices_model_id_valid_from": (
        "valid_from",
        "Another price of the model starts at this time. Delete it first, or choose another time.",
    ),
    "uq_system_integrations_name": ("name", "Another integration has this name. Choose another."),
    "uq_admins_email": ("email", "Another person has this address. Choose another."),
    "uq_features_name": ("name", "Another feature has this name. Choose another."),
    "uq_feature_ai_assignments_feature_id": (
        "feature_name",
        "The feature has an assignment already. Change that one.",
    ),
}

_UNAVAILABLE: tuple[type[Exception], ...] = (UNAVAILABLE, EngineError, EngineTimeout, ArtifactError)


class FieldProblem(BaseModel):
    """One field of a problem answer."""

    field: str
    message: str


class AssignmentProblem(BaseModel):
    """An assignment of a problem answer."""

    id: UUID
    feature_name: str


class Problem(BaseModel):
    """The body of every answer that is not a success (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[FieldProblem]
    assignments: Annotated[
        list[AssignmentProblem] | None, Field(description="With type in-use: what stands in the way.")
    ] = None


PROBLEM_RESPONSES: dict[int | str, dict[str, Any]] = {
    "4XX": {
        "description": "The request is refused; `errors` names the fields. 429 comes with `Retry-After`.",
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    },
    "503": {
        "description": "The database cannot be reached. Try again after `Retry-After` seconds.",
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    },
}


def install(app: FastAPI) -> None:
    """Make every error of `app` a problem answer."""
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(RoutingError, _routing)
    app.add_exception_handler(VaultError, _vault)
    app.add_exception_handler(QueueFull, _queue_full)
    app.add_exception_handler(ConfigurationMoved, _configuration_moved)
    for key_error in (KeyInvalid, KeyReused):
        app.add_exception_handler(key_error, _idempotency_key)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(IntegrityError, _integrity)
    for unstorable in (DataError, psycopg.DataError):
        app.add_exception_handler(unstorable, _data)
    for unavailable in _UNAVAILABLE:
        app.add_exception_handler(unavailable, _unavailable)
    app.add_middleware(Incidents)


class Incidents:
    """ASGI middleware that answers what nobody foresaw.

    In place of Starlette's handler for `Exception`, which raises again after it has answered: the server then
    drops the connection under the client's next request.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; answer in its place what it raises, unless an answer has begun."""
        has_begun = False

        async def watched(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:
            if has_begun or scope["type"] != "http":
                raise
            answer = await _unexpected(Request(scope), error)
            await answer(scope, receive, send)


def is_for_people(request: Request) -> bool:
    """Whether the problem becomes a page (`pages/layer.py`), on which hints for programs are left out."""
    is_page = getattr(request.state, "is_page", False) or "text/html" in request.headers.get("accept", "")
    return is_page and not request.url.path.startswith("/api/")


def problem(
    status: HTTPStatus,
    detail: str,
    *,
    kind: str | None = None,
    errors: Sequence[FieldError] = (),
    headers: Mapping[str, str] | None = None,
    members: Mapping[str, object] | None = None,
) -> JSONResponse:
    """A problem answer. `kind` ends its `type`, a URN programs may switch on; `members` are further ones."""
    word = kind or status.phrase.lower().replace(" ", "-")
    content = {
        "type": f"urn:orrery:problem:{word}",
        "title": status.phrase,
        "status": int(status),
        "detail": detail,
        "errors": [{"field": error.field, "message": error.message} for error in errors],
        **(members or {}),
    }
    return JSONResponse(content, status, headers, media_type="application/problem+json")


async def _refused(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Refused)  # noqa: S101 - the handler is registered for nothing else
    status = next(_REFUSALS[kind] for kind in type(error).__mro__ if kind in _REFUSALS)
    headers = None
    if isinstance(error, Unauthenticated):
        headers = _challenge(error.presented)
    elif isinstance(error, TooOften):
        headers = {"Retry-After": str(error.retry_after)}
    members = None
    if isinstance(error, InUse):
        members = {"assignments": [{**asdict(user), "id": str(user.id)} for user in error.assignments]}
    return problem(
        status,
        _told(request, error.message, error.hint),
        kind=error.kind,
        errors=_all_told(request, error.errors),
        headers=headers,
        members=members,
    )


def _told(request: Request, message: str, hint: str) -> str:
    return f"{message} {hint}" if hint and not is_for_people(request) else message


def _all_told(request: Request, errors: Sequence[FieldError]) -> list[FieldError]:
    return [FieldError(error.field, _told(request, error.message, error.hint)) for error in errors]


def _challenge(presented: bool) -> dict[str, str]:
    """RFC 6750: without a credential the challenge carries no error code."""
    return {"WWW-Authenticate": 'Bearer realm="orrery"' + (', error="invalid_token"' if presented else "")}


async def _routing(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RoutingError)  # noqa: S101 - the handler is registered for nothing else
    status = next((_ROUTING[kind] for kind in type(error).__mro__ if kind in _ROUTING), None)
    if status is None:
        return await _unexpected(request, error)
    return problem(
        status,
        _told(request, error.message, error.hint),
        kind=error.error_class,
        errors=_all_told(request, field_errors(error)),
    )


async def _vault(request: Request, error: Exception) -> JSONResponse:
    return problem(
        HTTPStatus.CONFLICT, str(error), kind="unsealable-key", errors=[FieldError("api_key", str(error))]
    )


async def _queue_full(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, QueueFull)  # noqa: S101 - the handler is registered for nothing else
    return problem(
        HTTPStatus.TOO_MANY_REQUESTS,
        str(error),
        kind="queue-full",
        errors=[FieldError("feature", str(error))],
        headers={"Retry-After": str(error.retry_after)},
    )


async def _configuration_moved(request: Request, error: Exception) -> JSONResponse:
    return problem(HTTPStatus.CONFLICT, str(error), kind="configuration-moved")


async def _idempotency_key(request: Request, error: Exception) -> JSONResponse:
    return problem(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        str(error),
        kind="idempotency-key",
        errors=[FieldError("Idempotency-Key", str(error))],
    )


async def _validation(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - the handler is registered for nothing else
    errors = [_field(found["loc"][1:], found) for found in error.errors()]
    fields = ", ".join(dict.fromkeys(error.field or "the body" for error in errors))
    if is_for_people(request):
        detail = f"Some of it is not right yet: {fields}."
    else:
        detail = f"The request is not valid. See errors: {fields}."
    return problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail, errors=errors)


def field_errors(error: Refused | ValidationError | RoutingError) -> list[FieldError]:
    """The fields of one job that an error is about; never none."""
    if isinstance(error, ValidationError):
        return [_field(found["loc"], found) for found in error.errors(include_url=False)]
    if isinstance(error, Refused):
        return list(error.errors) or [FieldError("", error.message, error.hint)]
    field = error.field.lstrip("/") if isinstance(error, InputRejected) else "feature"
    return [FieldError(field or "input", error.message, error.hint)]


def _field(place: Sequence[object], found: Mapping[str, Any]) -> FieldError:
    return FieldError(pointer(place), _said(found))


def _said(found: Mapping[str, Any]) -> str:
    if found["type"] == "extra_forbidden":
        return "There is no such field. Check its name, or remove it."
    if found["type"] == "missing":
        return "This field is required."
    if found["type"] == "string_pattern_mismatch" and found["ctx"]["pattern"] in PATTERNS:
        return PATTERNS[found["ctx"]["pattern"]]
    return str(found["msg"]).removeprefix("Value error, ")


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - the handler is registered for nothing else
    detail, headers = error.detail, error.headers
    if error.status_code == HTTPStatus.NOT_FOUND and detail == HTTPStatus.NOT_FOUND.phrase:
        detail = _told(request, "There is nothing at this address.", "/openapi.json lists what there is.")
    elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = _allowed(request)
        headers = {"Allow": ", ".join(allowed)} if allowed else headers
        detail = f"{request.method} is not possible here. Possible: {', '.join(allowed) or 'GET'}."
    return problem(HTTPStatus(error.status_code), detail, headers=headers)


def _allowed(request: Request) -> list[str]:
    """All methods of the address (RFC 9110, 10.2.1): Starlette names those of its first route only."""
    paths: Mapping[str, Mapping[str, Any]] = request.app.openapi()["paths"]
    if (word := paths.get(request.url.path)) is not None:  # an address of its own, which no pattern shares
        return sorted(map(str.upper, word))
    here = (methods for path, methods in paths.items() if compile_path(path)[0].match(request.url.path))
    return sorted({method.upper() for methods in here for method in methods})


async def _integrity(request: Request, error: Exception) -> JSONResponse:
    found = error.orig if isinstance(error, IntegrityError) else None
    name = found.diag.constraint_name if isinstance(found, psycopg.Error) else None
    if name is not None and name in _CONSTRAINTS:
        field, message = _CONSTRAINTS[name]
        return problem(HTTPStatus.CONFLICT, message, errors=[FieldError(field, message)])
    return await _unexpected(request, error)


async def _data(request: Request, error: Exception) -> JSONResponse:
    """PostgreSQL's own verdict on a value that got past the models, without quoting the value."""
    code = _sqlstate(error)
    logger.warning("PostgreSQL refused a value (SQLSTATE %s) at %s", code, request.url.path)
    return problem(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        f"A value cannot be stored (SQLSTATE {code}): too large or out of range.",
    )


async def _unavailable(request: Request, error: Exception) -> JSONResponse:
    if (_sqlstate(error) or "").startswith(
        "54"
    ):  # program limit exceeded: the value is at fault, not the server
        return await _data(request, error)
    logger.warning("A store does not answer: %s", type(error).__name__)
    return problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "A store behind the API does not answer. Try again; after a write, look first whether it was kept.",
        headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
    )


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    incident = secrets.token_hex(6)
    logger.error("Incident %s: %s %s", incident, request.method, request.url.path, exc_info=error)
    return problem(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        f"Something unforeseen happened. The server's log has incident {incident}.",
    )


def _sqlstate(error: BaseException) -> str | None:
    cause = error.orig if isinstance(error, DBAPIError) else error
    return cause.sqlstate if isinstance(cause, psycopg.Error) else None
