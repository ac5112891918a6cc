"""What the routes work with: opened once by the application's lifespan, found on every request."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy import Engine

from routing.transport import Transport
from store.database import Pool, Role, open_pool
from store.orm import engine
from store.settings import Settings
from store.vault import Keyring, Vault
from workers.artifacts import Artifacts
from workers.client import Client
from workers.doorbells import Doorbells

_CONNECTIONS = 10  # a request holds one for milliseconds; Starlette's 40 threads take turns


@dataclass(frozen=True, slots=True)
class Services:
    """One process's connections, keys and stores."""

    settings: Settings
    engine: Engine
    pool: Pool
    keyring: Keyring
    vault: Vault
    client: Client
    artifacts: Artifacts
    doorbells: Doorbells
    transport: Transport


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
            transport=transport,
        )


def services(request: Request) -> Services:
    """The services of the application that serves `request`."""
    found: Services = request.app.state.services
    return found


Using = Annotated[Services, Depends(services)]
