"""A real server on a free port, and callers of every kind."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import httpx
import psycopg
import pytest
import uvicorn
from fastapi import APIRouter, FastAPI

from admin_api.app import create_app
from admin_api.services import opened
from admin_api.tokens import mint_admin_jwt, new_app_token
from store.ids import new_id
from store.settings import Settings
from store.tables import Admin
from store.vault import Keyring
from tests.workers.conftest import until
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


class Server:
    """The application on a port of its own, in a thread."""

    def __init__(self, app: FastAPI, *, lifespan: Literal["on", "off"]) -> None:
        self.app = app
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        config = uvicorn.Config(app, log_level="warning", ws="none", proxy_headers=False, lifespan=lifespan)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._listener]}, daemon=True
        )
        self._thread.start()

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=30, trust_env=False)

    def finish(self) -> None:
        """Wait until no request is under way."""
        until(lambda: not self._server.server_state.tasks, seconds=20)

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(timeout=20)
        self._listener.close()
        assert not self._thread.is_alive()


@pytest.fixture(scope="session")
def idle() -> Iterator[list[Server]]:
    """Servers that have served a test and wait for the next: to start and stop one takes half a second."""
    servers: list[Server] = []
    yield servers
    for server in servers:
        server.stop()


@pytest.fixture
def serve(idle: list[Server]) -> Iterator[Callable[..., httpx.Client]]:
    """Serves the API until the test ends, if wanted made with these options and with routes of the test's."""
    with ExitStack() as stack:

        def served(settings: Settings, *routers: APIRouter, **options: Any) -> httpx.Client:
            is_usual = not (routers or options or settings.proxies)
            return stack.enter_context(
                _lent(idle, settings) if is_usual else _made(settings, *routers, **options)
            )

        yield served


@contextmanager
def _lent(idle: list[Server], settings: Settings) -> Iterator[httpx.Client]:
    server = idle.pop() if idle else Server(create_app(settings), lifespan="off")
    server.app.state.settings = settings
    with opened(settings) as server.app.state.services:
        with server.client() as http:
            yield http
        server.finish()
    idle.append(server)


@contextmanager
def _made(settings: Settings, *routers: APIRouter, **options: Any) -> Iterator[httpx.Client]:
    app = create_app(settings, **options)
    for router in routers:
        app.include_router(router)
    server = Server(app, lifespan="on")
    try:
        with server.client() as http:
            yield http
    finally:
        server.stop()


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
