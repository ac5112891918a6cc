"""A write that is sent again under its Idempotency-Key is answered again, not done again.

    Answers (ASGI) ── guard: who, may they, what was sent ── Using: claim ── route ── Answers: keep, then send

A claim opens a transaction that holds an advisory lock on the key. The sessions of the route join it, so that
a change of the configuration and the answer to it are committed together, or neither. A second request with
the key is refused with 409 while the first is under way, as Stripe does, and gets the first one's answer
afterwards, for 24 hours. Only successes are kept: a refusal has changed nothing.

What the row keeps is sealed: answers may show a secret once, and a hash of a body can be guessed at.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any, TypeVar

from fastapi import FastAPI, Header, Request, Response
from fastapi.concurrency import run_in_threadpool
from sqlalchemy import Connection, Engine, text
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from admin_api.bodies import document_of
from admin_api.errors import problem
from admin_api.refusals import Conflict, FieldError
from store.vault import Sealed, Vault, VaultError
from workers.jobs import IdempotencyKey as KeyOfSender
from workers.requests import KeyReused, Sender, checked_key

HEADER = "Idempotency-Key"
REPLAYED = "Idempotent-Replayed"
_DESCRIPTION = (
    "Yours for this request: 1 to 255 printable characters, kept for 24 hours. Sent again with the same body "
    "it changes nothing and answers the same; with another body it is refused."
)
IdempotencyKey = Annotated[str | None, Header(alias=HEADER, description=_DESCRIPTION)]

_WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_RETRY_AFTER_SECONDS = 1

_Endpoint = TypeVar("_Endpoint", bound=Callable[..., Any])
_KEEPING_THEMSELVES: set[Callable[..., Any]] = set()


def keeps_itself(endpoint: _Endpoint) -> _Endpoint:
    """Declare that the endpoint takes the key as a parameter and stores it together with its jobs."""
    _KEEPING_THEMSELVES.add(endpoint)
    return endpoint


class UnderWay(Exception):
    """Another request with the same key has not been answered yet."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as it was first sent; the body is deflated, for a list of a million ids has 40 MB."""

    status: int
    headers: Mapping[str, str]
    deflated: bytes


class Replayed(Exception):
    """The key has an answer already."""

    def __init__(self, answer: Answer) -> None:
        super().__init__("answered before")
        self.answer = answer


def install(app: FastAPI) -> None:
    """Let every write of `app` take a key. Inside of the error handlers: what is raised here is answered."""
    app.add_exception_handler(UnderWay, _under_way)
    app.add_exception_handler(Replayed, _replayed)
    app.router.middleware_stack = Answers(app.router.middleware_stack)


def documented(document: dict[str, Any]) -> dict[str, Any]:
    """The OpenAPI document with the header at every write that takes it: all but logins and their like, and
    previews, which are asked by POST and write nothing.
    """
    header = {
        "name": HEADER,
        "in": "header",
        "required": False,
        "schema": {"type": "string", "minLength": 1, "maxLength": 255},
        "description": _DESCRIPTION,
    }
    for path, operations in document["paths"].items():
        if "/auth/" in path or path.endswith("/preview"):
            continue  # what hands out credentials, or writes nothing, keeps no answers
        for method, operation in operations.items():
            taken = operation.setdefault("parameters", []) if method.upper() in _WRITES else [header]
            if not any(parameter["name"] == HEADER for parameter in taken):
                taken.append(header)
    return document


def once_of(request: Request) -> Once | None:
    """The claim that the request may make; None where it carries no key, or its route keeps keys itself."""
    if request.scope.get("endpoint") in _KEEPING_THEMSELVES:
        return None
    return getattr(request.state, "once", None)


