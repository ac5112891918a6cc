"""Statistics: what calls add up to, by any grouping, against the calls themselves."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import combinations
from typing import Any

import pytest

from store.settings import Settings
from tests.admin_api.conftest import Api, Json, People
from tests.clock import away_from_the_edges_of
from tests.usage_rows import Ledger, call

DIMENSIONS = ("provider", "model", "feature", "user", "hour", "day", "week")


def today() -> datetime:
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


@pytest.fixture(autouse=True)
def _one_day() -> None:
    away_from_the_edges_of(3600, least=15)


@pytest.fixture
def ledger(settings: Settings) -> Iterator[Ledger]:
    ledger = Ledger(settings)
    yield ledger
    ledger.close()


def stats(api: Api, query: str = "") -> Json:
    answer = api.get(f"/usage/stats{query}")
    assert answer.status_code == 200, answer.text
    found: Json = answer.json()
    return found


def any_calls(count: int) -> list[dict[str, Any]]:
    chance = random.Random(3)
    return [
        call(
            finished_at=today() - timedelta(hours=chance.randrange(1, 60)),
            provider=(provider := chance.choice(["acme", "other"])),
            model=f"{provider}-{chance.randrange(2)}",
            feature=chance.choice(["cv_draft", "tarot_reading"]),
            user_id=chance.choice(["u1", "u2", None]),
            outcome=(outcome := chance.choice(["succeeded", "succeeded", "failed"])),
            error_class="timeout" if outcome == "failed" else None,
            cost_usd=chance.choice(["0.001", "0.0000005", None]),
            input_tokens=chance.randrange(1000),
            latency_ms=chance.randrange(1, 5000),
            failover=chance.random() < 0.1,
        )
        for _ in range(count)
    ]


def key_of(one: dict[str, Any], by: tuple[str, ...]) -> tuple[Any, ...]:
    hour = one["finished_at"].replace(minute=0, second=0)
    values = {
        **{name: one[name] for name in ("provider", "model", "feature")},
        "user": one["user_id"],
        "hour": hour.isoformat().replace("+00:00", "Z"),
        "day": hour.date().isoformat(),
        "week": (hour.date() - timedelta(days=hour.weekday())).isoformat(),
    }
    return tuple(values[name] for name in by)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_any_grouping_adds_up_to_the_calls(size: int, api: Api, ledger: Ledger) -> None:
    calls = any_calls(120)
    ledger.record(*calls)
    for by in combinations(DIMENSIONS, size):
        groups: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
        for one in calls:
            groups[key_of(one, by)].append(one)
        found = stats(api, f"?group_by={','.join(by)}")
        assert found["group_by"] == list(by)
        assert not found["truncated"]
        assert {tuple(item[name] for name in by) for item in found["items"]} == groups.keys(), by
        for item in found["items"]:
            members = groups[tuple(item[name] for name in by)]
            assert set(DIMENSIONS) & item.keys() == set(by)
            _assert_sums(item, members)
        _assert_sums(found["totals"], calls)
        assert found["totals"]["latency_ms"]["p50"] is not None or set(by) <= {"user", "day", "week"}


def _assert_sums(shown: Json, calls: list[dict[str, Any]]) -> None:
    known = [Decimal(one["cost_usd"]) for one in calls if one["cost_usd"] is not None]
    failed = sum(one["outcome"] == "failed" for one in calls)
    assert shown["calls"] == shown["attempts"] == len(calls)
    assert (shown["failed"], shown["succeeded"]) == (failed, len(calls) - failed)
    assert shown["error_rate"] == round(failed / len(calls), 6)
    assert shown["input_tokens"] == sum(one["input_tokens"] for one in calls)
    assert Decimal(shown["cost_usd"]) == sum(known)
    assert shown["unpriced_calls"] == len(calls) - len(known)
    assert Decimal(shown["wasted_usd"]) == sum(
        Decimal(one["cost_usd"] or 0) for one in calls if one["outcome"] == "failed"
    )
    assert shown["failovers"] == sum(one["failover"] for one in calls)
    assert shown["estimated_calls"] == 0
    assert shown["latency_ms"]["max"] == max(one["latency_ms"] for one in calls)
    assert shown["errors"] in (None, {"timeout": failed} if failed else {})


@pytest.mark.parametrize(
    ("name", "value"), [("provider", "acme"), ("model", "acme-1"), ("feature", "cv_draft"), ("user_id", "u1")]
)
@pytest.mark.parametrize("by", ["provider", "user", "hour", "user,model"])
def test_filters_narrow_what_is_counted(name: str, value: str, by: str, api: Api, ledger: Ledger) -> None:
    calls = any_calls(120)
    ledger.record(*calls)
    chosen = [one for one in calls if one[name] == value]
    found = stats(api, f"?group_by={by}&{name}={value}")
    _assert_sums(found["totals"], chosen)
    assert sum(item["calls"] for item in found["items"]) == len(chosen)


def test_days_are_those_of_the_calendar_and_spans_are_rounded_to_what_is_kept(
    api: Api, ledger: Ledger
) -> None:
    now = datetime.now(UTC)
    ledger.record(
        call(finished_at=today()),
        call(finished_at=today() - timedelta(days=1)),
        call(finished_at=today() - timedelta(days=29)),
        call(finished_at=today() - timedelta(days=29, seconds=1)),
    )
    assert stats(api)["totals"]["calls"] == 3
    assert stats(api, "?days=1")["totals"]["calls"] == 1
    assert stats(api, "?days=2&group_by=user")["items"][0]["calls"] == 2
    half = (today() - timedelta(minutes=30)).strftime("%Y-%m-%dT%H:%M:%SZ")
    found = stats(api, f"?since={half}&group_by=hour")
    assert found["since"] == (today() - timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert datetime.fromisoformat(found["until"]) > now
    assert stats(api, f"?since={half}&group_by=user")["since"] == (today() - timedelta(days=1)).strftime(
        "%Y-%m-%dT%H:%M:%SZ"
    )


def test_the_busiest_users_come_first_and_the_totals_are_of_all(api: Api, ledger: Ledger) -> None:
    ledger.record(*(call(user_id=f"u{n}") for n in range(5) for _ in range(n + 1)))
    found = stats(api, "?group_by=user&limit=2")
    assert [item["user"] for item in found["items"]] == ["u4", "u3"]
    assert found["truncated"]
    assert found["totals"]["calls"] == 15


def test_users_are_ranked_by_exactly_the_days_asked_for(api: Api, ledger: Ledger) -> None:
    """Whole weeks are looked up as such: none of their days may be missed, or counted twice."""
    chance = random.Random(5)
    calls = [
        call(user_id=user, finished_at=today() - timedelta(days=chance.randrange(38)))
        for user in ("u1", "u2", "u3")
        for _ in range(150)
    ]
    ledger.record(*calls)
    for _ in range(60):
        begin = today() - timedelta(days=chance.randrange(1, 38))
        end = begin + timedelta(days=chance.randrange(1, 24))
        counts = dict.fromkeys(("u1", "u2", "u3"), 0)
        for one in calls:
            counts[one["user_id"]] += begin <= one["finished_at"] < end
        best = min((user for user in counts if counts[user]), key=lambda user: (-counts[user], user))
        span = f"since={begin:%Y-%m-%dT%H:%M:%SZ}&until={end:%Y-%m-%dT%H:%M:%SZ}"
        [item] = stats(api, f"?group_by=user&limit=1&{span}")["items"]
        assert (item["user"], item["calls"]) == (best, counts[best])


def test_the_newest_groups_are_shown_and_the_totals_are_of_all(api: Api, ledger: Ledger) -> None:
    ledger.record(
        *(call(finished_at=today() - timedelta(hours=n), provider=slug) for n in range(9) for slug in "abc"),
        call(finished_at=today(), provider="b"),
    )
    found = stats(api, "?group_by=hour,provider&limit=4")
    hours = [today(), today(), today(), today() - timedelta(hours=1)]
    assert [datetime.fromisoformat(item["hour"]) for item in found["items"]] == hours
    assert [item["provider"] for item in found["items"]] == ["b", "a", "c", "a"]
    assert found["truncated"]
    assert found["totals"]["calls"] == 28
    newest = stats(api, "?group_by=hour&limit=2")
    assert [item["calls"] for item in newest["items"]] == [4, 3]
    assert (newest["truncated"], newest["totals"]["calls"]) == (True, 28)
    exact = stats(api, "?group_by=hour,provider&limit=27")
    assert (len(exact["items"]), exact["truncated"]) == (27, False)


def test_where_nothing_was_called_everything_is_zero(api: Api) -> None:
    found = stats(api, "?group_by=provider")
    assert found["items"] == []
    assert found["totals"]["cost_usd"] == "0"
    assert found["totals"]["calls"] == 0
    assert found["totals"]["error_rate"] is None
    assert found["totals"]["latency_ms"] == dict.fromkeys(["avg", "p50", "p95", "p99", "max"])


@pytest.mark.parametrize(
    "query",
    [
        *("group_by=planet", "group_by=", "group_by=user;drop", "days=0", "days=367", "limit=1001", "x=1"),
        "since=2026-01-02T00:00:00Z&until=2026-01-01T00:00:00Z",
        "since=2026-01-02T00:00:00",
        "user_id=",
        "since=3026-01-01T00:00:00Z",
    ],
)
def test_a_query_that_makes_no_sense_is_refused(query: str, api: Api) -> None:
    answer = api.get(f"/usage/stats?{query}")
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["field"]


def test_admins_read_statistics_and_applications_do_not(people: People) -> None:
    assert people.admin("admin", mfa=False).get("/usage/stats").status_code == 200
    for path in ("/usage/stats", "/usage/attempts", "/usage/export.csv"):
        assert people.application("jobs:read", "metrics").get(path).status_code == 403
        assert people.nobody().get(path).status_code == 401
