"""One machine's installation: engines where none are given, keyring, migrations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import SecretStr
from sqlalchemy import text

from standalone.engines import Endpoints, Engines, running
from store.database import engine
from store.migrations import upgrade
from store.settings import Settings, SettingsError
from store.vault import Keyring, VaultError

Step = Callable[[str], None]


def settings_for(home: Path | None) -> Settings:
    """The process's settings, with `home` over ORRERY_HOME where it is given."""
    settings = Settings()
    return settings if home is None else settings.model_copy(update={"home": home.expanduser().absolute()})


@contextmanager
def installation(settings: Settings, *, on_step: Step) -> Iterator[Settings]:
    """Settings whose URLs answer: the given ones, or those of the embedded engines, kept up meanwhile.

    Raises SettingsError where only one of the two URLs is given.
    """
    if settings.database_url is not None and settings.redis_url is not None:
        yield settings
        return
    if settings.database_url is not None or settings.redis_url is not None:
        missing = "ORRERY_REDIS_URL" if settings.redis_url is None else "ORRERY_DATABASE_URL"
        raise SettingsError(f"{missing} is not set. Set both URLs, or neither to use the embedded engines.")
    with Engines(settings.home, on_step=on_step) as engines:
        engines.watch()
        yield with_endpoints(settings, engines.endpoints)


def attached(settings: Settings) -> Settings:
    """Settings of an installation that runs already. Raises SettingsError where none does."""
    if settings.database_url is not None and settings.redis_url is not None:
        return settings
    endpoints = running(settings.home)
    if endpoints is None:
        raise SettingsError(
            f"No engines run under {settings.home}. Start them with `orrery up`, name another folder with "
            "--home, or set ORRERY_DATABASE_URL and ORRERY_REDIS_URL."
        )
    return with_endpoints(settings, endpoints)


def with_endpoints(settings: Settings, endpoints: Endpoints) -> Settings:
    """The settings with the engines' URLs."""
    return settings.model_copy(
        update={
            "database_url": SecretStr(endpoints.database_url),
            "redis_url": SecretStr(endpoints.redis_url),
        }
    )


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
