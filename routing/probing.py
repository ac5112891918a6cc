"""Tries a provider: its protocol's free credential check, really sent."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from psycopg import Connection
from psycopg.rows import DictRow

from routing.errors import RoutingError, ServerError
from routing.providers import classify, probe, second_probe
from routing.providers.wire import HttpResponse, scrubbed
from routing.transport import Transport
from routing.values import Provider
from store.vault import Sealed, Vault

_TIMEOUT_SECONDS = 15.0
_MODELS_SHOWN = 20
_REFUSED = (401, 403)


@dataclass(frozen=True, slots=True)
class Probed:
    """What trying a provider came to. `status` is the provider's HTTP status, None where none came."""

    ok: bool
    status: int | None
    latency_ms: int
    message: str
    error_class: str | None = None
    models: tuple[str, ...] = ()


def probed(transport: Transport, provider: Provider, key: str | None) -> Probed:
    """Ask the provider for its models. Whatever it answers is a verdict, not an error."""
    started = time.monotonic()
    response: HttpResponse | None = None
    try:
        response = _answer(transport, provider, key)
        if response.status >= 400:
            raise classify(provider, response)
        models = _models(response)
    except RoutingError as error:
        return Probed(
            ok=False,
            status=response.status if response else None,
            latency_ms=_since(started),
            message=error.message,
            error_class=error.error_class,
        )
    return Probed(
        ok=True,
        status=response.status,
        latency_ms=_since(started),
        message="The provider answered." if models else "The provider answered, but lists no models.",
        models=tuple(models[:_MODELS_SHOWN]),
    )


def stored(db: Connection[DictRow], vault: Vault, provider_id: UUID) -> tuple[Provider, str | None] | None:
    """A stored provider and its key, read by the worker's role; None where there is no such provider.

    Raises VaultError for a key that does not open.
    """
    row = db.execute(_STORED, [provider_id]).fetchone()
    if row is None:
        return None
    blob = row.pop("sealed_key")
    provider = Provider(sealed_key=None if blob is None else Sealed(blob), **row)
    if provider.sealed_key is None:
        return provider, None
    key = vault.open(
        provider.sealed_key,
        table="ai_providers",
        row=str(provider.id),
        field="api_key",
        version=provider.key_version,
    )
    return provider, key


_STORED = """
SELECT id, slug, type AS protocol, base_url, api_version, organization, settings, sealed_key, key_version,
       allow_shared_for_normal_admins, allow_private_network, timeout_seconds, is_active
FROM ai_providers WHERE id = %s"""


def _answer(transport: Transport, provider: Provider, key: str | None) -> HttpResponse:
    """What the provider answers; where it refuses the key, to a question for which less of one suffices."""
    until = time.monotonic() + _TIMEOUT_SECONDS
    first = transport.send(probe(provider, key), timeout=_TIMEOUT_SECONDS, provider=provider)
    second = second_probe(provider, key) if first.status in _REFUSED else None
    if second is None:
        return scrubbed(first, key)
    left = max(0.001, until - time.monotonic())
    return scrubbed(transport.send(second, timeout=left, provider=provider), key)


def _since(started: float) -> int:
    return round((time.monotonic() - started) * 1000)


def _models(response: HttpResponse) -> list[str]:
    """Ids of a model list: `{"data": [{"id": ...}]}`, Google's `{"models": [{"name": ...}]}`, or a bare list
    where a vendor answers one.

    Raises ServerError for what is no JSON: then base_url leads to some web page.
    """
    try:
        document: Any = json.loads(response.body)
    except (ValueError, RecursionError):
        raise ServerError(
            "The address answered, but not with JSON. Check base_url: see the vendor's own client.",
            status=response.status,
        ) from None
    entries = document.get("data", document.get("models")) if isinstance(document, dict) else document
    if not isinstance(entries, list):
        return []
    ids = (_model_id(entry) for entry in entries if isinstance(entry, dict))
    return [model_id for model_id in ids if model_id is not None]


def _model_id(entry: dict[str, Any]) -> str | None:
    named = (entry.get(name) for name in ("id", "model_id", "name"))
    found = next((name for name in named if isinstance(name, str)), None)
    return None if found is None else found.removeprefix("models/")
