"""Rotating the master key: what is left at its end, whatever interrupts it."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from uuid import UUID

import psycopg
import pytest
from pydantic import SecretStr

from standalone import keys
from standalone.keys import KeysError, rotate
from store import audit
from store.settings import Settings
from store.vault import Keyring, Sealed, Vault
from tests.rows import CANARY, Rows
from tests.workers.conftest import until


@pytest.fixture
def providers(rows: Rows) -> dict[UUID, str]:
    """Their ids and clear keys."""
    return {
        rows.provider(slug, "http://127.0.0.1:9/v1", key=f"{CANARY}-{slug}"): f"{CANARY}-{slug}"
        for slug in ("a", "b", "c")
    }


def test_at_the_end_one_new_key_opens_everything(settings: Settings, providers: dict[UUID, str]) -> None:
    old = Keyring.load(settings).current
    with psycopg.connect(settings.database()) as db:
        version = _one(db, "SELECT version FROM config_state")

    done = rotate(settings)

    assert Keyring.load(settings).kids == (done.kid,)
    assert (done.resumed, done.rewrapped["ai_providers"], done.unused) == (False, 3, [old])
    assert done.is_complete
    assert _opened(settings) == providers
    with psycopg.connect(settings.database(), autocommit=True) as db:
        assert _one(db, "SELECT version FROM config_state") > version, "workers load what is wrapped anew"
        acts = db.execute(
            "SELECT actor, action, noun_id FROM audit_log WHERE noun = 'master-keys'"
        ).fetchall()
        assert acts == [("cli", "begin rotation", done.kid), ("cli", "rotate", done.kid)]
        assert audit.verify(db).first_bad is None
    assert CANARY not in keys.told(done, settings)


@pytest.mark.parametrize("killed_at", range(7))
def test_a_killed_rotation_is_finished_by_the_next(
    settings: Settings, providers: dict[UUID, str], killed_at: int
) -> None:
    """Killed at each of its steps and transactions in turn; secrets open at every moment."""
    before = Keyring.load(settings).current
    ended = subprocess.run(
        [sys.executable, "-c", _KILLED, str(killed_at)],
        env={**settings.environment(), "PATH": ""},
        check=False,
        timeout=30,
    )
    assert ended.returncode == -signal.SIGKILL
    assert _opened(settings) == providers
    begun = Keyring.load(settings).kids

    done = rotate(settings)

    assert done.resumed == (len(begun) == 2) == (killed_at > 0)
    assert done.kid == begun[0] if done.resumed else done.kid not in begun
    assert Keyring.load(settings).kids == (done.kid,) != (before,)
    assert _opened(settings) == providers
    assert _stale(settings, done.kid) == 0


_KILLED = """
import os, signal, sys
import store.sealed
from standalone.keys import rotate
from store.settings import Settings

store.sealed.BATCH = 1
events = 0

def event(_: str) -> None:
    global events
    if events == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    events += 1

rotate(Settings(), on_step=event, on_batch=event)
"""


def test_what_a_transaction_sealed_before_is_waited_for(settings: Settings, rows: Rows) -> None:
    """An API that sealed with the old key, but has not stored it yet."""
    row = rows.provider("slow", "http://127.0.0.1:9/v1", key=None)
    late = Vault(Keyring.load(settings)).seal(
        CANARY, table="ai_providers", row=str(row), field="api_key", version=1
    )
    old = late.kid
    with psycopg.connect(settings.database()) as db:
        db.execute("SELECT 1")
        done = rotate(settings, patience=0.1)
        assert (done.is_complete, done.kept, done.waiting) == (False, [old], 1)
        db.execute("UPDATE ai_providers SET sealed_key = %s, key_version = 1", [late.blob])
        waiting = threading.Thread(target=rotate, args=[settings], kwargs={"patience": 30})
        waiting.start()
        until(lambda: _is_waited_for(settings), seconds=10)
    waiting.join()
    assert Keyring.load(settings).kids == (done.kid,)
    assert _opened(settings) == {row: CANARY}


def test_an_old_key_stays_as_long_as_a_secret_names_it(
    settings: Settings, providers: dict[UUID, str]
) -> None:
    one, two, _ = providers
    with psycopg.connect(settings.database()) as db:
        db.execute(
            "UPDATE ai_providers SET sealed_key = (SELECT sealed_key FROM ai_providers WHERE id = %s) "
            "WHERE id = %s",
            [one, two],
        )
    old = Keyring.load(settings).current

    done = rotate(settings)

    assert (done.is_complete, done.kept) == (False, [old])
    assert str(two) in keys.told(done, settings)
    with psycopg.connect(settings.database()) as db:
        db.execute("UPDATE ai_providers SET sealed_key = NULL WHERE id = %s", [two])
    assert rotate(settings).is_complete
    assert Keyring.load(settings).kids == (done.kid,)


def test_only_one_rotates_at_a_time(settings: Settings, providers: dict[UUID, str]) -> None:
    def again(_: str) -> None:
        with pytest.raises(KeysError, match="Another"):
            rotate(settings)

    assert rotate(settings, on_step=again).is_complete


def test_keys_from_the_environment_are_changed_where_they_are_set(
    settings: Settings, providers: dict[UUID, str]
) -> None:
    """Following the printed steps, every process can open everything at each of them."""
    one = settings.keyring_file.read_text().strip()
    settings.keyring_file.unlink()
    old = _with(settings, one)
    with pytest.raises(KeysError, match="END of it") as told:
        rotate(old)
    assert one.partition(":")[2] not in str(told.value)
    two = next(
        line.strip() for line in str(told.value).splitlines() if len(line.strip()) > 50 and "=" in line[-1]
    )

    assert rotate(_with(settings, f"{one},{two}")).rewrapped["ai_providers"] == 0
    done = rotate(_with(settings, f"{two},{one}"))

    assert (done.rewrapped["ai_providers"], done.unused) == (3, [one.partition(":")[0]])
    assert _opened(_with(settings, two)) == providers
    assert not settings.keyring_file.exists()


def test_a_keyring_that_cannot_be_replaced_is_left_to_its_owner(
    settings: Settings, providers: dict[UUID, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("store.vault.os.replace", read_only)
    with pytest.raises(KeysError, match="Read-only file system"):
        rotate(settings)
    monkeypatch.undo()
    assert _opened(settings) == providers


def _with(settings: Settings, master_keys: str) -> Settings:
    return settings.model_copy(update={"master_keys": SecretStr(master_keys)})


def _opened(settings: Settings) -> dict[UUID, str]:
    """Every provider's key, opened by what a process that starts now can open."""
    vault = Vault(Keyring.load(settings))
    with psycopg.connect(settings.database()) as db:
        found = db.execute("SELECT id, sealed_key, key_version FROM ai_providers").fetchall()
    return {
        row: vault.open(
            Sealed(bytes(blob)), table="ai_providers", row=str(row), field="api_key", version=version
        )
        for row, blob, version in found
    }


def _stale(settings: Settings, kid: str) -> int:
    with psycopg.connect(settings.database()) as db:
        blobs = db.execute("SELECT sealed_key FROM ai_providers").fetchall()
    return sum(Sealed(bytes(blob)).kid != kid for (blob,) in blobs)


def _is_waited_for(settings: Settings) -> bool:
    with psycopg.connect(settings.database()) as db:
        return bool(
            _one(db, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'orrery keys rotate'")
        )


def _one(db: psycopg.Connection[tuple[int, ...]], query: str) -> int:
    row = db.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]
