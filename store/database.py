"""Connections of a role: how they are opened, and pools of them for the jobs' hot path.

Everybody logs in with the owner's URL and becomes a role that owns nothing.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import psycopg
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


class Role(StrEnum):
    """Database roles of the services. They are made by the first migration."""

    WORKER = "orrery_worker"
    API = "orrery_api"


def conninfo(database_url: str, role: Role | None = None, *, application: str = "orrery") -> str:
    """A libpq connection string for `role` (None = the owner), with times in UTC.

    Raises psycopg.ProgrammingError where the URL is malformed.
    """
    given = conninfo_to_dict(database_url.replace("postgresql+psycopg://", "postgresql://", 1))
    options = [str(given.pop("options", "") or ""), "-c timezone=UTC", _DEAD_CLIENTS]
    if role is not None:
        options.append(f"-c role={role}")
    if role is Role.API:
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
        kwargs={"autocommit": True, "row_factory": dict_row},
        min_size=1,
        max_size=size,
        max_idle=300,
        timeout=timeout,
        reconnect_timeout=10,
        check=ConnectionPool.check_connection if check else None,
        open=True,
    )
