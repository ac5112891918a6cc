"""The database's schema and the keyring that belongs to it."""

from __future__ import annotations

from sqlalchemy import text

from store.migrations import upgrade
from store.orm import engine
from store.settings import Settings
from store.vault import Keyring, VaultError


def migrate(settings: Settings) -> str:
    """Bring the database to the newest revision and see to it that there is a keyring; returns the revision.

    Raises VaultError where the keyring is missing although the database holds keys sealed with it.
    """
    revision = upgrade(settings.database())
    if settings.master_keys is None and not settings.keyring_file.exists():
        if _holds_sealed_keys(settings.database()):
            raise VaultError(
                f"The database holds sealed keys, but the keyring {settings.keyring_file} is missing. Put "
                "the keyring that sealed them there; a new one could not open them."
            )
        Keyring.create(settings.keyring_file)
    Keyring.load(settings)
    return revision


def _holds_sealed_keys(database_url: str) -> bool:
    owner = engine(database_url)
    try:
        with owner.connect() as connection:
            found = connection.execute(
                text("SELECT EXISTS (SELECT FROM ai_providers WHERE sealed_key IS NOT NULL)")
            )
            return bool(found.scalar_one())
    finally:
        owner.dispose()
