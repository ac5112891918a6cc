"""The process's settings: the one place that reads the environment.

Every setting is `ORRERY_<NAME>`. Provider keys are never read from here: they live sealed in the database.
"""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


def default_home() -> Path:
    """`/var/lib/orrery` for root, else `~/.local/share/orrery`."""
    return Path("/var/lib/orrery") if os.geteuid() == 0 else Path.home() / ".local/share/orrery"


class Settings(BaseSettings):
    """What a process of Orrery needs to know before it can reach the database."""

    model_config = SettingsConfigDict(env_prefix="ORRERY_", extra="ignore", frozen=True)

    home: Path = Field(default_factory=default_home, description="Folder of engines, keyring and artifacts.")
    database_url: SecretStr | None = Field(
        default=None, description="PostgreSQL URL of the owner role; without it the embedded engines run."
    )
    redis_url: SecretStr | None = Field(default=None, description="Redis or Valkey URL.")
    master_keys: SecretStr | None = Field(
        default=None,
        description="`kid:base64,...`, 32-byte keys, the first seals; where only environment can be passed.",
    )
    master_keys_file: Path | None = Field(
        default=None, description="Keyring file; by default `<home>/master.keys`."
    )
    artifacts: str | None = Field(
        default=None,
        description="Folder or `s3://bucket/prefix` for audio and pictures; by default `<home>/artifacts`.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    trusted_proxies: str = Field(
        default="",
        description="Addresses and networks, with commas, whose X-Forwarded-For and X-Forwarded-Proto count.",
    )
    second_factor_postponable: bool = Field(
        default=False,
        description="Set by `orrery up` on a loopback address: super admins may do without, for now.",
    )

    lease_seconds: float = Field(default=30, gt=0, description="How long a silent worker keeps its jobs.")
    feeder_seconds: float = Field(default=1, gt=0, description="Pause between two turns of the feeder.")
    doorbell_window: int = Field(default=2000, gt=0, description="Doorbells kept in Redis per lane.")
    grace_seconds: float = Field(
        default=25, ge=0, description="How long a stopping worker finishes its jobs."
    )
    private_inputs: bool = Field(
        default=False,
        description="Whether pictures, recordings and pages that jobs name may lie in private networks.",
    )
    breaker_cooldown_seconds: float = Field(
        default=30, gt=0, description="Pause before an open breaker's probe."
    )

    batch_seconds: float = Field(
        default=60, gt=0, description="Pause between two looks at a batch that a provider works on."
    )
    probe_seconds: float = Field(
        default=300, ge=0, description="Pause after a call of a provider before it is probed; 0: never."
    )

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: str) -> str:
        for each in filter(None, map(str.strip, value.split(","))):
            try:
                ipaddress.ip_network(each)
            except ValueError as error:
                raise ValueError(f"{error}. Give addresses and networks, with commas between.") from None
        return value

    @field_validator("home", mode="after")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @property
    def keyring_file(self) -> Path:
        """Where the master keys lie unless `master_keys` is given."""
        return self.master_keys_file or self.home / "master.keys"

    @property
    def artifacts_url(self) -> str:
        """Folder path or `s3://` URL of the artifact store."""
        return self.artifacts or str(self.home / "artifacts")

    @property
    def proxies(self) -> list[str]:
        """The trusted proxies' addresses and networks."""
        return [each.strip() for each in self.trusted_proxies.split(",") if each.strip()]

    @property
    def heartbeat_seconds(self) -> float:
        """A third of the lease: two beats may be missed."""
        return self.lease_seconds / 3

    def environment(self) -> dict[str, str]:
        """These settings as the environment of a child process."""
        values = self.model_dump(exclude_none=True)
        return {
            f"ORRERY_{name.upper()}": v.get_secret_value() if isinstance(v, SecretStr) else str(v)
            for name, v in values.items()
        }

    def database(self) -> str:
        """The owner's database URL, or a `SettingsError` that names the variable."""
        return _required(self.database_url, "ORRERY_DATABASE_URL")

    def redis(self) -> str:
        """The Redis URL, or a `SettingsError` that names the variable."""
        return _required(self.redis_url, "ORRERY_REDIS_URL")


class SettingsError(Exception):
    """A setting that this process needs is missing or wrong; the message names it and the fix."""


def _required(value: SecretStr | None, name: str) -> str:
    if value is None or not value.get_secret_value():
        raise SettingsError(f"{name} is not set. Set it, or start the embedded engines with `orrery up`.")
    return value.get_secret_value()
