"""The list of sealed columns is whole, and rewrapping leaves no secret behind and none unbound."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.rows import tuple_row

from store.sealed import SEALED_COLUMNS, SealedColumn, is_sealed_anywhere, rewrap
from store.settings import Settings
from store.vault import Keyring, Sealed, Vault, VaultError
from tests.rows import CANARY, Rows

PROVIDERS = SEALED_COLUMNS[0]


@pytest.fixture
def db(settings: Settings) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(settings.database(), autocommit=True, row_factory=tuple_row) as db:
        yield db


def test_every_column_that_holds_secrets_is_listed(db: psycopg.Connection[Any]) -> None:
    """Whatever is binary is a secret, unless it is known to be a hash."""
    found = db.execute(
        "SELECT relname, attname FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid "
        "WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p') "
        "AND NOT relispartition "
        "AND attnum > 0 AND NOT attisdropped "
        "AND (attname LIKE 'sealed%' OR atttypid = 'bytea'::regtype AND attname !~ '(^|_)hash$')"
    ).fetchall()
    hashes = {("login_throttles", "key")}
    assert {(column.table, column.column) for column in SEALED_COLUMNS} == set(found) - hashes


def test_every_routing_table_is_known_as_one(db: psycopg.Connection[Any]) -> None:
    """Its writers lock the configuration's version first, and so must whoever rewraps."""
    found = db.execute(
        "SELECT tgrelid::regclass::text FROM pg_trigger WHERE tgname = 'bump_config_version'"
    ).fetchall()
    assert {column.table for column in SEALED_COLUMNS if column.routes} == {
        column.table for column in SEALED_COLUMNS if (column.table,) in found
    }


def test_rewrapped_secrets_open_in_their_place_alone(
    db: psycopg.Connection[Any], rows: Rows, settings: Settings
) -> None:
    keyring = Keyring.load(settings)
    vault = Vault(keyring)
    assert not is_sealed_anywhere(db)
    one, two = (rows.provider(slug, "http://127.0.0.1:9/v1", key=f"{CANARY}-{slug}") for slug in "ab")
    assert is_sealed_anywhere(db)
    before = _blobs(db)
    kid = keyring.extend()

    done = rewrap(db, PROVIDERS, vault, kid, actor="test")

    after = _blobs(db)
    assert (done.rewrapped, done.busy, done.unopened) == (2, 0, [])
    assert [_opened(vault, after[row], row) for row in (one, two)] == [f"{CANARY}-a", f"{CANARY}-b"]
    assert all(Sealed(blob).kid == kid for blob in after.values())
    for moved, row, version in ((after[one], two, 1), (before[one], two, 1), (after[one], one, 2)):
        with pytest.raises(VaultError, match="does not open"):
            _opened(vault, moved, row, version)
    assert rewrap(db, PROVIDERS, vault, kid, actor="test").rewrapped == 0


def test_a_secret_that_does_not_open_is_named_and_left(
    db: psycopg.Connection[Any], rows: Rows, settings: Settings
) -> None:
    keyring = Keyring.load(settings)
    old = keyring.current
    one, two = (rows.provider(slug, "http://127.0.0.1:9/v1") for slug in "ab")
    db.execute("UPDATE ai_providers SET sealed_key = %s WHERE id = %s", [_blobs(db)[one], two])

    done = rewrap(db, PROVIDERS, Vault(keyring), keyring.extend(), actor="test")

    assert done.rewrapped == 1
    assert [(found.kid, str(two) in found.reason) for found in done.unopened] == [(old, True)]


def test_a_row_that_somebody_holds_is_left_for_the_next_pass(
    db: psycopg.Connection[Any], rows: Rows, settings: Settings
) -> None:
    keyring = Keyring.load(settings)
    answers = next(column for column in SEALED_COLUMNS if column.table == "idempotency_keys")
    _answer(db, keyring, answers, "free")
    _answer(db, keyring, answers, "held")
    kid = keyring.extend()
    with psycopg.connect(settings.database()) as other:
        other.execute("SELECT FROM idempotency_keys WHERE key = 'held' FOR UPDATE")
        done = rewrap(db, answers, Vault(keyring), kid, actor="test")
    assert (done.rewrapped, done.busy) == (1, 1)
    assert rewrap(db, answers, Vault(keyring), kid, actor="test").rewrapped == 1


def test_a_keyring_follows_its_file_and_keeps_what_was_retired_for_an_hour(tmp_path: Path) -> None:
    file = tmp_path / "master.keys"
    now = [1000.0]
    Keyring.create(file)
    running = Keyring(file.read_text(), path=file, clock=lambda: now[0])
    old = running.current
    place: dict[str, Any] = {"table": "t", "row": "r", "field": "f", "version": 1}
    sealed = Vault(running).seal("of before", **place)
    cli = Keyring(file.read_text(), path=file)

    new = cli.extend()
    assert (running.current, list(running.kids)) == (new, [new, old]), "sealing follows without an unknown id"
    cli.retire([old])
    assert list(running.kids) == [new]
    assert Vault(running).open(sealed, **place) == "of before"
    assert running.derive("admin-jwt", old)
    with pytest.raises(VaultError, match=old):
        Vault(Keyring(file.read_text(), path=file)).open(sealed, **place)

    now[0] += Keyring.RETIRED_SECONDS
    with pytest.raises(VaultError, match=old):
        Vault(running).open(sealed, **place)


def test_the_file_is_replaced_as_a_whole_and_stays_private(tmp_path: Path) -> None:
    file = tmp_path / "master.keys"
    keyring = Keyring.create(file)
    (tmp_path / "master.keys.next").write_text("what a killed rotation left")
    inode = file.stat().st_ino

    kid = keyring.extend()

    assert [path.name for path in tmp_path.iterdir()] == ["master.keys"]
    assert file.stat().st_ino != inode
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.read_text().startswith(f"{kid}:")


def test_a_file_that_cannot_be_read_for_a_moment_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "master.keys"
    keyring = Keyring.create(file)
    kid = keyring.current
    file.write_text("half a li")
    assert keyring.current == kid
    file.unlink()
    assert keyring.current == kid


def _blobs(db: psycopg.Connection[Any]) -> dict[UUID, bytes]:
    return {row: bytes(blob) for row, blob in db.execute("SELECT id, sealed_key FROM ai_providers")}


def _opened(vault: Vault, blob: bytes, row: UUID, version: int = 1) -> str:
    return vault.open(Sealed(blob), table="ai_providers", row=str(row), field="api_key", version=version)


def _answer(db: psycopg.Connection[Any], keyring: Keyring, column: SealedColumn, key: str) -> None:
    sealed = Vault(keyring).seal("{}", table=column.table, row=f"s {key}", field=column.field, version=1)
    db.execute(
        "INSERT INTO idempotency_keys (scope, key, request_hash, answer) VALUES ('s', %s, '', %s)",
        [key, sealed.blob],
    )
