"""Views for reporting tools: what they show, and that their role sees nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row

from store.settings import Settings
from tests.usage_rows import Ledger, call

NOW = datetime.now(UTC).replace(microsecond=0)
HOUR = NOW.replace(minute=0, second=0)
VIEWS = {
    "report_daily_cost_by_provider",
    "report_daily_cost_by_feature",
    "report_daily_cost_by_user",
    "report_hourly_errors",
    "report_hourly_error_classes",
    "report_hourly_latency",
    "report_jobs",
    "report_daily_job_durations",
    "report_attempts",
}


@pytest.fixture
def ledger(settings: Settings) -> Iterator[Ledger]:
    ledger = Ledger(settings)
    yield ledger
    ledger.close()


@pytest.fixture
def reporting(settings: Settings) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    """As a reporting tool connects."""
    with psycopg.connect(settings.database(), autocommit=True, row_factory=dict_row) as db:
        db.execute("SET ROLE orrery_reporting")
        yield db


def test_the_role_reads_the_views_and_nothing_else(reporting: psycopg.Connection[dict[str, Any]]) -> None:
    relations = reporting.execute(
        "SELECT relname, has_any_column_privilege(oid, 'SELECT, INSERT, UPDATE') "
        "OR has_table_privilege(oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE') AS may FROM pg_class "
        "WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm')"
    ).fetchall()
    assert {row["relname"] for row in relations if row["may"]} == VIEWS
    assert len(relations) > len(VIEWS) + 20
    for view in VIEWS:
        reporting.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(view)))
    columns = reporting.execute(
        "SELECT DISTINCT attname FROM pg_attribute "
        "WHERE attrelid = ANY (%s::text[]::regclass[]) AND attnum > 0",
        [list(VIEWS)],
    ).fetchall()
    secret = {
        "input",
        "result",
        "metadata",
        "error_message",
        "raw_usage",
        "sealed_key",
        "lease_token",
        "price",
    }
    assert not secret & {row["attname"] for row in columns}
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        reporting.execute("SELECT raise_alert('poison_job', 'jobs', '1', 'x')")


def test_costs_errors_and_latencies_are_those_of_the_calls(
    ledger: Ledger, reporting: psycopg.Connection[dict[str, Any]]
) -> None:
    ledger.record(
        *(call(finished_at=HOUR, user_id="u1", latency_ms=ms) for ms in (90, 90, 90, 4000)),
        call(finished_at=HOUR, cost_usd=None, outcome="failed", error_class="timeout", latency_ms=400_000),
        call(finished_at=HOUR - timedelta(days=1), feature="tarot_reading"),
    )

    def only(view: str) -> list[dict[str, Any]]:
        query = sql.SQL("SELECT * FROM {} WHERE {} = %s").format(
            sql.Identifier(view), sql.Identifier("hour" if "hourly" in view else "day")
        )
        return reporting.execute(query, [HOUR if "hourly" in view else HOUR.date()]).fetchall()

    [provider] = only("report_daily_cost_by_provider")
    assert (provider["provider"], provider["model"], provider["calls"]) == ("acme", "acme-1", 5)
    assert (provider["cost_usd"], provider["unpriced_calls"]) == (Decimal("0.04"), 1)
    [feature] = only("report_daily_cost_by_feature")
    assert (feature["feature"], feature["input_tokens"]) == ("cv_draft", 500)
    users = {row["user_id"]: row["cost_usd"] for row in only("report_daily_cost_by_user")}
    assert users == {"u1": Decimal("0.04"), None: Decimal(0)}
    [errors] = only("report_hourly_errors")
    assert (errors["calls"], errors["failed"], errors["error_rate"]) == (5, 1, 0.2)
    [classes] = only("report_hourly_error_classes")
    assert (classes["error_class"], classes["calls"]) == ("timeout", 1)
    [latency] = only("report_hourly_latency")
    assert (latency["calls"], latency["p50_upper_ms"], latency["p99_upper_ms"]) == (5, 100, None)
    assert reporting.execute("SELECT count(*) AS n FROM report_attempts").fetchall() == [{"n": 6}]


def test_durations_are_those_of_the_jobs(
    ledger: Ledger, reporting: psycopg.Connection[dict[str, Any]]
) -> None:
    ledger.db.execute(
        "INSERT INTO job_history (id, feature, capability, lane, priority, state, input, metadata, "
        "created_at, run_at, started_at, finished_at, run, retries, calls) "
        "SELECT gen_random_uuid(), 'cv_draft', 'text', 'standard', 0, 'succeeded', '{\"secret\": 1}', '{}', "
        "t, t, t + interval '2 s', t + n * interval '4 s', 1, 0, 1 "
        "FROM generate_series(1, 3) AS n, (SELECT %s::timestamptz AS t) AS begun",
        [HOUR - timedelta(days=1)],
    )
    [row] = reporting.execute("SELECT * FROM report_daily_job_durations").fetchall()
    assert (row["feature"], row["state"], row["jobs"]) == ("cv_draft", "succeeded", 3)
    assert (row["wait_seconds_avg"], row["run_seconds_max"], row["total_seconds_p50"]) == (2, 10, 8)
