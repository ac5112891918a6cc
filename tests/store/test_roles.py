"""The rules of the API once more, as raw SQL: what each database role may do with each table.

The matrix is the specification. A letter is a command that the role may do: `S`elect, `I`nsert, `U`pdate some
column, `D`elete. A small letter means that only the caller's own rows can be seen, made or changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg
import pytest
from psycopg import Connection, sql

from store.database import Identity, Role
from tests.store.callers import (
    IDENTITIES,
    Column,
    any_row,
    being,
    group,
    insert,
    own_rows,
    ownership,
    reached,
    role,
)

MATRIX = """
table                    super_admin  with mfa  admin  application  client  api  worker  reporting
admin_provider_settings  s            siud      siud   -            -       -    S       -
admin_networks           -            -         -      -            -       SIUD -       -
admin_recovery_codes     -            -         -      -            -       SIUD -       -
admin_refresh_tokens     -            -         -      -            -       SIUD -       -
admin_second_factors     S            S         s      -            -       SIUD -       -
admin_sessions           Su           SU        su     -            -       SIUD -       -
admins                   S            SIUD      S      -            -       SU   S       -
ai_models                S            SIUD      S      -            S       S    S       -
ai_providers             S            SIUD      S      -            S       S    S       -
ai_usage_analytics       S            S         S      s            S       S    SI      -
alembic_version          -            -         -      -            -       -    -       -
alerts                   S            SU        S      -            -       S    -       -
app_token_uses           S            S         S      -            -       SIU  -       -
app_tokens               S            SIUD      S      -            -       S    -       -
assignment_versions      S            S         S      -            -       S    -       -
assignment_targets       S            SIUD      S      -            S       S    S       -
audit_head               S            S         S      -            -       S    -       -
audit_log                S            S         S      -            -       S    -       -
audit_pending            -            -         -      -            -       -    -       -
budget_reservations      -            -         -      -            -       -    -       -
budget_thresholds        -            -         -      -            -       -    -       -
budget_usage             S            S         S      -            -       S    S       -
budgets                  S            SIUD      S      -            -       -    -       -
config_state             SU           SU        SU     SU           S       S    S       -
feature_ai_assignments   S            SIUD      S      -            S       S    S       -
features                 S            SIUD      S      -            S       S    S       -
feeder_state             -            -         -      -            -       -    SU      -
fires                    S            S         S      -            -       -    -       -
idempotency_keys         siu          siu       siu    siu          SI      -    SD      -
integration_health       S            S         S      -            -       S    SIUD    -
job_groups               S            S         S      -            -       -    S       -
job_history              S            S         S      s            S       -    SI      -
jobs                     S            SiU       Siu    siu          SIU     SU   SIUD    -
lanes                    S            SU        S      -            S       S    S       -
login_throttles          -            -         -      -            -       SIUD -       -
model_prices             S            SIUD      S      -            S       S    S       -
notices                  S            S         S      s            S       -    SU      -
prompt_templates         S            SIUD      S      -            S       S    S       -
provider_batches         S            S         S      -            -       -    SIUD    -
provider_health          S            S         S      -            -       S    SIUD    -
retention                S            SU        S      -            -       -    -       -
schedule_state           S            S         S      -            -       -    -       -
schedules                S            SIUD      S      -            -       -    S       -
system_integrations      S            SIUD      S      -            -       -    S       -
usage_daily              S            S         S      -            -       S    SIU     -
usage_hourly             S            S         S      -            -       S    SIU     -
usage_minutes            S            S         S      -            -       S    SIUD    -
usage_overall_hourly     S            S         S      -            -       S    SIU     -
usage_rollup             S            S         S      -            -       S    SU      -
usage_totals             S            S         S      -            -       S    SIU     -
usage_user_daily         S            S         S      -            -       S    SIU     -
usage_user_weekly        S            S         S      -            -       S    SIU     -
worker_breakers          S            S         S      -            -       S    SIUD    -
workers                  S            S         S      -            -       S    SIUD    -
"""

VIEWS = {
    "budgets_in_force": {"client", "api", "worker"},
    "personal_keys_in_force": {"client", "api", "worker"},
    "report_attempts": {"reporting"},
    "report_daily_cost_by_feature": {"reporting"},
    "report_daily_cost_by_provider": {"reporting"},
    "report_daily_cost_by_user": {"reporting"},
    "report_daily_job_durations": {"reporting"},
    "report_hourly_error_classes": {"reporting"},
    "report_hourly_errors": {"reporting"},
    "report_hourly_latency": {"reporting"},
    "report_jobs": {"reporting"},
}

FUNCTIONS = {  # those that run as the owner, and who may call them
    "advance_schedule": {"worker"},
    "alert_opened": set(),
    "assignment_saved": set(),
    "audit_append": {"super_admin", "admin", "application", "client", "api", "worker"},
    "audit_capture": set(),
    "audit_settle": set(),
    "audit_truncation": set(),
    "bump_config_version": set(),
    "caller_sent": {"application"},
    "count_budgets": set(),
    "covering_budgets": set(),
    "cancel_jobs": {"super_admin", "admin", "application", "client", "worker"},
    "drop_partition": {"worker"},
    "due_schedule": {"worker"},
    "ensure_partitions": {"worker"},
    "erase_jobs": {"super_admin", "worker"},
    "expired_partitions": {"worker"},
    "fire_schedule": {"super_admin", "worker"},
    "follow_up": set(),
    "forget_inputs": set(),
    "has_uncounted": set(),
    "keep_assignment_version": set(),
    "prune_budgets": {"worker"},
    "raise_alert": {"worker"},
    "raise_budget_alerts": set(),
    "raise_cost_anomalies": {"worker"},
    "raise_retiring_models": {"worker"},
    "raise_unserved_lanes": {"super_admin", "admin", "api", "worker"},
    "reserve_budget": {"worker"},
    "schedule_saved": set(),
    "spend": set(),
    "tell": set(),
    "usage_rebase": {"worker"},
}

SECRETS = {  # who may read what is secret, or a fence
    "admin_provider_settings.sealed_key": {"worker"},
    "admin_recovery_codes.code_hash": {"api"},
    "admin_refresh_tokens.token_hash": {"api"},
    "admin_second_factors.sealed_secret": {"api"},
    "admin_sessions.cookie_hash": {"api"},
    "admins.password_hash": {"api"},
    "ai_providers.sealed_key": {"worker"},
    "app_tokens.token_hash": {"api"},
    "idempotency_keys.answer": {"super_admin", "admin", "application", "client", "worker"},
    "job_history.lease_token": {"worker"},
    "jobs.lease_token": {"worker"},
    "system_integrations.sealed_credentials": {"worker"},
}


def test_each_role_may_do_with_each_table_what_the_matrix_says(
    owner: Connection[Any], tables: Mapping[str, list[Column]]
) -> None:
    expected = _matrix()
    assert sorted(tables) == sorted(expected), "a table is not in the matrix, or one in it is gone"
    found: dict[str, dict[str, str]] = {table: {} for table in tables}
    for name, identity in IDENTITIES.items():
        own_rows(owner, tables, identity)
        for table, columns in tables.items():
            with being(owner, identity):
                found[table][name] = _rights(owner, table, columns, identity)
    differing = {
        (table, name): f"may {may or 'nothing'}, should {expected[table][name] or 'nothing'}"
        for table, by_role in found.items()
        for name, may in by_role.items()
        if may != expected[table][name]
    }
    assert differing == {}


def test_every_table_has_row_security_and_partitions_are_nobodys(owner: Connection[Any]) -> None:
    open_tables = owner.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') "
        "AND NOT relispartition AND (NOT relrowsecurity OR relforcerowsecurity)"
    ).fetchall()
    assert open_tables == []
    granted = owner.execute(
        "SELECT relname, acl.grantee::regrole FROM pg_class, aclexplode(relacl) acl "
        "WHERE relispartition AND acl.grantee <> relowner"
    ).fetchall()
    assert granted == []
    owner.execute("SELECT ensure_partitions('2031-01-01', 1)")
    with being(owner, Role.WORKER), pytest.raises(psycopg.errors.InsufficientPrivilege):
        owner.execute("SELECT FROM job_history_20310101")


def test_roles_own_nothing_and_log_nobody_in(owner: Connection[Any]) -> None:
    roles = owner.execute(
        "SELECT rolname, rolcanlogin OR rolsuper OR rolcreaterole OR rolcreatedb OR rolbypassrls, "
        "EXISTS (SELECT FROM pg_class WHERE relowner = pg_roles.oid) FROM pg_roles "
        "WHERE rolname LIKE 'orrery\\_%' ORDER BY 1"
    ).fetchall()
    assert [name for name, *_ in roles] == sorted({*Role, "orrery_reporting"})
    assert all(not powerful and not owns for _, powerful, owns in roles)


@pytest.mark.parametrize(("view", "readers"), VIEWS.items())
def test_views_are_read_by(owner: Connection[Any], view: str, readers: set[str]) -> None:
    views = owner.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('v', 'm')"
    )
    assert {name for (name,) in views} == set(VIEWS)
    for name, identity in IDENTITIES.items():
        with being(owner, identity):
            may = reached(owner, sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(view)))
        assert (may is not None) == (group(name) in readers), name


def test_functions_that_run_as_the_owner_are_for_whom_they_are_for(owner: Connection[Any]) -> None:
    """And none looks for its tables where a caller can put others: see the attack below."""
    rows = owner.execute(
        "SELECT proname, oid, coalesce(array_to_string(proconfig, ' '), ''), proacl IS NULL "
        "FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND prosecdef"
    ).fetchall()
    assert {name for name, *_ in rows} == set(FUNCTIONS)
    for name, oid, settings, is_public in rows:
        assert "search_path=public, pg_temp" in settings, name
        returns_trigger = owner.execute(
            "SELECT prorettype = 'trigger'::regtype FROM pg_proc WHERE oid = %s", [oid]
        ).fetchone()
        if returns_trigger == (True,):  # PostgreSQL calls it for nobody else
            continue
        assert not is_public, name
        may = {
            group(caller)
            for caller, identity in IDENTITIES.items()
            if owner.execute("SELECT has_function_privilege(%s, %s, 'EXECUTE')", [role(identity), oid])
            .fetchall()[0][0]
        }  # fmt: skip
        assert may == FUNCTIONS[name], name


def test_secrets_are_read_by_nobody_who_need_not(
    owner: Connection[Any], tables: Mapping[str, list[Column]]
) -> None:
    """Any bytea, or column named like a secret, is one: a column of a later release is not forgotten."""
    public = {"audit_log", "audit_head", "idempotency_keys.request_hash", "login_throttles.key"}
    secret = {
        f"{table}.{column.name}"
        for table, columns in tables.items()
        for column in columns
        if column.type == "bytea"
        or column.name.startswith("sealed")
        or column.name.endswith(("_hash", "lease_token", "secret"))
        if table not in public and f"{table}.{column.name}" not in public and table != "audit_pending"
    }
    assert secret == set(SECRETS)
    for name, readers in SECRETS.items():
        table, _, column = name.partition(".")
        query = sql.SQL("SELECT {} FROM {}").format(sql.Identifier(column), sql.Identifier(table))
        for caller, identity in IDENTITIES.items():
            with being(owner, identity):
                may = reached(owner, query) is not None
            assert may == (group(caller) in readers), (name, caller)


# --- how ----------------------------------------------------------------------------------------------


def _matrix() -> dict[str, dict[str, str]]:
    header, *lines = MATRIX.strip().splitlines()
    names = header.replace("with mfa", "with_mfa").split()[1:]
    assert [name.replace("_mfa", " mfa") for name in names] == list(IDENTITIES)
    return {
        table: dict(zip(IDENTITIES, (may.strip("-") for may in rights), strict=True))
        for table, *rights in map(str.split, lines)
    }


def _rights(db: Connection[Any], table: str, columns: list[Column], identity: Identity | str) -> str:
    name = sql.Identifier(table)
    total = _total(db, table)
    seen = reached(db, sql.SQL("SELECT count(*) FROM {}").format(name), counted=True)
    rights = "" if not seen else ("S" if seen == total else "s")
    rights += _insertable(db, table, columns, identity)
    changed = max(
        (reached(db, sql.SQL("UPDATE {} SET {c} = {c}").format(name, c=sql.Identifier(column.name))) or 0)
        for column in columns
        if column.is_settable
    )
    rights += "" if not changed else ("U" if changed == total else "u")
    removed = reached(db, sql.SQL("DELETE FROM {}").format(name))
    rights += "" if not removed else ("D" if removed == total else "d")
    assert reached(db, sql.SQL("TRUNCATE {}").format(name)) is None
    return rights


def _insertable(db: Connection[Any], table: str, columns: list[Column], identity: Identity | str) -> str:
    strange = any_row(table, columns)
    own = strange | ownership(table, identity)
    made = [_made(db, table, row) for row in (own, strange)]
    return {(True, True): "I", (True, False): "i", (False, False): ""}[made[0], made[1]]


def _made(db: Connection[Any], table: str, row: Mapping[str, Any]) -> bool:
    try:
        with db.transaction(force_rollback=True):
            insert(db, table, row)
    except psycopg.errors.InsufficientPrivilege:
        return False
    except psycopg.IntegrityError:
        pass  # a rule of the table, which it asks after the rights
    return True


def _total(db: Connection[Any], table: str) -> int:
    with db.transaction(force_rollback=True):
        db.execute("RESET ROLE")
        row = db.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()
    assert row is not None
    return int(row[0])
