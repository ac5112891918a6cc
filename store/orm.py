"""SQLAlchemy engines, for configuration. Apart from `store.database`, so that workers and applications do not
load an ORM they never use."""

from __future__ import annotations

import psycopg
from sqlalchemy import Connection, Engine, create_engine, event

from store.database import Identity, Role, conninfo

_LOCAL = "orrery_local"


def engine(
    database_url: str, role: Role | None = None, *, size: int = 5, application: str = "orrery"
) -> Engine:
    """An SQLAlchemy engine whose connections are pinged before use."""
    target = conninfo(database_url, role, application=application)
    made = create_engine(
        "postgresql+psycopg://",
        creator=lambda: psycopg.connect(target),
        pool_size=size,
        max_overflow=0,
        pool_timeout=5,
        pool_pre_ping=True,
        hide_parameters=True,  # an error must not print what was to be stored
    )
    event.listen(made, "begin", _become)
    return made


def acting(engine: Engine, identity: Identity) -> Engine:
    """The same engine, whose transactions are the caller's. Costs no connection."""
    return engine.execution_options(**{_LOCAL: identity.local().as_string()})


def _become(connection: Connection) -> None:
    local = connection.get_execution_options().get(_LOCAL)
    if local is not None:
        connection.exec_driver_sql(local)
