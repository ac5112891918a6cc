"""Tries a provider because somebody asks for it."""

from __future__ import annotations

from dataclasses import asdict
from uuid import UUID

import psycopg
from psycopg.rows import dict_row
from pydantic import BaseModel

from admin_api.refusals import NotFound
from admin_api.services import Services
from routing import probing
from routing.transport import Transport
from routing.values import Provider
from store.database import Role, conninfo


class Verdict(BaseModel):
    """What trying a provider came to. `status` is the provider's HTTP status, null where none came."""

    ok: bool
    status: int | None
    latency_ms: int
    error_class: str | None = None
    message: str
    models: list[str] = []


def probed(transport: Transport, provider: Provider, key: str | None) -> Verdict:
    """Ask the provider for its models. Whatever it answers is a verdict, not an error."""
    return Verdict(**asdict(probing.probed(transport, provider, key)))


def stored_provider(using: Services, provider_id: UUID) -> tuple[Provider, str | None]:
    """A stored provider and its key.

    The API's role cannot read keys, by column grant; only here, where an administrator asks for a call with
    the stored key, a connection of the worker's role is opened, for this one row.

    Raises NotFound, or VaultError for a key that does not open.
    """
    target = conninfo(using.settings.database(), Role.WORKER, application="orrery api test")
    with psycopg.connect(target, autocommit=True, row_factory=dict_row) as db:
        found = probing.stored(db, using.vault, provider_id)
    if found is None:
        raise NotFound(f"There is no provider {provider_id}.")
    return found
