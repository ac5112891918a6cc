"""The schema: what the migrations make is what the tables say, and each role may do just its work."""

from __future__ import annotations

import importlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from jsonschema import Draft202012Validator

from standalone.engines import Endpoints
from store import migrations
from store.database import Role, conninfo
from store.migrations import MigrationError, upgrade
from store.orm import engine
from store.tables import Base
from tests.conftest import database_named

SQL = Path(migrations.__file__).parent / "sql"
ROUTING_TABLES = {
    "ai_providers",
    "ai_models",
    "model_prices",
    "features",
    "feature_ai_assignments",
    "assignment_targets",
    "prompt_templates",
    "admin_provider_settings",
    "budgets",
}
BUILT_IN = {
    "daily_zodiac_text", "tarot_reading", "analytics_insights", "daily_zodiac_tts", "notifications_tts",
    "chat_assistant", "emergency_assistant", "content_moderation", "job_extraction", "image_validation",
    "cv_draft", "cover_letter", "audio_transcription", "image_generation", "text_embedding",
    "code_generation",
}  # fmt: skip
UNMAPPED = (
    "jobs",
    "job_history",
    "ai_usage_analytics",
    "config_state",
    "alembic_version",
    "idempotency_keys",
    "budget_reservations",
    "budget_thresholds",
    "notices",
    "feeder_state",
    "usage_",
    "provider_batches",
    "provider_health",
    "worker",
    "alerts",
    "audit_head",
    "audit_pending",
)


@pytest.fixture
def owner(database_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(conninfo(database_url), autocommit=True) as connection:
        yield connection


def test_the_migrated_schema_is_what_the_tables_declare(database_url: str) -> None:
    def mapped(name: str | None, kind: str, _parents: object) -> bool:
        return kind != "table" or not (name or "").startswith(UNMAPPED)

    owner = engine(database_url)
    with owner.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"include_name": mapped, "compare_type": True, "compare_server_default": False}
        )
        drift = compare_metadata(context, Base.metadata)
    owner.dispose()
    assert drift == []


def test_exactly_the_routing_tables_bump_the_configuration_version(owner: psycopg.Connection) -> None:
    triggered = owner.execute(
        "SELECT DISTINCT event_object_table::text FROM information_schema.triggers "
        "WHERE trigger_name = 'bump_config_version'"
    )
    assert {table for (table,) in triggered} == ROUTING_TABLES
    before = _version(owner)
    owner.execute("UPDATE features SET description = 'x' WHERE name = 'cv_draft'")
    owner.execute("DELETE FROM ai_models")
    assert _version(owner) == before + 2
    owner.execute(
        "INSERT INTO admins (id, email, password_hash, role) VALUES (gen_random_uuid(), 'a@b', '', 'admin')"
    )
    assert _version(owner) == before + 2


def test_an_uncommitted_change_has_no_version(owner: psycopg.Connection, database_url: str) -> None:
    before = _version(owner)
    with psycopg.connect(conninfo(database_url)) as other:
        other.execute("UPDATE features SET description = 'x'")
        assert _version(owner) == before
        other.rollback()
    assert _version(owner) == before


def test_the_built_in_features_have_valid_schemas_with_complete_examples(owner: psycopg.Connection) -> None:
    features = owner.execute("SELECT name, capability, lane, input_schema FROM features").fetchall()
    assert {name for name, *_ in features} == BUILT_IN
    for _, _, _, schema in features:
        Draft202012Validator.check_schema(schema)
        Draft202012Validator(schema).validate(schema["example"])
        if not {"anyOf", "oneOf"} & schema.keys():
            assert schema["example"].keys() == schema["properties"].keys()
    assert owner.execute("SELECT count(*) FROM ai_providers").fetchone() == (0,)
    assert owner.execute("SELECT count(*) FROM ai_models").fetchone() == (0,)


def test_partitions_exist_ahead_and_making_them_again_makes_none(owner: psycopg.Connection) -> None:
    days = "SELECT count(*) FROM pg_inherits WHERE inhparent = %s::regclass"
    for table in ("job_history", "ai_usage_analytics"):
        assert owner.execute(days, [table]).fetchone() == (15,)
    again = owner.execute("SELECT ensure_partitions((now() AT TIME ZONE 'UTC')::date - 1, 15)").fetchone()
    assert again == (0,)
    assert owner.execute("SELECT ensure_partitions('2030-02-28', 2)").fetchone() == (4,)


