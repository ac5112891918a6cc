"""Every column that holds sealed secrets, and their rewrapping when the master key changes.

A column that is missing here would lose its secrets with the old master key: `tests/store/test_sealed.py`
compares this list with the schema.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from store import audit
from store.vault import Sealed, Vault, VaultError, envelope_head


@dataclass(frozen=True, slots=True)
class SealedColumn:
    """Where secrets are, and how their seals are bound (`Vault.seal`).

    Args:
        row, version: SQL over the table's columns.
        routes: a routing table: its writers lock the configuration's version first.
    """

    table: str
    column: str
    field: str
    version: str
    row: str = "id::text"
    routes: bool = False


SEALED_COLUMNS: Sequence[SealedColumn] = (
    SealedColumn("ai_providers", "sealed_key", "api_key", "key_version", routes=True),
    SealedColumn("admin_provider_settings", "sealed_key", "api_key", "key_version", routes=True),
    SealedColumn("system_integrations", "sealed_credentials", "credentials", "credentials_version"),
    SealedColumn("admin_second_factors", "sealed_secret", "secret", "1"),
    SealedColumn("idempotency_keys", "answer", "answer", "1", row="scope || ' ' || key"),
)


@dataclass(frozen=True, slots=True)
class Unopened:
    """A secret that cannot be rewrapped: the master key that it names, and why."""

    kid: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class Pass:
    """What going through one column did. `busy`: rows that others held, left for the next pass."""

    rewrapped: int
    busy: int
    unopened: Sequence[Unopened]


BATCH = 200
"""Secrets of one transaction. Writers of configuration wait for it, some milliseconds."""


def rewrap(
    db: psycopg.Connection[Any],
    column: SealedColumn,
    vault: Vault,
    kid: str,
    *,
    actor: str,
    on_batch: Callable[[], None] = lambda: None,
) -> Pass:
    """Wrap by master key `kid`, which seals now, whatever another one wraps.

    Each batch is a transaction, so that what was done stays done. Values are replaced where they stand: an
    owner, a version and the time of the last change stay.

    Args:
        db: an autocommit connection as the owner, with tuple rows.
        actor: for the audit log, which notes each changed row of a noun.
        on_batch: called after each transaction.
    """
    stale = sql.SQL("{column} IS NOT NULL AND substring({column} FOR {length}) <> {head}").format(
        column=sql.Identifier(column.column), length=len(envelope_head(kid)), head=envelope_head(kid)
    )
    table = sql.Identifier(column.table)
    places = db.execute(sql.SQL("SELECT ctid::text FROM {} WHERE {}").format(table, stale)).fetchall()
    locked = sql.SQL(
        "SELECT ctid::text, {row}, {version}, {column} FROM {table} "
        "WHERE ctid = ANY (%s::tid[]) AND {stale} FOR UPDATE SKIP LOCKED"
    ).format(
        row=sql.SQL(column.row),
        version=sql.SQL(column.version),
        column=sql.Identifier(column.column),
        table=table,
        stale=stale,
    )
    done, unopened = 0, list[Unopened]()
    for first in range(0, len(places), BATCH):
        batch = [place for (place,) in places[first : first + BATCH]]
        with db.transaction():
            if column.routes:
                db.execute("SELECT version FROM config_state FOR UPDATE")
            audit.acting(db, actor)
            found = db.execute(locked, [batch]).fetchall()
            renewed = dict[str, bytes]()
            for place, row, version, blob in found:
                try:
                    renewed[place] = _rewrapped(vault, column, blob, row, version)
                except VaultError as error:
                    unopened.append(Unopened(Sealed(blob).kid, str(error)))
            _store(db, column, renewed)
        done += len(renewed)
        on_batch()
    return Pass(done, len(places) - done - len(unopened), unopened)


def is_sealed_anywhere(db: psycopg.Connection[Any]) -> bool:
    """Whether the database holds any secret that only a keyring opens."""
    return any(
        db.execute(
            sql.SQL("SELECT FROM {} WHERE {} IS NOT NULL LIMIT 1").format(
                sql.Identifier(column.table), sql.Identifier(column.column)
            )
        ).fetchone()
        is not None
        for column in SEALED_COLUMNS
    )


def _rewrapped(vault: Vault, column: SealedColumn, blob: bytes, row: str, version: int) -> bytes:
    return vault.rewrap(Sealed(blob), table=column.table, row=row, field=column.field, version=version).blob


def _store(db: psycopg.Connection[Any], column: SealedColumn, renewed: dict[str, bytes]) -> None:
    if not renewed:
        return
    statement = sql.SQL(
        "UPDATE {table} SET {column} = renewed.blob "
        "FROM unnest(%s::tid[], %s::bytea[]) AS renewed (place, blob) WHERE {table}.ctid = renewed.place"
    ).format(table=sql.Identifier(column.table), column=sql.Identifier(column.column))
    db.execute(statement, [list(renewed), list(renewed.values())])
