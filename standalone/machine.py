"""One machine's installation: where its engines are, given or embedded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import SecretStr

from standalone.engines import Endpoints, Engines, running
from store.settings import Settings, SettingsError

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