def test_a_partition_that_hangs_loose_is_attached(owner: psycopg.Connection) -> None:
    """Detached by hand, or left by a restore: its rows are history again, and no job is refused its end."""
    owner.execute("SELECT ensure_partitions('2030-03-01', 2)")
    owner.execute(
        "INSERT INTO job_history (id, feature, capability, lane, priority, state, input, metadata, "
        "created_at, run_at, finished_at, run, retries, calls) VALUES (gen_random_uuid(), 'f', 'text', "
        "'batch', 0, 'succeeded', '{}', '{}', now(), now(), '2030-03-01 12:00+00', 1, 0, 1)"
    )
    owner.execute("ALTER TABLE job_history DETACH PARTITION job_history_20300301")
    owner.execute("CREATE TABLE ai_usage_analytics_20300303 (LIKE ai_usage_analytics INCLUDING ALL)")
    assert owner.execute("SELECT count(*) FROM job_history").fetchone() == (0,)
    assert owner.execute("SELECT ensure_partitions('2030-03-01', 3)").fetchone() == (3,)
    assert owner.execute("SELECT count(*) FROM job_history").fetchone() == (1,)
    assert owner.execute("SELECT ensure_partitions('2030-03-01', 3)").fetchone() == (0,)


def test_a_table_in_a_partitions_place_holds_up_no_other_day_and_is_named(
    owner: psycopg.Connection, database_url: str
) -> None:
    ((name,),) = owner.execute(
        "SELECT 'job_history_' || to_char((now() AT TIME ZONE 'UTC')::date + 12, 'YYYYMMDD')"
    ).fetchall()
    owner.execute(f"DROP TABLE {name}".encode())
    owner.execute(f"CREATE TABLE {name} (id int)".encode())
    said: list[str | None] = []
    owner.add_notice_handler(lambda notice: said.append(f"{notice.message_primary} {notice.message_hint}"))
    made = owner.execute("SELECT ensure_partitions((now() AT TIME ZONE 'UTC')::date - 1, 16)").fetchone()
    assert made == (2,)
    assert any(name in (message or "") and "DROP TABLE" in (message or "") for message in said)
    with pytest.raises(MigrationError, match=name):
        upgrade(database_url)


@pytest.mark.parametrize(
    ("role", "statement"),
    [
        (Role.API, "SELECT sealed_key FROM ai_providers"),
        (Role.API, "SELECT * FROM ai_providers"),
        (Role.API, "DELETE FROM jobs"),
        (Role.API, "UPDATE jobs SET state = 'running'"),
        (Role.API, "INSERT INTO job_history (id) VALUES (gen_random_uuid())"),
        (Role.API, "UPDATE admins SET role = 'super_admin'"),
        (Role.API, "SELECT ensure_partitions('2031-01-01', 1)"),
        (Role.API, "UPDATE idempotency_keys SET request_hash = ''"),
        (Role.API, "DELETE FROM idempotency_keys"),
        (Role.WORKER, "UPDATE ai_providers SET is_active = false"),
        (Role.WORKER, "UPDATE config_state SET version = 1"),
        (Role.WORKER, "SELECT password_hash FROM admins"),
        (Role.WORKER, "SELECT token_hash FROM app_tokens"),
        (Role.WORKER, "DELETE FROM job_history"),
        (Role.WORKER, "UPDATE ai_usage_analytics SET cost_usd = 0"),
        (Role.WORKER, "CREATE TABLE mine (id int)"),
    ],
)
def test_a_role_may_not(database_url: str, role: Role, statement: str) -> None:
    with (
        psycopg.connect(conninfo(database_url, role), autocommit=True) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute(statement.encode())


def test_any_number_of_migrations_may_race(engines: Endpoints) -> None:
    with psycopg.connect(engines.database_url, autocommit=True) as owner:
        owner.execute("DROP DATABASE IF EXISTS racing WITH (FORCE)")
        owner.execute("CREATE DATABASE racing")
    url = database_named(engines.database_url, "racing")
    revisions: list[str] = []
    racers = [threading.Thread(target=lambda: revisions.append(upgrade(url))) for _ in range(3)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert len(revisions) == 3
    assert len(set(revisions)) == 1
    with psycopg.connect(engines.database_url, autocommit=True) as owner:
        owner.execute("DROP DATABASE racing WITH (FORCE)")


def _version(connection: psycopg.Connection) -> int:
    row = connection.execute("SELECT version FROM config_state").fetchone()
    assert row is not None
    return int(row[0])


def test_features_that_nobody_has_changed_take_the_new_inputs(database_url: str) -> None:
    revision = importlib.import_module("store.migrations.versions.0016_features")
    old = '{"properties": {"text": {}}}'
    shipped = json.loads((SQL / "0016_features.json").read_text())
    with psycopg.connect(database_url) as db:
        for name, schema in shipped.items():
            db.execute(
                "UPDATE features SET input_schema = %s WHERE name = %s",
                [old if name == "image_validation" else json.dumps(schema), name],
            )
    owner = engine(database_url)
    with owner.begin() as connection, Operations.context(MigrationContext.configure(connection)):
        revision.upgrade()
    owner.dispose()
    with psycopg.connect(database_url) as db:
        rows = db.execute("SELECT name, input_schema FROM features WHERE name = ANY(%s)", [list(shipped)])
        now: dict[str, Any] = dict(rows.fetchall())
    assert set(now["job_extraction"]["properties"]) == {"text", "image_url", "image_base64", "url"}
    assert "audio_base64" in now["audio_transcription"]["example"]
    assert now["image_validation"] == json.loads(old)
