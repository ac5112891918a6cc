"""The rules of the API once more, as raw SQL: whose rows a caller of the database makes, changes and ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import Connection

from store.database import Identity, Role, conninfo
from store.ids import new_id
from tests.store.callers import (
    IDENTITIES,
    OTHERS_TOKEN,
    OWNER,
    STRANGER,
    TOKEN,
    Column,
    any_row,
    being,
    insert,
    own_rows,
    ownership,
)

FOREIGN = [
    ("application", "INSERT INTO jobs (id, feature, capability, lane, input, token_id, caller_admin_id) "
     "VALUES (gen_random_uuid(), 'f', 'text', 'batch', '{}', %(token)s, %(stranger)s)"),
    ("application", "INSERT INTO jobs (id, feature, capability, lane, input, token_id, caller_admin_id) "
     "VALUES (gen_random_uuid(), 'f', 'text', 'batch', '{}', NULL, %(owner)s)"),
    ("application", "INSERT INTO jobs (id, feature, capability, lane, input, token_id, caller_admin_id, "
     "cost_usd) VALUES (gen_random_uuid(), 'f', 'text', 'batch', '{}', %(token)s, %(owner)s, 0)"),
    ("application", "INSERT INTO jobs (id, feature, capability, lane, input, token_id, caller_admin_id, "
     "state) VALUES (gen_random_uuid(), 'f', 'text', 'batch', '{}', %(token)s, %(owner)s, 'running')"),
    ("application", "UPDATE jobs SET input = '{}'"),
    ("application", "UPDATE jobs SET token_id = %(token)s"),
    ("application", "COPY jobs (id) FROM STDIN"),
    ("admin", "INSERT INTO jobs (id, feature, capability, lane, input, token_id, caller_admin_id) "
     "VALUES (gen_random_uuid(), 'f', 'text', 'batch', '{}', NULL, %(stranger)s)"),
    ("admin", "UPDATE admin_provider_settings SET admin_id = %(stranger)s"),
    ("admin", "UPDATE config_state SET version = 7"),
    ("with mfa", "UPDATE config_state SET version = 7"),
    ("with mfa", "UPDATE audit_head SET last_id = 0"),
    ("with mfa", "UPDATE lanes SET name = 'x'"),
    ("with mfa", "UPDATE admin_provider_settings SET admin_id = %(stranger)s"),
]  # fmt: skip


@pytest.mark.parametrize(("caller", "statement"), FOREIGN)
def test_no_row_is_made_somebody_elses(
    owner: Connection[Any], tables: Mapping[str, list[Column]], caller: str, statement: str
) -> None:
    identity = IDENTITIES[caller]
    own_rows(owner, tables, identity)
    values = {"owner": OWNER, "stranger": STRANGER, "token": TOKEN}
    with (
        being(owner, identity),
        pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.FeatureNotSupported)),
    ):
        owner.execute(statement.encode(), values if "%(" in statement else None)


JOBS: Mapping[str, tuple[UUID | None, UUID | None]] = {  # token and admin
    "mine": (None, OWNER),
    "my application's": (TOKEN, OWNER),
    "a stranger's": (OTHERS_TOKEN, STRANGER),
    "an ownerless application's": (OTHERS_TOKEN, None),
    "a program's": (None, None),
}
ACTED_ON: Mapping[str, set[str]] = {  # whose jobs a caller may end and run again
    "application": {"my application's"},
    "admin": {"mine", "my application's"},
    "super_admin": set(),
    "with mfa": set(JOBS),
    "client": set(JOBS),
}


@pytest.mark.parametrize(("caller", "allowed"), ACTED_ON.items())
def test_jobs_are_ended_by_those_who_may(
    owner: Connection[Any], tables: Mapping[str, list[Column]], caller: str, allowed: set[str]
) -> None:
    jobs = _jobs_in(owner, "jobs", tables["jobs"])
    with being(owner, IDENTITIES[caller]):
        ended = owner.execute("SELECT cancel_jobs(%s)", [list(jobs)]).fetchall()
    assert {jobs[id_] for (id_,) in ended} == allowed


@pytest.mark.parametrize(("caller", "allowed"), ACTED_ON.items())
def test_jobs_are_run_again_by_those_who_may(
    owner: Connection[Any], tables: Mapping[str, list[Column]], caller: str, allowed: set[str]
) -> None:
    """Whoever names a job in `retry_of`; one that is none is nobody's."""
    identity = IDENTITIES[caller]
    jobs = {**_jobs_in(owner, "job_history", tables["job_history"]), new_id(): "nobody's"}
    again = set()
    for id_, whose in jobs.items():
        retry = any_row("jobs", tables["jobs"]) | ownership("jobs", identity) | {"retry_of": id_}
        with being(owner, identity):
            try:
                insert(owner, "jobs", retry)
            except psycopg.errors.InsufficientPrivilege:
                continue
        again.add(whose)
    assert again - {"nobody's"} == allowed
    assert ("nobody's" in again) == (caller in ("with mfa", "client"))


