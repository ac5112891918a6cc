"""Connections of a role: how they are opened, and pools of them for the jobs' hot path.

Everybody logs in with the owner's URL and becomes a role that owns nothing. The API becomes its caller for
each transaction: row level security then lets it see and change what the caller may, whatever a query says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol
from uuid import UUID

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import DictRow, dict_row
from psycopg_pool import ConnectionPool

Pool = ConnectionPool[psycopg.Connection[DictRow]]

UNAVAILABLE = psycopg.OperationalError
"""What psycopg and its pool raise where the database cannot be reached, is full, or is shutting down."""


def is_refusal(error: psycopg.Error) -> bool:
    """Whether PostgreSQL says that a statement is beyond its limits (class 54). psycopg counts that among the
    operational errors, but waiting does not help."""
    return (error.sqlstate or "").startswith("54")


# A server that vanished is noticed within 20-25 s instead of the kernel's 15 minutes and more, and the server
# notices a vanished client as soon, so that it keeps no lock for two hours.
_DEAD_PEERS: dict[str, Any] = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
_DEAD_CLIENTS = "-c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3"

# A worker's statements find rows by their keys. Planned while the live table was small, they would scan it,
# and go on doing so when it has grown, for the plan is kept: a fifth of what ending a job took.
_BY_INDEX = (
    "-c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off "
    "-c plan_cache_mode=force_generic_plan -c jit=off"
)


class Role(StrEnum):
    """Database roles. They are made by the migrations, log nobody in and own nothing.

    API is the API itself, as long as it does not act for a caller; CLIENT are programs that import
    `workers.client`. The last three are the API's callers.
    """

    WORKER = "orrery_worker"
    API = "orrery_api"
    CLIENT = "orrery_client"
    SUPER_ADMIN = "orrery_super_admin"
    ADMIN = "orrery_admin"
    APPLICATION = "orrery_application"


# A worker has few statements and uses each for ever. psycopg would have each connection plan them five times
# before it prepares them, and plans over the history's partitions take milliseconds.
_PREPARED_AFTER = {Role.WORKER: 0}


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller as the policies of row level security know it.

    `admin_id`: the caller, or the owner of the application's token. `token_id`: the application's. `mfa`: a
    super admin who gave a second factor, without which the database lets nothing be written. `request_id`
    goes into the audit log.
    """

    role: Role
    admin_id: UUID | None = None
    token_id: UUID | None = None
    mfa: bool = False
    request_id: str = ""

    @property
    def settings(self) -> Mapping[str, str]:
        """PostgreSQL's settings that make a session or a transaction this caller's."""
        return {
            "role": self.role.value,
            "orrery.admin_id": "" if self.admin_id is None else str(self.admin_id),
            "orrery.token_id": "" if self.token_id is None else str(self.token_id),
            "orrery.mfa": "true" if self.mfa else "false",
        }

    def local(self) -> sql.Composed:
        """The statement that makes the rest of a transaction this caller's."""
        return sql.SQL("SELECT {}").format(
            sql.SQL(", ").join(
                sql.SQL("set_config({}, {}, true)").format(name, value)
                for name, value in {**self.settings, "orrery.request_id": self.request_id}.items()
            )
        )


class Connections(Protocol):
    """Where autocommit connections that yield dict rows are borrowed."""

    def connection(self) -> AbstractContextManager[psycopg.Connection[DictRow]]:
        """A connection, given back at the end."""
        ...


class ActingPool:
    """Connections of a pool, borrowed for one transaction each that is a caller's."""

    def __init__(self, pool: Connections, identity: Identity) -> None:
        self._pool = pool
        self._begin = sql.SQL("BEGIN; {}").format(identity.local())

    @contextmanager
    def connection(self) -> Iterator[psycopg.Connection[DictRow]]:
        """A connection inside of a transaction, which the pool commits, or rolls back after an error."""
        with self._pool.connection() as db:
            db.execute(self._begin, prepare=False)  # one round trip: several statements, no parameters
            yield db


def conninfo(database_url: str, role: Role | Identity | None = None, *, application: str = "orrery") -> str:
    """A libpq connection string for a role or a caller (None = the owner), with times in UTC.

    Raises psycopg.ProgrammingError where the URL is malformed.
    """
    given = conninfo_to_dict(database_url.replace("postgresql+psycopg://", "postgresql://", 1))
    options = [str(given.pop("options", "") or ""), "-c timezone=UTC", _DEAD_CLIENTS]
    if isinstance(role, Identity):
        options += [f"-c {name}={value}" for name, value in role.settings.items()]
    elif role is not None:
        options.append(f"-c role={role}")
    if role is Role.WORKER:
        options.append(_BY_INDEX)
    elif role is not None:
        options.append("-c idle_in_transaction_session_timeout=30s")
    defaults = {"connect_timeout": 5, "application_name": application, **_DEAD_PEERS}
    return make_conninfo(**{**defaults, **given, "options": " ".join(filter(None, options))})


def open_pool(
    database_url: str,
    role: Role,
    *,
    size: int,
    application: str = "orrery",
    timeout: float = 5,
    check: bool = False,
) -> Pool:
    """A pool of autocommit connections that yield dict rows.

    Args:
        size: connections at most. One is kept open; the others close after five idle minutes.
        timeout: seconds to wait for a free connection before `PoolTimeout`.
        check: ask each connection whether it still lives before it is used (one round trip), for callers
            who cannot try again themselves.
    """
    return ConnectionPool(
        conninfo(database_url, role, application=application),
        connection_class=psycopg.Connection[DictRow],
        kwargs={
            "autocommit": True,
            "row_factory": dict_row,
            "prepare_threshold": _PREPARED_AFTER.get(role, 5),
        },
        min_size=1,
        max_size=size,
        max_idle=300,
        timeout=timeout,
        reconnect_timeout=10,
        check=ConnectionPool.check_connection if check else None,
        open=True,
    )
