"""The rules of the API once more, as raw SQL: what each database role may do with each table, and whose rows.

The matrix is the specification. A letter is a command that the role may do: `S`elect, `I`nsert, `U`pdate some
column, `D`elete. A small letter means that only the caller's own rows can be seen, made or changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import psycopg
import pytest
from psycopg import Connection, sql
from psycopg.rows import tuple_row
from psycopg.types.json import Jsonb

from store.database import Identity, Role, conninfo
from store.ids import new_id

OWNER, STRANGER = new_id(), new_id()  # admins
TOKEN, OTHERS_TOKEN = new_id(), new_id()

IDENTITIES: Mapping[str, Identity | str] = {
    "super_admin": Identity(Role.SUPER_ADMIN, OWNER),
    "with mfa": Identity(Role.SUPER_ADMIN, OWNER, mfa=True),
    "admin": Identity(Role.ADMIN, OWNER),
    "application": Identity(Role.APPLICATION, OWNER, TOKEN),
    "client": Role.CLIENT,
    "api": Role.API,
    "worker": Role.WORKER,
    "reporting": "orrery_reporting",
}

MATRIX = """
table                    super_admin  with mfa  admin  application  client  api  worker  reporting
admin_provider_settings  s            siud      siud   -            -       -    S       -
admin_networks           -            -         -      -            -       SIUD -       -
admin_recovery_codes     -            -         -      -            -       SIUD -       -
admin_refresh_tokens     -            -         -      -            -       SIUD -       -
admin_second_factors     S            SD        s      -            -       SIUD -       -
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
config_state             SU           SU        SU     SU           S       S    S       -
feature_ai_assignments   S            SIUD      S      -            S       S    S       -
features                 S            SIUD      S      -            S       S    S       -
feeder_state             -            -         -      -            -       -    SU      -
idempotency_keys         siu          siu       siu    siu          SI      -    SD      -
integration_health       S            S         S      -            -       S    SIUD    -
job_history              S            S         S      s            S       -    SI      -
jobs                     S            SiU       Siu    siu          SIU     SU   SIUD    -
lanes                    S            SU        S      -            S       S    S       -
login_throttles          -            -         -      -            -       SIUD -       -
model_prices             S            SIUD      S      -            S       S    S       -
prompt_templates         S            SIUD      S      -            S       S    S       -
provider_health          S            S         S      -            -       S    SIUD    -
system_integrations      S            SIUD      S      -            -       -    S       -
usage_daily              S            S         S      -            -       S    SIU     -
usage_hourly             S            S         S      -            -       S    SIU     -
usage_minutes            S            S         S      -            -       S    SIUD    -
usage_rollup             S            S         S      -            -       S    SU      -
usage_totals             S            S         S      -            -       S    SIU     -
usage_user_daily         S            S         S      -            -       S    SIU     -
usage_user_weekly        S            S         S      -            -       S    SIU     -
worker_breakers          S            S         S      -            -       S    SIUD    -
workers                  S            S         S      -            -       S    SIUD    -
"""

VIEWS = {
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
    "assignment_saved": set(),
    "audit_append": {"super_admin", "admin", "application", "client", "api", "worker"},
    "audit_capture": set(),
    "audit_settle": set(),
    "audit_truncation": set(),
    "bump_config_version": set(),
    "caller_sent": {"application"},
    "cancel_jobs": {"super_admin", "admin", "application", "client", "worker"},
    "ensure_partitions": {"worker"},
    "keep_assignment_version": set(),
    "raise_alert": {"worker"},
    "raise_retiring_models": {"worker"},
    "raise_unserved_lanes": {"super_admin", "admin", "api", "worker"},
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

VALUES: Mapping[str, Mapping[str, Any]] = {  # where a column's checks want more than any value of its type
    "admin_provider_settings": {"key_version": 1, "admin_id": STRANGER},
    "admins": {"role": "admin"},
    "ai_providers": {"base_url": "http://127.0.0.1"},
    "ai_usage_analytics": {"outcome": "failed", "lane": "batch"},
    "features": {"capability": "text"},
    "idempotency_keys": {"job_id": new_id(), "scope": str(STRANGER)},
    "job_history": {"state": "failed", "token_id": OTHERS_TOKEN, "caller_admin_id": STRANGER},
    "jobs": {"lane": "batch", "token_id": OTHERS_TOKEN, "caller_admin_id": STRANGER},
    "system_integrations": {"type": "webhook"},
    "worker_breakers": {"state": "open"},
}
SINGLE_ROWS = {"audit_head", "config_state", "feeder_state", "lanes", "usage_rollup", "alembic_version"}


@dataclass(frozen=True)
class Column:
    name: str
    type: str
    is_needed: bool
    is_settable: bool


@pytest.fixture
def owner(database_url: str) -> Iterator[Connection[Any]]:
    with psycopg.connect(conninfo(database_url), autocommit=True, row_factory=tuple_row) as db:
        yield db


@pytest.fixture
def tables(owner: Connection[Any]) -> Mapping[str, list[Column]]:
    """Every table of the schema but partitions, with two rows of strangers in each."""
    found = _tables(owner)
    with owner.transaction():
        owner.execute("SET LOCAL session_replication_role = replica")  # no triggers, no foreign keys
        for table, columns in found.items():
            if table not in SINGLE_ROWS:
                for _ in range(2):
                    _insert(owner, table, _row(table, columns))
    return found


def test_each_role_may_do_with_each_table_what_the_matrix_says(
    owner: Connection[Any], tables: Mapping[str, list[Column]]
) -> None:
    expected = _matrix()
    assert sorted(tables) == sorted(expected), "a table is not in the matrix, or one in it is gone"
    found: dict[str, dict[str, str]] = {table: {} for table in tables}
    for name, identity in IDENTITIES.items():
        _own_rows(owner, tables, identity)
        for table, columns in tables.items():
            with _being(owner, identity):
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
    with _being(owner, Role.WORKER), pytest.raises(psycopg.errors.InsufficientPrivilege):
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
        with _being(owner, identity):
            may = _may(owner, sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(view)))
        assert (may is not None) == (_group(name) in readers), name


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
            _group(caller)
            for caller, identity in IDENTITIES.items()
            if owner.execute("SELECT has_function_privilege(%s, %s, 'EXECUTE')", [_role(identity), oid])
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
            with _being(owner, identity):
                may = _may(owner, query) is not None
            assert may == (_group(caller) in readers), (name, caller)


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
    _own_rows(owner, tables, identity)
    values = {"owner": OWNER, "stranger": STRANGER, "token": TOKEN}
    with (
        _being(owner, identity),
        pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.FeatureNotSupported)),
    ):
        owner.execute(statement.encode(), values if "%(" in statement else None)


def test_jobs_end_by_those_who_may(owner: Connection[Any], tables: Mapping[str, list[Column]]) -> None:
    for caller, may in {
        "application": {"own"},
        "admin": {"own", "strange"},
        "with mfa": {"own", "strange"},
        "super_admin": set[str](),
        "client": {"own", "strange"},
    }.items():
        identity = IDENTITIES[caller]
        _own_rows(owner, tables, identity)
        jobs = owner.execute("SELECT id, token_id IS NOT DISTINCT FROM %s FROM jobs", [TOKEN]).fetchall()
        owned = {id_: "own" if own else "strange" for id_, own in jobs}
        if caller != "application":
            owned = dict.fromkeys(owned, "strange") | {jobs[0][0]: "own"}
        with _being(owner, identity):
            ended = owner.execute("SELECT cancel_jobs(%s)", [list(owned)]).fetchall()
            assert {owned[id_] for (id_,) in ended} == may, caller


def test_a_caller_whom_nobody_named_sees_nothing(
    owner: Connection[Any], tables: Mapping[str, list[Column]]
) -> None:
    """Settings that were never made, or are empty, are nobody's; no row without a token is theirs."""
    jobs = _row("jobs", tables["jobs"]) | {"token_id": None, "caller_admin_id": None}
    _insert(owner, "jobs", jobs)
    for identity in (Role.APPLICATION, Identity(Role.APPLICATION), Identity(Role.APPLICATION, OWNER)):
        with _being(owner, identity):
            for table in ("jobs", "job_history", "ai_usage_analytics", "idempotency_keys"):
                assert owner.execute(f"SELECT count(*) FROM {table}".encode()).fetchone() == (0,)
            assert owner.execute("SELECT cancel_jobs(ARRAY[%s]::uuid[])", [jobs["id"]]).fetchall() == []