def _jobs_in(owner: Connection[Any], table: str, columns: list[Column]) -> dict[UUID, str]:
    """A job of everybody; returns whose they are."""
    made = {}
    for whose, (token_id, admin_id) in JOBS.items():
        job = any_row(table, columns) | {"token_id": token_id, "caller_admin_id": admin_id}
        insert(owner, table, job)
        made[job["id"]] = whose
    return made


def test_a_caller_whom_nobody_named_sees_nothing(
    owner: Connection[Any], tables: Mapping[str, list[Column]]
) -> None:
    """Settings that were never made, or are empty, are nobody's; no row without a token is theirs."""
    jobs = any_row("jobs", tables["jobs"]) | {"token_id": None, "caller_admin_id": None}
    insert(owner, "jobs", jobs)
    for identity in (Role.APPLICATION, Identity(Role.APPLICATION), Identity(Role.APPLICATION, OWNER)):
        with being(owner, identity):
            for table in ("jobs", "job_history", "ai_usage_analytics", "idempotency_keys"):
                assert owner.execute(f"SELECT count(*) FROM {table}".encode()).fetchone() == (0,)
            assert owner.execute("SELECT cancel_jobs(ARRAY[%s]::uuid[])", [jobs["id"]]).fetchall() == []


@pytest.mark.parametrize("caller", ["application", "admin", "with mfa", "worker"])
def test_a_temporary_table_misleads_no_function_of_the_owners(owner: Connection[Any], caller: str) -> None:
    """CVE-2007-2138's kind: temporary tables come first in a search path that does not name them, and their
    triggers would then run as the owner."""
    with being(owner, IDENTITIES[caller]):
        owner.execute("CREATE TEMPORARY TABLE config_state (version bigint, changed_at timestamptz)")
        owner.execute("INSERT INTO config_state VALUES (1, now())")
        owner.execute(
            "CREATE FUNCTION pg_temp.take_over() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'I am %', current_user; END $$"
        )
        owner.execute(
            "CREATE TRIGGER take_over BEFORE UPDATE ON config_state FOR EACH ROW "
            "EXECUTE FUNCTION pg_temp.take_over()"
        )
        with pytest.raises(psycopg.errors.RaiseException, match="I am orrery_"):
            owner.execute("UPDATE pg_temp.config_state SET version = 2")
    with being(owner, IDENTITIES["with mfa"]):
        owner.execute("CREATE TEMPORARY TABLE config_state (version bigint, changed_at timestamptz)")
        owner.execute("UPDATE features SET description = 'x'")
        assert owner.execute("SELECT count(*) FROM pg_temp.config_state").fetchone() == (0,)
        assert owner.execute("SELECT version > 1 FROM public.config_state").fetchone() == (True,)


def test_bulk_copies_beside_the_queue_with_its_callers_rights(database_url: str) -> None:
    target = conninfo(database_url, IDENTITIES["application"])  # type: ignore[arg-type] # an Identity
    with psycopg.connect(target, autocommit=True) as db:
        db.execute("CREATE TEMPORARY TABLE bulk (id uuid)")
        with db.cursor().copy("COPY bulk FROM STDIN") as copy:
            copy.write_row([new_id()])
        insert = (
            "INSERT INTO jobs (id, feature, capability, lane, input, token_id, caller_admin_id) "
            "SELECT id, 'f', 'text', 'batch', '{}', %s, %s FROM bulk"
        )
        assert db.execute(insert, [TOKEN, OWNER]).rowcount == 1
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            db.execute(insert, [OTHERS_TOKEN, OWNER])
