"""The audit log: everything is in it, nobody changes it unnoticed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy.orm import Session

from store.audit import Bad, Event, Verdict, acting, record, request_id, verify
from store.database import Role, conninfo
from store.orm import engine

Connection = psycopg.Connection[Any]

# Tables that people do not configure: what they hold changes by itself, or is itself a record. Sessions and
# second factors are told of as events.
UNAUDITED = {
    "audit_log", "audit_head", "audit_pending", "alembic_version", "config_state", "feeder_state",
    "jobs", "job_history", "ai_usage_analytics", "idempotency_keys", "integration_health",
    "usage_rollup", "usage_hourly", "usage_daily", "usage_totals", "usage_minutes", "usage_user_daily",
    "usage_user_weekly", "usage_overall_hourly",
    "budget_reservations", "budget_thresholds", "budget_usage", "notices",
    "provider_batches", "schedule_state", "job_groups", "fires",
    "provider_health", "workers", "worker_breakers", "alerts", "assignment_versions",
    "admin_sessions", "admin_refresh_tokens", "admin_second_factors", "admin_recovery_codes",
    "admin_networks", "login_throttles", "app_token_uses",
}  # fmt: skip


@pytest.fixture
def owner(database_url: str) -> Iterator[Connection]:
    with psycopg.connect(conninfo(database_url), autocommit=True) as connection:
        yield connection


def rows(owner: Connection, columns: str = "actor, action, noun, noun_id, before, after") -> list[Any]:
    return owner.execute(f"SELECT {columns} FROM audit_log ORDER BY id".encode()).fetchall()


# --- what gets in -------------------------------------------------------------------------------------


def test_every_table_is_audited_or_named_here(owner: Connection) -> None:
    """A new table of the configuration says `SELECT audit_table(...)` in its migration."""
    tables = owner.execute(
        "SELECT relname, EXISTS (SELECT FROM pg_trigger WHERE tgrelid = rel.oid AND tgname = 'audit_change') "
        "FROM pg_class AS rel WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p') "
        "AND NOT relispartition"
    ).fetchall()
    assert {table for table, audited in tables if not audited} <= UNAUDITED
    assert {table for table, audited in tables if audited} >= {"ai_providers", "admins", "lanes"}


def test_changes_at_the_database_itself_are_in_it(owner: Connection) -> None:
    """Raw SQL, statements over many rows, cascades and TRUNCATE."""
    provider, model = uuid4(), uuid4()
    with owner.transaction():
        acting(owner, "cli")
        owner.execute(
            "INSERT INTO ai_providers (id, slug, name, type, base_url) VALUES (%s, 'p', 'P', 'gemini', 'x')",
            [provider],
        )
    owner.execute(
        "INSERT INTO ai_models (id, provider_id, model_id, name) VALUES (%s, %s, 'm', 'M')", [model, provider]
    )
    owner.execute(
        "INSERT INTO model_prices (id, model_id, input_price_per_1k) VALUES (%s, %s, 0.10)", [uuid4(), model]
    )
    owner.execute("UPDATE features SET max_queued = 5 WHERE name IN ('cv_draft', 'cover_letter')")
    owner.execute("DELETE FROM ai_models")
    owner.execute("TRUNCATE app_tokens CASCADE")
    made, *others, truncated = rows(owner)
    assert made[:4] == ("cli", "create", "providers", str(provider))
    assert made[5]["slug"] == "p"
    local = owner.execute("SELECT 'database ' || session_user").fetchone()
    assert {row[0] for row in (*others, truncated)} == set(local or ())
    model_made, priced, first, second, deleted = others
    assert model_made[1:4] == ("create", "models", str(model))
    assert priced[1:4] == ("update", "models", str(model))
    assert priced[4] is None
    assert priced[5]["prices"][0]["input_price_per_1k"] == 0.1
    assert {row[3] for row in (first, second)} == {"cv_draft", "cover_letter"}
    assert first[1:3] + first[4:] == ("update", "features", {"max_queued": None}, {"max_queued": 5})
    assert deleted[1:4] == ("delete", "models", str(model))
    assert deleted[4]["model_id"] == "m"
    assert len(deleted[4]["prices"]) == 1
    assert truncated[1:3] == ("truncate", "tokens")
    assert owner.execute("SELECT count(*) FROM audit_pending").fetchone() == (0,)


def test_a_transaction_is_one_change_of_each_noun(owner: Connection) -> None:
    with owner.transaction():
        for number in range(1, 4):
            owner.execute("UPDATE features SET max_queued = %s WHERE name = 'cv_draft'", [number])
        owner.execute("UPDATE features SET description = description")
        owner.execute(
            "INSERT INTO features (id, name, capability) VALUES (gen_random_uuid(), 'brief', 'text')"
        )
        owner.execute("DELETE FROM features WHERE name = 'brief'")
        owner.execute("SAVEPOINT hesitation")
        owner.execute("UPDATE features SET max_queued = 9 WHERE name = 'tarot_reading'")
        owner.execute("ROLLBACK TO hesitation")
    assert [row[3:] for row in rows(owner)] == [("cv_draft", {"max_queued": None}, {"max_queued": 3})]
    with owner.transaction():
        owner.execute("SET CONSTRAINTS ALL IMMEDIATE")
        owner.execute("UPDATE features SET max_queued = 4 WHERE name = 'cv_draft'")
        owner.execute("UPDATE features SET max_queued = 5 WHERE name = 'cv_draft'")
    assert [row[4:] for row in rows(owner)[1:]] == [
        ({"max_queued": 3}, {"max_queued": 4}),
        ({"max_queued": 4}, {"max_queued": 5}),
    ]


def test_a_secret_leaves_only_that_it_changed(owner: Connection) -> None:
    admin = uuid4()
    owner.execute(
        "INSERT INTO admins (id, email, password_hash, role) VALUES (%s, 'a@b', 'canary-one', 'admin')",
        [admin],
    )
    owner.execute("UPDATE admins SET password_hash = 'canary-two'")
    owner.execute(
        "INSERT INTO app_tokens (id, name, scopes, token_hash, token_last4) "
        "VALUES (%s, 't', '{}', 'canary', '')",
        [uuid4()],
    )
    owner.execute("DELETE FROM app_tokens")
    created, changed, token, gone = rows(owner, "before, after")
    assert created[1]["password_hash"] == "(secret)"
    assert changed == ({"password_hash": "(secret)"}, {"password_hash": "(changed)"})
    assert token[1]["token_hash"] == gone[0]["token_hash"] == "(secret)"
    assert "canary" not in str(rows(owner, "audit_log::text"))


def test_what_is_rolled_back_is_not_in_it(owner: Connection) -> None:
    with owner.transaction(force_rollback=True):
        owner.execute("UPDATE features SET max_queued = 9")
        record(owner, Event("export", "config"))
    assert rows(owner) == []
    record(owner, Event("export", "config", actor="cli"))
    assert [row[0] for row in rows(owner, "id")] == [1]


def test_without_its_audit_nothing_is_changed(owner: Connection) -> None:
    owner.execute("DELETE FROM audit_head")
    with pytest.raises(psycopg.errors.NoDataFound):
        owner.execute("UPDATE features SET max_queued = 9")
    with pytest.raises(psycopg.errors.NoDataFound):
        record(owner, Event("export", "config"))
    assert owner.execute("SELECT count(*) FROM features WHERE max_queued = 9").fetchone() == (0,)


def test_an_event_is_recorded_through_whatever_runs_the_act(owner: Connection, database_url: str) -> None:
    admin = uuid4()
    owner.execute(
        "INSERT INTO admins (id, email, password_hash, role) VALUES (%s, 'a@b', '', 'admin')", [admin]
    )
    api = engine(database_url, Role.API)
    token = request_id.set("r-1")
    try:
        with Session(api) as session, session.begin():
            acting(session, admin_id=admin)
            record(session, Event("login", "sessions", noun_id=admin))
        with api.begin() as connection:
            record(connection, Event("export", "config", admin_id=admin, after={"at": admin, "rows": (1, 2)}))
    finally:
        request_id.reset(token)
        api.dispose()
    with psycopg.connect(conninfo(database_url, Role.WORKER), autocommit=True) as worker:
        record(worker, Event("tick", "alerts"))
    found = rows(owner, "actor, admin_id, action, noun_id, after, request_id")[1:]
    assert found == [
        ("admin a@b", admin, "login", str(admin), None, "r-1"),
        ("admin a@b", admin, "export", None, {"at": str(admin), "rows": [1, 2]}, "r-1"),
        ("system", None, "tick", None, None, None),
    ]


@pytest.mark.parametrize("text", ["a\x00b", "\ud800", "\U0001f600" * 500, "\\u0000", "", "%s {}", "x" * 5000])
def test_any_text_can_be_recorded(owner: Connection, text: str) -> None:
    """The address of a failed login is whatever somebody typed."""
    record(
        owner, Event("login_failed", "sessions", noun_id=text, actor=text, after={text: [text, {"a": text}]})
    )
    assert len(rows(owner)) == 1
    assert verify(owner).first_bad is None


def test_bytes_are_no_event(owner: Connection) -> None:
    with pytest.raises(TypeError, match="secret"):
        record(owner, Event("rotate", "keys", after={"key": b"canary"}))


def test_writers_at_once_leave_no_gap_and_no_deadlock(database_url: str, owner: Connection) -> None:
    """Rows are locked in any order before the chain's end, which is locked last."""

    def write(seed: int) -> None:
        names = ["cv_draft", "cover_letter", "tarot_reading"]
        with psycopg.connect(conninfo(database_url)) as db:
            for turn in range(15):
                db.execute("SELECT FROM config_state FOR UPDATE")
                db.execute(
                    "UPDATE features SET max_queued = %s WHERE name = %s",
                    [turn + 1, names[(seed + turn) % 3]],
                )
                db.execute("UPDATE lanes SET is_paused = NOT is_paused WHERE name = 'batch'")
                if turn % 5 == 4:
                    record(db, Event("abandoned", "config"))
                    db.rollback()
                else:
                    record(db, Event("done", "config"))
                    db.commit()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(write, range(6)))
    found = verify(owner)
    assert found.first_bad is None
    assert found.checked == found.last_id
    assert rows(owner, "id") == [(number + 1,) for number in range(found.checked)]
    assert owner.execute("SELECT count(*) FROM audit_log WHERE action = 'done'").fetchone() == (6 * 12,)
    assert owner.execute("SELECT count(*) FROM audit_log WHERE action = 'abandoned'").fetchone() == (0,)
    assert owner.execute(
        "SELECT bool_and(at > before) "
        "FROM (SELECT at, lag(at) OVER (ORDER BY id) AS before FROM audit_log) AS entries"
    ).fetchone() == (True,)