class Once:
    """One request with a key: claimed before the route runs, kept when its answer is known."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._claim: _Claim | None = None

    @property
    def is_claimed(self) -> bool:
        """Whether this request is the one that is carried out."""
        return self._claim is not None

    def claim(self, engine: Engine, vault: Vault, request: Request) -> tuple[Connection, KeyOfSender]:
        """Begin the transaction of the request, whose caller is known and whose body was read.

        Raises: KeyInvalid; KeyReused; UnderWay; Replayed; Conflict where the answer was lost.
        """
        sender: Sender = request.state.principal.sender
        route = f"{request.method} {request.url.path}?{request.url.query}"
        key = KeyOfSender(sender.scope, checked_key(self._key), hashlib.sha256(route.encode()).digest())
        connection = engine.connect()
        try:
            claim = _Claim(connection, vault, key, _digest(document_of(request)))
            claim.begin()
        except BaseException:
            connection.close()
            raise
        self._claim = claim
        return connection, key

    def keep(self, answer: Answer) -> None:
        """Store the answer and commit. Raises KeyReused where a job took the key meanwhile."""
        assert self._claim is not None, "only what was claimed is kept"  # noqa: S101
        self._claim.keep(answer)
        self.drop()

    def drop(self) -> None:
        """Undo what is not committed; the key is free again."""
        claim, self._claim = self._claim, None
        if claim is not None:
            claim.connection.close()


@dataclass(frozen=True, slots=True)
class _Claim:
    connection: Connection
    vault: Vault
    key: KeyOfSender
    digest: str  # of the body

    def begin(self) -> None:
        if not self.connection.scalar(_CLAIM, {"name": f"orrery.answers {self._row}"}):
            raise UnderWay
        found = self.connection.execute(_FIND, {"scope": self.key.scope, "key": self.key.key}).one_or_none()
        if found is not None:
            self._replay(found.request_hash, found.answer)

    def keep(self, answer: Answer) -> None:
        values = {
            "scope": self.key.scope,
            "key": self.key.key,
            "request_hash": self.key.request_hash,
            "answer": self._sealed(answer).blob,
        }
        if not self.connection.execute(_KEEP, values).rowcount:
            raise KeyReused(self.key.key)
        self.connection.commit()

    def _replay(self, request_hash: bytes, blob: bytes | None) -> None:
        if request_hash != self.key.request_hash:
            raise KeyReused(self.key.key)
        answer = None if blob is None else self._opened(Sealed(blob))
        if answer is None:
            raise Conflict(
                "The request with this key was carried out, but its answer is lost. Look at what it did; to "
                "do it once more, send another key.",
                field=HEADER,
            )
        raise Replayed(answer)

    @property
    def _row(self) -> str:
        return f"{self.key.scope} {self.key.key}"

    def _sealed(self, answer: Answer) -> Sealed:
        kept = {
            "digest": self.digest,
            "status": answer.status,
            "headers": dict(answer.headers),
            "deflated": base64.b64encode(answer.deflated).decode(),
        }
        return self.vault.seal(
            json.dumps(kept), table="idempotency_keys", row=self._row, field="answer", version=1
        )

    def _opened(self, sealed: Sealed) -> Answer | None:
        """None where its master key is gone. Raises KeyReused for another body."""
        try:
            clear = self.vault.open(
                sealed, table="idempotency_keys", row=self._row, field="answer", version=1
            )
        except VaultError:
            return None
        kept = json.loads(clear)
        if kept["digest"] != self.digest:
            raise KeyReused(self.key.key)
        return Answer(kept["status"], kept["headers"], base64.b64decode(kept["deflated"]))


class Answers:
    """ASGI middleware: holds the answer of a claimed request back until it is kept."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and its answer."""
        key = Headers(scope=scope).get(HEADER) if scope.get("method") in _WRITES else None
        if key is None:
            await self._app(scope, receive, send)
            return
        once = Once(key)
        scope.setdefault("state", {})["once"] = once
        held = _Held(once, send)
        try:
            await self._app(scope, receive, held.take)
            if once.is_claimed:
                answer = held.answer()
                await run_in_threadpool(once.keep, answer)
                await _response(answer)(scope, receive, send)
        finally:
            once.drop()


class _Held:
    """Collects the answer of a claimed request; every other one is passed on as it comes."""

    def __init__(self, once: Once, send: Send) -> None:
        self._once = once
        self._send = send
        self._start: Message = {}
        self._deflate = zlib.compressobj()
        self._deflated = bytearray()

    async def take(self, message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] >= HTTPStatus.MULTIPLE_CHOICES:
            await run_in_threadpool(self._once.drop)  # before the answer: the client may try again at once
        if not self._once.is_claimed:
            await self._send(message)
        elif message["type"] == "http.response.start":
            self._start = message
        elif message["type"] == "http.response.body":
            self._deflated += self._deflate.compress(message.get("body", b""))

    def answer(self) -> Answer:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in self._start["headers"]}
        headers.pop("content-length", None)  # `_response` counts anew
        return Answer(
            self._start["status"], headers, bytes(self._deflated) + self._deflate.flush(zlib.Z_FINISH)
        )


def _response(answer: Answer, **headers: str) -> Response:
    return Response(zlib.decompress(answer.deflated), answer.status, {**answer.headers, **headers})


async def _under_way(request: Request, error: Exception) -> Response:
    message = "The first request with this key is still under way. Send it again for its answer."
    return problem(
        HTTPStatus.CONFLICT,
        message,
        kind="idempotency-key",
        errors=[FieldError(HEADER, message)],
        headers={"Retry-After": str(_RETRY_AFTER_SECONDS)},
    )


async def _replayed(request: Request, error: Exception) -> Response:
    assert isinstance(error, Replayed)  # noqa: S101 - the handler is registered for nothing else
    return _response(error.answer, **{REPLAYED: "true"})


def _digest(document: Any) -> str:
    """The same for documents that differ in the order of members or in blanks only."""
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


# Longer than the 30 s of `conninfo`: cancelling a million jobs leaves this connection idle for a minute.
_CLAIM = text(
    "SELECT pg_try_advisory_xact_lock(hashtextextended(:name, 0)) "
    "FROM set_config('idle_in_transaction_session_timeout', '10min', true)"
)
_FIND = text("SELECT request_hash, answer FROM idempotency_keys WHERE scope = :scope AND key = :key")

# A retry by filter has stored the key with its jobs already.
_KEEP = text(
    "INSERT INTO idempotency_keys AS kept (scope, key, request_hash, answer) "
    "VALUES (:scope, :key, :request_hash, :answer) "
    "ON CONFLICT (scope, key) DO UPDATE SET answer = EXCLUDED.answer "
    "WHERE kept.request_hash = EXCLUDED.request_hash AND kept.answer IS NULL"
)
