"""Brings a database to the newest revision. Runs as the owner role; any number of callers may race."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, text

from store.orm import engine

OLDEST_POSTGRESQL = 15
_LOCK = "SELECT pg_advisory_lock(hashtext('orrery.migrate'))"
_UNLOCK = "SELECT pg_advisory_unlock(hashtext('orrery.migrate'))"


class MigrationError(Exception):
    """The database cannot be migrated; the message says why and what to do."""


def upgrade(database_url: str) -> str:
    """Migrate to the newest revision and make sure partitions exist; returns the revision.

    Raises:
        MigrationError: the server is older than PostgreSQL 15.
        sqlalchemy.exc.OperationalError: the server cannot be reached.
    """
    owner = engine(database_url)
    try:
        with owner.connect() as connection:
            _refuse_old_server(connection)
            connection.execute(text(_LOCK))
            connection.commit()
            try:
                command.upgrade(_config(connection), "head")
                connection.execute(text("SELECT ensure_partitions((now() AT TIME ZONE 'UTC')::date - 1, 15)"))
                connection.commit()
            finally:
                connection.rollback()
                connection.execute(text(_UNLOCK))
                connection.commit()
            return MigrationContext.configure(connection).get_current_revision() or ""
    finally:
        owner.dispose()


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def _refuse_old_server(connection: Connection) -> None:
    version = int(connection.execute(text("SHOW server_version_num")).scalar_one()) // 10000
    connection.commit()
    if version < OLDEST_POSTGRESQL:
        raise MigrationError(
            f"PostgreSQL {version} is too old: Orrery needs {OLDEST_POSTGRESQL} or newer. "
            "Upgrade the server, or point ORRERY_DATABASE_URL at another one."
        )