@pytest.mark.parametrize("caller", ["application", "admin", "with mfa", "worker"])
def test_a_temporary_table_misleads_no_function_of_the_owners(owner: Connection[Any], caller: str) -> None:
    """CVE-2007-2138's kind: temporary tables come first in a search path that does not name them, and their
    triggers would then run as the owner."""
    with _being(owner, IDENTITIES[caller]):
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
    with _being(owner, IDENTITIES["with mfa"]):
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


# --- how ----------------------------------------------------------------------------------------------


def _matrix() -> dict[str, dict[str, str]]:
    header, *lines = MATRIX.strip().splitlines()
    names = header.replace("with mfa", "with_mfa").split()[1:]
    assert [name.replace("_mfa", " mfa") for name in names] == list(IDENTITIES)
    return {
        table: dict(zip(IDENTITIES, (may.strip("-") for may in rights), strict=True))
        for table, *rights in map(str.split, lines)
    }


def _tables(owner: Connection[Any]) -> dict[str, list[Column]]:
    rows = owner.execute(
        "SELECT relname, attname, format_type(atttypid, NULL), "
        "attnotnull AND NOT atthasdef AND attidentity = '', attidentity <> 'a' AND attgenerated = '' "
        "FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid "
        "WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition "
        "AND attnum > 0 AND NOT attisdropped ORDER BY relname, attnum"
    ).fetchall()
    found: dict[str, list[Column]] = {}
    for table, *column in rows:
        found.setdefault(table, []).append(Column(*column))
    return found


def _row(table: str, columns: list[Column]) -> dict[str, Any]:
    needed: dict[str, Any] = {column.name: _value(column.type) for column in columns if column.is_needed}
    return {**needed, **VALUES.get(table, {})}


