"""Settings: what the environment says, and what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

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
