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
_STRAY = """
SELECT relname FROM pg_class
WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r' AND NOT relispartition
  AND relname = ANY (
      SELECT parent || '_' || to_char((now() AT TIME ZONE 'UTC')::date + day, 'YYYYMMDD')
      FROM unnest(ARRAY['job_history', 'ai_usage_analytics']) AS parent, generate_series(-1, 13) AS day)
ORDER BY relname"""


class MigrationError(Exception):
    """The database cannot be migrated; the message says why and what to do."""


def upgrade(database_url: str) -> str:
    """Migrate to the newest revision and make sure partitions exist; returns the revision.

    Raises:
        MigrationError: the server is older than PostgreSQL 15, or a table that is no partition stands where a
            partition belongs.
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
                connection.execute(text("SELECT usage_rebase()"))  # the database may come from elsewhere
                connection.commit()
                _refuse_stray_partitions(connection)
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


def _refuse_stray_partitions(connection: Connection) -> None:
    """`ensure_partitions` goes on without them; here somebody reads what to do."""
    stray = connection.execute(text(_STRAY)).scalars().all()
    if stray:
        raise MigrationError(
            f"These tables stand where partitions belong and cannot be attached: {', '.join(stray)}. No job "
            "can end on their days. Move their rows aside, drop them, and migrate again; the server's log "
            "says what is wrong with each."
        )