# --- what nobody can do to it -------------------------------------------------------------------------


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_log SET actor = 'x'",
        "DELETE FROM audit_log",
        "TRUNCATE audit_log",
        "INSERT INTO audit_log SELECT * FROM audit_log",
        "UPDATE audit_head SET last_id = 0",
        "DELETE FROM audit_head",
        "DELETE FROM audit_pending",
        "SELECT FROM audit_pending",
        "INSERT INTO audit_pending (source, row_key, noun, part, secrets) VALUES (0, '{}', '', '', '{}')",
        "ALTER TABLE audit_log DISABLE TRIGGER ALL",
        "ALTER TABLE features DISABLE TRIGGER ALL",
        "SET session_replication_role = replica",
        "SELECT audit_table('jobs', 'jobs')",
    ],
)
def test_no_role_of_ours_can_rewrite_it(database_url: str, role: Role, statement: str) -> None:
    with (
        psycopg.connect(conninfo(database_url, role), autocommit=True) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute(statement.encode())


@pytest.mark.parametrize(
    "tampers", [pytest.param(100, id="100"), pytest.param(1000, id="1000", marks=pytest.mark.full)]
)
def test_every_tamper_by_a_superuser_is_found(owner: Connection, tampers: int) -> None:
    """Whoever knows the function that makes the hashes, but does not rewrite the whole chain, is found."""
    _fill(owner)
    for table in ("audit_log", "audit_head"):
        owner.execute(f"CREATE TABLE kept_{table} AS TABLE {table}".encode())
    owner.execute("ALTER TABLE audit_log DROP CONSTRAINT pk_audit_log")
    assert verify(owner).first_bad is None
    last = verify(owner).last_id
    chance = random.Random(tampers)
    done = 0
    while done < tampers:
        tamper = chance.choice(TAMPERS)
        place = chance.randint(1, last)
        statement, expected = tamper(place, last, chance)
        before = _state(owner)
        owner.execute(statement.encode())
        if _state(owner) == before:
            continue
        found = verify(owner)
        assert found.first_bad is not None, statement
        assert found.first_bad.id in expected, (statement, found)
        done += 1
        owner.execute("TRUNCATE audit_log, audit_head")
        owner.execute("INSERT INTO audit_log TABLE kept_audit_log")
        owner.execute("INSERT INTO audit_head TABLE kept_audit_head")
    assert verify(owner).first_bad is None


def test_who_rewrites_the_whole_chain_is_found_by_what_was_noted(owner: Connection) -> None:
    _fill(owner)
    noted = verify(owner)
    owner.execute("UPDATE audit_log SET actor = 'cli' WHERE id = 3")
    owner.execute(
        "DO $$ DECLARE entry audit_log; previous bytea; BEGIN "
        "FOR entry IN SELECT * FROM audit_log ORDER BY id LOOP "
        "  entry.previous_hash := coalesce(previous, entry.previous_hash); previous := audit_hash(entry); "
        "  UPDATE audit_log SET previous_hash = entry.previous_hash, hash = previous WHERE id = entry.id; "
        "END LOOP; UPDATE audit_head SET last_hash = previous; END $$"
    )
    found = verify(owner)
    assert found.first_bad is None
    assert found.last_id == noted.last_id
    assert found.last_hash != noted.last_hash


def test_an_empty_log_is_whole(owner: Connection) -> None:
    assert verify(owner) == Verdict(0, None, 0, "00" * 32)
    owner.execute("DELETE FROM audit_head")
    assert verify(owner).first_bad == Bad(1, "The record of the chain's end is missing, so rows may be, too.")


# --- tampers: (place, last id, chance) -> the statement, and ids that may be named first -----------------

Tamper = Callable[[int, int, random.Random], tuple[str, set[int]]]


def _altered(column: str, value: str) -> Tamper:
    return lambda place, last, chance: (
        f"UPDATE audit_log SET {column} = {value} WHERE id = {place}",
        {place},
    )


def _rehashed(column: str, value: str) -> Tamper:
    """Altered, with a hash that fits: the next row, or the end, does not fit any more."""

    def tamper(place: int, last: int, chance: random.Random) -> tuple[str, set[int]]:
        return (
            f"UPDATE audit_log SET {column} = {value} WHERE id = {place}; "
            f"UPDATE audit_log AS entry SET hash = audit_hash(entry) WHERE id = {place}",
            {min(place + 1, last)} | ({place} if column in ("id", "previous_hash") else set()),
        )

    return tamper


def _swapped(place: int, last: int, chance: random.Random) -> tuple[str, set[int]]:
    other = place % last + 1
    return (
        f"UPDATE audit_log SET id = CASE id WHEN {place} THEN {other} ELSE {place} END "
        f"WHERE id IN ({place}, {other})",
        {min(place, other)},
    )


def _doubled(place: int, last: int, chance: random.Random) -> tuple[str, set[int]]:
    return f"INSERT INTO audit_log SELECT * FROM audit_log WHERE id = {place}", {place}


def _forged(place: int, last: int, chance: random.Random) -> tuple[str, set[int]]:
    return (
        "INSERT INTO audit_log SELECT (forged).* FROM (SELECT jsonb_populate_record(entry, "
        f"jsonb_build_object('id', {last + 1}, 'previous_hash', hash)) AS forged FROM audit_log AS entry "
        f"WHERE id = {last}) AS made; "
        f"UPDATE audit_log AS entry SET hash = audit_hash(entry) WHERE id = {last + 1}",
        {last + 1},
    )


def _removed(place: int, last: int, chance: random.Random) -> tuple[str, set[int]]:
    return f"DELETE FROM audit_log WHERE id = {place}", {place}


def _cut(place: int, last: int, chance: random.Random) -> tuple[str, set[int]]:
    return f"DELETE FROM audit_log WHERE id >= {place}", {place}


def _beheaded(place: int, last: int, chance: random.Random) -> tuple[str, set[int]]:
    return f"DELETE FROM audit_log WHERE id <= {place}", {1}


def _moved_words(place: int, last: int, chance: random.Random) -> tuple[str, set[int]]:
    """The same characters in the same order, but a column holds one that belonged to the next."""
    return (
        "UPDATE audit_log SET actor = actor || left(action, 1), action = substr(action, 2) "
        f"WHERE id = {place}",
        {place},
    )


def _removed_and_closed(place: int, last: int, chance: random.Random) -> tuple[str, set[int]]:
    return (
        f"DELETE FROM audit_log WHERE id = {place}; UPDATE audit_log SET id = id - 1 WHERE id > {place}; "
        "UPDATE audit_head SET last_id = last_id - 1",
        {place, place - 1},
    )


def _head(statement: str) -> Tamper:
    return lambda place, last, chance: (statement, {last, last + 1})


TAMPERS: list[Tamper] = [
    *(
        made(column, value)
        for made in (_altered, _rehashed)
        for column, value in (
            ("actor", "actor || ' '"),
            ("actor", "'cli'"),
            ("action", "'update'"),
            ("noun", "upper(noun)"),
            ("noun_id", "coalesce(noun_id || '0', '')"),
            ("noun_id", "NULL"),
            ("before", "coalesce(before, '{}') || '{\"x\": null}'"),
            ("before", "'null'"),
            ("after", "NULL"),
            ("after", "replace(after::text, 'e', 'f')::jsonb"),
            ("after", r"regexp_replace(after::text, '(\d)}$', '\1.0}')::jsonb"),
            ("admin_id", "gen_random_uuid()"),
            ("request_id", "'r-9'"),
            ("at", "at + interval '1 microsecond'"),
            ("at", "'infinity'"),
            ("previous_hash", "sha256(previous_hash)"),
            ("previous_hash", "''"),
        )
    ),
    _altered("hash", "sha256(hash)"),
    _altered("hash", "previous_hash"),
    _altered("hash", "''"),
    lambda place, last, chance: (
        f"UPDATE audit_log SET id = {chance.choice([-5, 0, last + 7])} WHERE id = {place}",
        {place, -5, 0},
    ),
    _swapped, _doubled, _forged, _removed, _cut, _beheaded, _moved_words, _removed_and_closed,
    lambda place, last, chance: ("TRUNCATE audit_log", {1}),
    _head("UPDATE audit_head SET last_id = last_id - 1"),
    _head("UPDATE audit_head SET last_id = last_id + 1"),
    _head("UPDATE audit_head SET last_hash = sha256(last_hash)"),
    _head("DELETE FROM audit_head"),
]  # fmt: skip


def _fill(owner: Connection) -> None:
    """Rows of all kinds, with and without each column."""
    token = request_id.set("r-1")
    try:
        for number in range(20):
            owner.execute("UPDATE features SET max_queued = %s WHERE name = 'cv_draft'", [number + 1])
            record(owner, Event("login_failed", "sessions", actor=f"admin ä{number}@b", admin_id=uuid4()))
            record(
                owner, Event("export", "config", noun_id="é", before={"n": 1.50}, after={"text": "10, ten"})
            )
    finally:
        request_id.reset(token)


def _state(owner: Connection) -> Any:
    return owner.execute(
        "SELECT (SELECT string_agg(audit_log::text, E'\\n' ORDER BY id, hash) FROM audit_log), "
        "(SELECT audit_head::text FROM audit_head)"
    ).fetchone()
