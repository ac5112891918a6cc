"""The callers of the database in tests, and rows of every table that are theirs or a stranger's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import psycopg
from psycopg import Connection, sql
from psycopg.types.json import Jsonb

from store.database import Identity, Role
from store.ids import new_id

OWNER, STRANGER = new_id(), new_id()  # admins
TOKEN, OTHERS_TOKEN = new_id(), new_id()

IDENTITIES: Mapping[str, Identity | str] = {
    "super_admin": Identity(Role.SUPER_ADMIN, OWNER),
    "with mfa": Identity(Role.SUPER_ADMIN, OWNER, mfa=True),
    "admin": Identity(Role.ADMIN, OWNER),
    "application": Identity(Role.APPLICATION, OWNER, TOKEN),
    "client": Role.CLIENT,
    "api": Role.API,
    "worker": Role.WORKER,
    "reporting": "orrery_reporting",
}

VALUES: Mapping[str, Mapping[str, Any]] = {  # where a column's checks want more than any value of its type
    "admin_provider_settings": {"key_version": 1, "admin_id": STRANGER},
    "admins": {"role": "admin"},
    "ai_providers": {"base_url": "http://127.0.0.1"},
    "ai_usage_analytics": {"outcome": "failed", "lane": "batch"},
    "budgets": {"scope": "global", "period": "day", "limit_usd": 1},
    "features": {"capability": "text"},
    "fires": {"kind": "manual"},
    "idempotency_keys": {"job_id": new_id(), "scope": str(STRANGER)},
    "job_history": {"state": "failed", "token_id": OTHERS_TOKEN, "caller_admin_id": STRANGER},
    "jobs": {"lane": "batch", "token_id": OTHERS_TOKEN, "caller_admin_id": STRANGER},
    "notices": {"url": "http://127.0.0.1"},
    "system_integrations": {"type": "webhook"},
    "worker_breakers": {"state": "open"},
}
SINGLE_ROWS = {
    *("audit_head", "config_state", "feeder_state", "lanes", "retention", "usage_rollup", "alembic_version"),
}


@dataclass(frozen=True)
class Column:
    name: str
    type: str
    is_needed: bool
    is_settable: bool


def all_tables(owner: Connection[Any]) -> dict[str, list[Column]]:
    rows = owner.execute(
        "SELECT relname, attname, format_type(atttypid, NULL), "
        "attnotnull AND NOT atthasdef AND attidentity = '', attidentity <> 'a' AND attgenerated = '' "
        "FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid "
        "WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition "
        "AND attnum > 0 AND NOT attisdropped ORDER BY relname, attnum"
    ).fetchall()
    found: dict[str, list[Column]] = {}
    for table, *column in rows:
        found.setdefault(table, []).append(Column(*column))
    return found


def any_row(table: str, columns: list[Column]) -> dict[str, Any]:
    needed: dict[str, Any] = {column.name: _value(column.type) for column in columns if column.is_needed}
    return {**needed, **VALUES.get(table, {})}


def _value(type_: str) -> Any:
    if type_ == "jsonb":
        return Jsonb({})
    if type_.endswith("[]"):
        return "{}"
    return {
        "uuid": new_id(),
        "text": f"x{new_id().hex}",
        "character varying": new_id().hex,
        "boolean": False,
        "bytea": new_id().bytes,
        "date": _day(),
    }.get(type_, _day() if "time" in type_ else new_id().int % 10_000)


def _day() -> date:
    return date(2031, 1, 1) + timedelta(days=new_id().int % 10_000)


def insert(db: Connection[Any], table: str, row: Mapping[str, Any]) -> None:
    if table in ("job_history", "ai_usage_analytics"):
        row = {**row, "finished_at": "now"}
    if not row:
        db.execute(sql.SQL("INSERT INTO {} DEFAULT VALUES").format(sql.Identifier(table)))
        return
    db.execute(
        sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
            sql.Identifier(table),
            sql.SQL(", ").join(map(sql.Identifier, row)),
            sql.SQL(", ").join(map(sql.Placeholder, row)),
        ),
        row,
    )


def ownership(table: str, identity: Identity | str) -> dict[str, Any]:
    """What makes a row of the table the caller's."""
    if not isinstance(identity, Identity):
        return {}
    owned: dict[str, dict[str, Any]] = {
        "admin_provider_settings": {"admin_id": identity.admin_id},
        "admin_second_factors": {"admin_id": identity.admin_id},
        "admin_sessions": {"admin_id": identity.admin_id},
        "idempotency_keys": {"scope": str(identity.token_id or identity.admin_id)},
        "job_history": {"token_id": identity.token_id, "caller_admin_id": identity.admin_id},
        "jobs": {"token_id": identity.token_id, "caller_admin_id": identity.admin_id},
    }
    return owned.get(table, {})


def own_rows(owner: Connection[Any], tables: Mapping[str, list[Column]], identity: Identity | str) -> None:
    """Give the caller a row where rows have owners, and take away those of the callers before."""
    with owner.transaction():
        owner.execute("SET LOCAL session_replication_role = replica")
        job_id = new_id()
        for table in (
            "admin_provider_settings",
            "admin_second_factors",
            "admin_sessions",
            "idempotency_keys",
            "job_history",
            "jobs",
        ):
            owner.execute(f"DELETE FROM {table}".encode())
            for own in ({}, ownership(table, identity)):
                row = any_row(table, tables[table]) | own
                if table == "job_history" and own:
                    row["id"] = job_id
                insert(owner, table, row)
        for table in ("ai_usage_analytics", "notices"):  # a caller's where the job is
            owner.execute(f"DELETE FROM {table}".encode())
            for id_ in (new_id(), job_id):
                insert(owner, table, any_row(table, tables[table]) | {"job_id": id_})


def reached(db: Connection[Any], statement: sql.Composed, *, counted: bool = False) -> int | None:
    """How many rows the statement concerns; None where the role may not."""
    try:
        with db.transaction(force_rollback=True):
            done = db.execute(statement)
            return int(done.fetchall()[0][0]) if counted else done.rowcount
    except psycopg.errors.InsufficientPrivilege:
        return None


@contextmanager
def being(owner: Connection[Any], identity: Identity | str) -> Iterator[None]:
    with owner.transaction(force_rollback=True):
        if isinstance(identity, Identity):
            owner.execute(identity.local())
        else:
            owner.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(str(identity))))
        yield


def role(identity: Identity | str) -> str:
    return str(identity.role if isinstance(identity, Identity) else identity)


def group(name: str) -> str:
    return name.replace("with mfa", "super_admin")
