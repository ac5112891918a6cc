"""Attempts as pages and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from store.settings import Settings
from tests.admin_api.conftest import Api, Json
from tests.usage_rows import Ledger, call

NOW = datetime.now(UTC).replace(microsecond=0)


@pytest.fixture
def ledger(settings: Settings) -> Iterator[Ledger]:
    ledger = Ledger(settings)
    yield ledger
    ledger.close()


def pages(api: Api, query: str = "") -> list[Json]:
    """All attempts, page by page."""
    found: list[Json] = []
    cursor = ""
    while True:
        answer = api.get(f"/usage/attempts?limit=7{query}{cursor}")
        assert answer.status_code == 200, answer.text
        found += answer.json()["items"]
        if answer.json()["next_cursor"] is None:
            return found
        assert len(answer.json()["items"]) == 7
        cursor = f"&cursor={answer.json()['next_cursor']}"


def spread(count: int, **columns: Any) -> list[dict[str, Any]]:
    """Calls over twenty days, some of which ended at the same moment."""
    return [
        call(finished_at=NOW - timedelta(minutes=(place // 3) * 700 + 1), n=place, **columns)
        for place in range(count)
    ]


def ids(attempts: list[Json]) -> list[str]:
    return [attempt["job_id"] for attempt in attempts]


def test_pages_hold_each_attempt_once_newest_first(api: Api, ledger: Ledger) -> None:
    calls = spread(60)
    ledger.record(*calls)
    found = pages(api)
    assert len(found) == 60
    assert set(ids(found)) == {str(one["job_id"]) for one in calls}
    ended = [attempt["finished_at"] for attempt in found]
    assert ended == sorted(ended, reverse=True)
    assert found[0]["cost_usd"] == "0.01"


@pytest.mark.parametrize("is_counted", [True, False])
@pytest.mark.parametrize(
    ("query", "rare"),
    [
        ("provider=rare", {"provider": "rare"}),
        ("model=rare", {"model": "rare"}),
        ("feature=rare", {"feature": "rare"}),
        ("user_id=rare", {"user_id": "rare"}),
        ("error_class=quota", {"outcome": "failed", "error_class": "quota"}),
        ("outcome=superseded", {"outcome": "superseded"}),
        ("feature=rare&outcome=lost", {"feature": "rare", "outcome": "lost", "error_class": "connection"}),
    ],
)
def test_filters_find_the_rare_among_many(
    query: str, rare: dict[str, Any], is_counted: bool, api: Api, ledger: Ledger
) -> None:
    wanted = spread(23, **rare)
    ledger.record(*spread(40), *wanted, *spread(5, feature="rare", outcome="succeeded", provider="x"))
    if not is_counted:  # nobody has counted for a while: the rollup may not know of them
        ledger.db.execute("UPDATE usage_rollup SET counted_at = now() - interval '1 h'")
        ledger.db.execute("TRUNCATE usage_hourly")
    found = pages(api, f"&{query}")
    expected = {str(one["job_id"]) for one in wanted}
    assert expected <= set(ids(found))
    assert len(found) == len(set(ids(found)))
    if query != "feature=rare":
        assert set(ids(found)) == expected


def test_times_and_jobs_narrow_too(api: Api, ledger: Ledger) -> None:
    calls = spread(30)
    ledger.record(*calls)
    assert ids(pages(api, f"&job_id={calls[4]['job_id']}")) == [str(calls[4]["job_id"])]
    since, until = calls[20]["finished_at"], calls[10]["finished_at"]
    found = pages(api, f"&since={since:%Y-%m-%dT%H:%M:%SZ}&until={until:%Y-%m-%dT%H:%M:%SZ}")
    assert set(ids(found)) == {str(one["job_id"]) for one in calls if since <= one["finished_at"] < until}
    assert pages(api, "&provider=nobody") == []


@pytest.mark.parametrize("cursor", ["x", "W10", "WyJhIiwgImIiLCAxLCAxXQ", "bm9wZQ"])
def test_a_cursor_that_is_none_is_refused(cursor: str, api: Api) -> None:
    answer = api.get(f"/usage/attempts?cursor={cursor}")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "cursor"


def test_the_csv_holds_every_attempt_and_no_formula(api: Api, ledger: Ledger) -> None:
    evil = ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx", '"; =x', "a,b\nc", "\N{FULLWIDTH EQUALS SIGN}1"]
    calls = [*spread(20), *(call(user_id=user, error_message=f"{user}!") for user in evil)]
    ledger.record(*calls, call(cost_usd=None), call(finished_at=NOW - timedelta(days=35)))
    answer = api.get("/usage/export.csv")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"].startswith("attachment; filename=")
    assert answer.text.count("\r\n") == len(calls) + 2
    rows = list(csv.DictReader(io.StringIO(answer.text, newline="")))
    assert len(rows) == len(calls) + 1
    users = {row["user_id"] for row in rows}
    assert {'"; =x', "a,b\nc"} <= users
    assert {f"'{user}" for user in evil if user not in ('"; =x', "a,b\nc")} <= users
    assert all(not cell.startswith(tuple("=+-@\t\r")) for row in rows for cell in row.values())
    assert {row["cost_usd"] for row in rows} == {"0.01", ""}
    assert rows[0].keys() == api.get("/usage/attempts").json()["items"][0].keys()
    narrow = api.get("/usage/export.csv?days=1&user_id=%2B1")
    assert len(narrow.text.splitlines()) == 2


def test_an_export_is_audited(api: Api, ledger: Ledger) -> None:
    assert api.get("/usage/export.csv?provider=acme").status_code == 200
    [entry] = api.get("/audit?action=export").json()["items"]
    assert entry["noun"] == "usage"
    assert entry["after"]["provider"] == "acme"
    assert entry["actor"].startswith("admin ")
