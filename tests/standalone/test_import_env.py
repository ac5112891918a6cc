"""Keys move from the environment into the database, once, and are printed nowhere."""

from __future__ import annotations

import os
import subprocess
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from standalone.import_env import ImportEnvError, import_env, told
from standalone.supervisor import orrery
from store.settings import Settings
from store.vault import Keyring, Sealed, Vault

ONE, TWO = "sk-canary-from-the-shell-1111", "sk-canary-from-the-shell-2222"


def test_the_command_stores_keys_sealed_and_prints_none(settings: Settings) -> None:
    keys = {"OPENAI_API_KEY": ONE, "ANTHROPIC_API_KEY": TWO, "ELEVENLABS_API_KEY": TWO}

    ended = _run(settings, keys)

    assert ended.returncode == 0, ended.stderr
    assert "OPENAI_API_KEY: created provider openai (…1111)" in ended.stdout
    assert "unset OPENAI_API_KEY ANTHROPIC_API_KEY" in ended.stdout
    assert "canary" not in ended.stdout + ended.stderr
    assert _keys(settings).items() >= {"openai": ONE, "anthropic": TWO}.items()
    with psycopg.connect(settings.database()) as db:
        dumped = str(db.execute("SELECT audit_log::text FROM audit_log").fetchall())
        assert "canary" not in dumped
        assert db.execute("SELECT DISTINCT actor FROM audit_log").fetchall() == [("cli",)]


def test_again_it_changes_only_keys_that_differ(settings: Settings) -> None:
    import_env(settings, {"OPENAI_API_KEY": ONE, "GROQ_API_KEY": ONE})
    with psycopg.connect(settings.database()) as db:
        db.execute("UPDATE ai_providers SET base_url = 'https://proxy.example/v1', is_active = false")

    done = import_env(settings, {"OPENAI_API_KEY": f" {ONE}\n", "GROQ_API_KEY": TWO})

    assert [(one.slug, one.did) for one in done] == [
        ("openai", "left as it was:"),
        ("groq", "replaced the key of"),
    ]
    assert "which is inactive" in told(done)
    assert _keys(settings) == {"openai": ONE, "groq": TWO}
    for row in _providers(settings):
        assert (row["base_url"], row["is_active"]) == ("https://proxy.example/v1", False)
        assert row["key_version"] == {"openai": 1, "groq": 2}[row["slug"]]


@pytest.mark.parametrize("wrong", ["two words-canary", "clé-canary", "x" * 4097])
def test_what_is_no_key_is_named_and_nothing_stored(settings: Settings, wrong: str) -> None:
    with pytest.raises(ImportEnvError, match="ANTHROPIC_API_KEY") as refused:
        import_env(settings, {"OPENAI_API_KEY": ONE, "ANTHROPIC_API_KEY": wrong})
    assert wrong not in str(refused.value)
    assert _providers(settings) == []


def test_without_any_key_it_names_what_it_looks_for(settings: Settings) -> None:
    ended = _run(settings, {"OPENAI_API_KEY": "  "})
    assert ended.returncode == 1
    assert "OPENAI_API_KEY, ANTHROPIC_API_KEY, GEMINI_API_KEY" in ended.stderr


def _run(settings: Settings, keys: dict[str, str]) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
    return subprocess.run(
        [*orrery(), "import-env"],
        env={**inherited, **settings.environment(), **keys},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def _providers(settings: Settings) -> list[dict[str, Any]]:
    with psycopg.connect(settings.database(), row_factory=dict_row) as db:
        return db.execute("SELECT * FROM ai_providers").fetchall()


def _keys(settings: Settings) -> dict[str, str]:
    vault = Vault(Keyring.load(settings))
    return {
        row["slug"]: vault.open(
            Sealed(row["sealed_key"]),
            table="ai_providers",
            row=str(row["id"]),
            field="api_key",
            version=row["key_version"],
        )
        for row in _providers(settings)
    }
