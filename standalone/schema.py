"""The database's schema and the keyring that belongs to it."""

from __future__ import annotations

import psycopg

from store.database import conninfo
from store.migrations import upgrade
from store.sealed import is_sealed_anywhere
from store.settings import Settings
from store.vault import Keyring, VaultError


def migrate(settings: Settings) -> str:
    """Bring the database to the newest revision and see to it that there is a keyring; returns the revision.

    Raises VaultError where the keyring is missing although the database holds secrets sealed with it.
    """
    revision = upgrade(settings.database())
    if settings.master_keys is None and not settings.keyring_file.exists():
        if _holds_secrets(settings.database()):
            raise VaultError(
                f"The database holds sealed secrets, but the keyring {settings.keyring_file} is missing. Put "
                "the keyring that sealed them there; a new one could not open them."
            )
        Keyring.create(settings.keyring_file)
    Keyring.load(settings)
    return revision


def _holds_secrets(database_url: str) -> bool:
    with psycopg.connect(conninfo(database_url)) as db:
        return is_sealed_anywhere(db)
