"""What the routes work with: opened once by the application's lifespan, found on every request."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy import Connection, Engine

from admin_api.answers import once_of
from routing.transport import Transport
from store.database import ActingPool, Connections, Identity, Role, open_pool
from store.orm import acting, engine
from store.settings import Settings
from store.vault import Keyring, Vault
from workers.artifacts import Artifacts
from workers.client import Client
from workers.doorbells import Doorbells
from workers.jobs import IdempotencyKey
from workers.line import Line

_CONNECTIONS = 10  # a request holds one for milliseconds; Starlette's 40 threads take turns


@dataclass(frozen=True, slots=True)
class Services:
    """One process's connections, keys and stores.

    A route finds those that act for its caller, so that the database obeys the same rules as the route; one
    that has no caller finds the process's own. `engine` is what sessions bind to. For a request with an
    Idempotency-Key it is the connection whose transaction ends when the answer is kept, and `once` is the
    key, for what commits elsewhere.
    """

    settings: Settings
    engine: Engine | Connection
    pool: Connections
    keyring: Keyring
    vault: Vault
    client: Client
    artifacts: Artifacts
    doorbells: Doorbells
    line: Line
    transport: Transport
    once: IdempotencyKey | None = None

    def acting(self, identity: Identity) -> Services:
        """These services with the rights of a caller."""
        assert isinstance(self.engine, Engine), "a caller is known before its transaction"  # noqa: S101
        return replace(
            self,
            engine=acting(self.engine, identity),
            pool=ActingPool(self.pool, identity),
            client=self.client.acting(identity),
        )


@contextmanager
def opened(settings: Settings) -> Iterator[Services]:
    """The services of a process. Does not wait for the database: it may start later."""
    keyring = Keyring.load(settings)
    with ExitStack() as stack:
        configuration = engine(settings.database(), Role.API, size=_CONNECTIONS, application="orrery api")
        stack.callback(configuration.dispose)
        pool = open_pool(
            settings.database(), Role.API, size=_CONNECTIONS, application="orrery api", check=True
        )
        stack.callback(pool.close)
        client = Client(settings, pool=pool)
        stack.callback(client.close)
        doorbells = Doorbells(settings.redis())
        stack.callback(doorbells.close)
        line = Line(settings.redis())
        stack.callback(line.close)
        transport = Transport()
        stack.callback(transport.close)
        yield Services(
            settings=settings,
            engine=configuration,
            pool=pool,
            keyring=keyring,
            vault=Vault(keyring),
            client=client,
            artifacts=Artifacts(settings.artifacts_url),
            doorbells=doorbells,
            line=line,
            transport=transport,
        )


def services(request: Request) -> Services:
    """The services of the application that serves `request`."""
    found: Services = request.app.state.services
    return found


def _using(request: Request) -> Services:
    found = services(request)
    caller = getattr(request.state, "principal", None)
    if caller is None:
        return found
    found = found.acting(caller.identity)
    once = once_of(request)
    if once is None:
        return found
    assert isinstance(found.engine, Engine), "the application's services know no request"  # noqa: S101
    connection, key = once.claim(found.engine, found.vault, request)
    return replace(found, engine=connection, once=key)


Using = Annotated[Services, Depends(_using)]