def _value(type_: str) -> Any:
    if type_ == "jsonb":
        return Jsonb({})
    if type_.endswith("[]"):
        return "{}"
    return {
        "uuid": new_id(),
        "text": f"x{new_id().hex}",
        "character varying": new_id().hex,
        "boolean": False,
        "bytea": new_id().bytes,
        "date": _day(),
    }.get(type_, _day() if "time" in type_ else new_id().int % 10_000)


def _day() -> date:
    return date(2031, 1, 1) + timedelta(days=new_id().int % 10_000)


def _insert(db: Connection[Any], table: str, row: Mapping[str, Any]) -> None:
    if table in ("job_history", "ai_usage_analytics"):
        row = {**row, "finished_at": "now"}
    if not row:
        db.execute(sql.SQL("INSERT INTO {} DEFAULT VALUES").format(sql.Identifier(table)))
        return
    db.execute(
        sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
            sql.Identifier(table),
            sql.SQL(", ").join(map(sql.Identifier, row)),
            sql.SQL(", ").join(map(sql.Placeholder, row)),
        ),
        row,
    )


def _own(table: str, identity: Identity | str) -> dict[str, Any]:
    """What makes a row of the table the caller's."""
    if not isinstance(identity, Identity):
        return {}
    owned: dict[str, dict[str, Any]] = {
        "admin_provider_settings": {"admin_id": identity.admin_id},
        "admin_second_factors": {"admin_id": identity.admin_id},
        "admin_sessions": {"admin_id": identity.admin_id},
        "idempotency_keys": {"scope": str(identity.token_id or identity.admin_id)},
        "job_history": {"token_id": identity.token_id, "caller_admin_id": identity.admin_id},
        "jobs": {"token_id": identity.token_id, "caller_admin_id": identity.admin_id},
    }
    return owned.get(table, {})


def _own_rows(owner: Connection[Any], tables: Mapping[str, list[Column]], identity: Identity | str) -> None:
    """Give the caller a row where rows have owners, and take away those of the callers before."""
    with owner.transaction():
        owner.execute("SET LOCAL session_replication_role = replica")
        job_id = new_id()
        for table in (
            "admin_provider_settings",
            "admin_second_factors",
            "admin_sessions",
            "idempotency_keys",
            "job_history",
            "jobs",
        ):
            owner.execute(f"DELETE FROM {table}".encode())
            for own in ({}, _own(table, identity)):
                row = _row(table, tables[table]) | own
                if table == "job_history" and own:
                    row["id"] = job_id
                _insert(owner, table, row)
        owner.execute("DELETE FROM ai_usage_analytics")
        for id_ in (new_id(), job_id):
            row = _row("ai_usage_analytics", tables["ai_usage_analytics"]) | {"job_id": id_}
            _insert(owner, "ai_usage_analytics", row)


def _rights(db: Connection[Any], table: str, columns: list[Column], identity: Identity | str) -> str:
    name = sql.Identifier(table)
    total = _total(db, table)
    seen = _may(db, sql.SQL("SELECT count(*) FROM {}").format(name), counted=True)
    rights = "" if not seen else ("S" if seen == total else "s")
    rights += _insertable(db, table, columns, identity)
    changed = max(
        (_may(db, sql.SQL("UPDATE {} SET {c} = {c}").format(name, c=sql.Identifier(column.name))) or 0)
        for column in columns
        if column.is_settable
    )
    rights += "" if not changed else ("U" if changed == total else "u")
    removed = _may(db, sql.SQL("DELETE FROM {}").format(name))
    rights += "" if not removed else ("D" if removed == total else "d")
    assert _may(db, sql.SQL("TRUNCATE {}").format(name)) is None
    return rights


def _insertable(db: Connection[Any], table: str, columns: list[Column], identity: Identity | str) -> str:
    strange = _row(table, columns)
    own = strange | _own(table, identity)
    made = [_made(db, table, row) for row in (own, strange)]
    return {(True, True): "I", (True, False): "i", (False, False): ""}[made[0], made[1]]


def _made(db: Connection[Any], table: str, row: Mapping[str, Any]) -> bool:
    try:
        with db.transaction(force_rollback=True):
            _insert(db, table, row)
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


def _may(db: Connection[Any], statement: sql.Composed, *, counted: bool = False) -> int | None:
    """How many rows the statement concerns; None where the role may not."""
    try:
        with db.transaction(force_rollback=True):
            done = db.execute(statement)
            return int(done.fetchall()[0][0]) if counted else done.rowcount
    except psycopg.errors.InsufficientPrivilege:
        return None


@contextmanager
def _being(owner: Connection[Any], identity: Identity | str) -> Iterator[None]:
    with owner.transaction(force_rollback=True):
        if isinstance(identity, Identity):
            owner.execute(identity.local())
        else:
            owner.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(str(identity))))
        yield


def _role(identity: Identity | str) -> str:
    return str(identity.role if isinstance(identity, Identity) else identity)


def _group(name: str) -> str:
    return name.replace("with mfa", "super_admin")
