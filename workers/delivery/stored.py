"""Integrations as they are stored: read with the worker's role, which alone may see sealed credentials."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from psycopg import Connection
from psycopg.rows import DictRow

from store.vault import Sealed, Vault
from workers.delivery.values import Integration


def stored(db: Connection[DictRow], vault: Vault, integration_id: UUID) -> Integration | None:
    """The integration with its credentials opened; None where there is none.

    Raises VaultError where the credentials do not open.
    """
    row = db.execute(_FIND, [integration_id]).fetchone()
    if row is None:
        return None
    blob, version = row.pop("sealed_credentials"), row.pop("credentials_version")
    clear = "{}"
    if blob is not None:
        clear = vault.open(
            Sealed(blob),
            table="system_integrations",
            row=str(integration_id),
            field="credentials",
            version=version,
        )
    return Integration(credentials=json.loads(clear), **row)


def callback_terms(db: Connection[DictRow], vault: Vault) -> tuple[dict[str, str], dict[str, Any]]:
    """The credentials and settings that callbacks go by: those of the default webhook; none without one."""
    row = db.execute(_DEFAULT_WEBHOOK).fetchone()
    found = None if row is None else stored(db, vault, row["id"])
    return ({}, {}) if found is None else (dict(found.credentials), dict(found.settings))


def note_health(
    db: Connection[DictRow], integration_id: UUID, *, ok: bool, latency_ms: int, error: str | None
) -> None:
    """Keep how the last try went."""
    db.execute(
        _NOTE, {"id": integration_id, "ok": ok, "latency_ms": latency_ms, "error": error and error[:1000]}
    )


_FIND = """
SELECT name, type, endpoint, settings, sealed_credentials, credentials_version
FROM system_integrations WHERE id = %s"""

_DEFAULT_WEBHOOK = """
SELECT id FROM system_integrations WHERE type = 'webhook' AND is_default ORDER BY is_active DESC, id LIMIT
1"""

_NOTE = """
INSERT INTO integration_health (integration_id, last_test_at, last_ok, last_latency_ms, last_error)
SELECT id, clock_timestamp(), %(ok)s, %(latency_ms)s, %(error)s FROM system_integrations WHERE id = %(id)s
ON CONFLICT (integration_id) DO UPDATE SET
    last_test_at = EXCLUDED.last_test_at, last_ok = EXCLUDED.last_ok,
    last_latency_ms = EXCLUDED.last_latency_ms, last_error = EXCLUDED.last_error"""
