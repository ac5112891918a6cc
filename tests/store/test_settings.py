"""Settings: what the environment says, and what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from store.settings import Settings, SettingsError


def test_a_child_process_gets_the_same_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORRERY_DATABASE_URL", "postgresql://u:secret@h/d")
    monkeypatch.setenv("ORRERY_LOG_LEVEL", "debug")
    monkeypatch.setenv("ORRERY_HOME", "/somewhere")
    settings = Settings()
    assert settings.log_level == "DEBUG"
    assert settings.keyring_file == Path("/somewhere/master.keys")
    assert "secret" not in repr(settings)
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    assert Settings() == settings


def test_a_missing_url_is_named() -> None:
    with pytest.raises(SettingsError, match="ORRERY_REDIS_URL"):
        Settings(redis_url=None).redis()


def test_trusted_proxies_are_addresses_and_networks() -> None:
    assert Settings().proxies == []
    assert Settings(trusted_proxies=" 10.0.0.0/8, ::1 ,").proxies == ["10.0.0.0/8", "::1"]
    for wrong in ("*", "proxy.example.com", "10.0.0.1/8", "10.0.0.0/8 ::1"):
        with pytest.raises(ValidationError, match="commas"):
            Settings(trusted_proxies=wrong)
