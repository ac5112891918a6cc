"""A real server on a free port, and callers of every kind."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

import httpx
import psycopg
import pytest
import uvicorn
from fastapi import APIRouter, FastAPI

from admin_api.app import create_app
from admin_api.tokens import mint_admin_jwt, new_app_token
from store.ids import new_id
from store.settings import Settings
from store.tables import Admin
from store.vault import Keyring
from workers.client import Client

Json = dict[str, Any]


class Api:
    """A client of the API that speaks as one caller."""

    def __init__(self, http: httpx.Client, token: str | None) -> None:
        self._http = http
        self.token = token
        self.host, self.port = http.base_url.host, http.base_url.port

    def call(self, method: str, path: str, json: Any = None, **options: Any) -> httpx.Response:
        """The answer to one request; `path` is below /api/v1."""
        headers = {} if self.token is None else {"Authorization": f"Bearer {self.token}"}
        headers |= options.pop("headers", {})
        if json is not None:
            options["json"] = json
        return self._http.request(method, f"/api/v1{path}", headers=headers, **options)

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.call("GET", path, **options)

    def post(self, path: str, json: Any = None, **options: Any) -> httpx.Response:
        return self.call("POST", path, json, **options)

    def put(self, path: str, json: Any) -> httpx.Response:
        return self.call("PUT", path, json)

    def patch(self, path: str, json: Any) -> httpx.Response:
        return self.call("PATCH", path, json)

    def delete(self, path: str) -> httpx.Response:
        return self.call("DELETE", path)

    def made(self, path: str, json: Json) -> Json:
        """What a POST made, which must succeed."""
        answer = self.post(path, json)
        assert answer.status_code in (201, 202), answer.text
        noun: Json = answer.json()
        return noun


class People:
    """Makes callers, as the command line does."""

    def __init__(self, settings: Settings, http: httpx.Client) -> None:
        self._settings = settings
        self._http = http

    def admin(self, role: str = "super_admin", *, mfa: bool = True, minutes: float = 60) -> Api:
        """An administrator with a fresh token."""
        row = Admin(id=new_id(), email=f"{new_id()}@example.com", role=role, password_hash="x")
        self.run(
            "INSERT INTO admins (id, email, role, password_hash) VALUES (%s, %s, %s, %s)",
            [row.id, row.email, row.role, row.password_hash],
        )
        keyring = Keyring.load(self._settings)
        return Api(self._http, mint_admin_jwt(keyring, row, mfa=mfa, minutes=minutes))

    def application(
        self,
        *scopes: str,
        owner: UUID | None = None,
        expires_at: datetime | None = None,
    ) -> Api:
        """An application with a fresh token; without scopes it has the default ones."""
        clear, digest, last4 = new_app_token()
        self.run(
            "INSERT INTO app_tokens (id, name, owner_admin_id, scopes, token_hash, token_last4, expires_at) "
            "VALUES (%s, 'test', %s, %s, %s, %s, %s)",
            [new_id(), owner, list(scopes) or ["jobs:enqueue", "jobs:read"], digest, last4, expires_at],
        )
        return Api(self._http, clear)

    def nobody(self, token: str | None = None) -> Api:
        """A caller with no credential, or with this one."""
        return Api(self._http, token)

    def run(self, statement: str, values: list[Any] | None = None) -> list[Any]:
        """Run SQL as the database's owner."""
        with psycopg.connect(self._settings.database(), autocommit=True) as db:
            done = db.execute(statement.encode(), values)
            return done.fetchall() if done.description else []


_idle: list[FastAPI] = []


@contextmanager
def _application(settings: Settings, *routers: APIRouter, **options: Any) -> Iterator[FastAPI]:
    """The application. Made once, and used again by the tests after: its routes take half a second."""
    is_usual = not (routers or options or settings.proxies)
    app = _idle.pop() if is_usual and _idle else create_app(settings, **options)
    app.state.settings = settings
    for router in routers:
        app.include_router(router)
    yield app
    if is_usual:
        _idle.append(app)


@contextmanager
def served(settings: Settings, *routers: APIRouter, **options: Any) -> Iterator[httpx.Client]:
    """The API, made with these options and with routes of the test's, on its own port, and a client of it."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    with (
        _application(settings, *routers, **options) as app,
        _running(app, listener),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) as http,
    ):
        yield http


@contextmanager
def _running(app: FastAPI, listener: socket.socket) -> Iterator[None]:
    config = uvicorn.Config(app, log_level="warning", ws="none", proxy_headers=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(timeout=20)
        listener.close()
        assert not thread.is_alive()


@pytest.fixture
def serve() -> Iterator[Callable[..., httpx.Client]]:
    """Starts servers that end with the test."""
    with ExitStack() as stack:
        yield lambda settings, *routers, **options: stack.enter_context(served(settings, *routers, **options))


@pytest.fixture
def http(settings: Settings, serve: Callable[..., httpx.Client]) -> httpx.Client:
    return serve(settings)


@pytest.fixture
def people(settings: Settings, http: httpx.Client) -> People:
    return People(settings, http)


@pytest.fixture
def api(people: People) -> Api:
    """A super admin with a second factor."""
    return people.admin()


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    client = Client(settings)
    yield client
    client.close()
