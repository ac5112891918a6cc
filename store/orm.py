"""SQLAlchemy engines, for configuration. Apart from `store.database`, so that workers and applications do not
load an ORM they never use."""

from __future__ import annotations

import psycopg
from sqlalchemy import Engine, create_engine

from store.database import Role, conninfo


def engine(
    database_url: str, role: Role | None = None, *, size: int = 5, application: str = "orrery"
) -> Engine:
    """An SQLAlchemy engine whose connections are pinged before use."""
    target = conninfo(database_url, role, application=application)
    return create_engine(
        "postgresql+psycopg://",
        creator=lambda: psycopg.connect(target),
        pool_size=size,
        max_overflow=0,
        pool_timeout=5,
        pool_pre_ping=True,
        hide_parameters=True,  # an error must not print what was to be stored
    )
