"""Usage: figures, charts, groups and calls of a period, and their CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from admin_api.pages.usage_figures import figures
from admin_api.usage import Latency, Sums
from store.settings import Settings
from tests.admin_api.conftest import People
from tests.admin_api.logins import Person, audited
from tests.admin_api.pages.conftest import Browse, Browser, said
from tests.usage_rows import Ledger, call

Serve = Callable[..., httpx.Client]

NOW = datetime.now(UTC)
ARABIC = "مستخدم"
EVIL = "<script>alert(1)</script>"


@pytest.fixture
def reader(browse: Browse, admin: Person) -> Browser:
    """An admin at a browser: the page writes nothing."""
    return browse().entered(admin)


@pytest.fixture
def ledger(settings: Settings) -> Iterator[Ledger]:
    ledger = Ledger(settings)
    yield ledger
    ledger.close()


def rows(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text)))


def test_where_nothing_was_called_it_says_what_to_do(reader: Browser) -> None:
    answer = reader.get("/usage")
    assert answer.status_code == 200
    shown = said(answer)
    assert "Nothing was called" in shown
    assert "No call has been counted yet." in shown
    assert 'method="post" action="/usage' not in answer.text


def test_figures_charts_groups_and_calls_are_those_of_the_period(reader: Browser, ledger: Ledger) -> None:
    week = NOW - timedelta(days=7)
    ledger.record(
        *(call(cost_usd="0.25") for _ in range(3)),
        call(outcome="failed", error_class="timeout", cost_usd="0.5", provider="other"),
        call(cost_usd=None, tokens_estimated=True, failover=True),
        call(cost_usd="1", finished_at=week),
        call(cost_usd="7", finished_at=week - timedelta(days=7, hours=2)),
    )
    answer = reader.get("/usage")
    shown = said(answer)
    for words in (
        "Cost ↑ 25 % , up 25 % from the period before $1.25 $312.50 per 1,000 calls, without 1 unpriced",
        "Calls ↑ 400 % , up 400 % from the period before 5",
        "Error rate ↑ 20.0 points , up 20.0 points from the period before 20 % 1 failed",
        "Failovers ↑ new , none in the period before 1",
        "Wasted ↑ new , none in the period before $0.50",
        "Unpriced calls ↑ new , none in the period before 1",
        "1 calls estimated",
        "timeout 1",
        "Counted up to",
        "By provider",
    ):
        assert words in shown, words
    for chart in ("Cost by provider", "Calls by outcome", "Latency"):
        assert f'aria-label="{chart}.' in answer.text
    assert re.search(r"<th>[\d-]+<td>\$0.75<td>\$0.50", answer.text), "today's cost, by provider"
    assert 'href="/usage?by=model&amp;provider=other"' in answer.text


@pytest.mark.parametrize(("days", "points"), [(1, 24), (7, 7), (30, 30), (90, 13)])
def test_each_period_has_its_points(reader: Browser, ledger: Ledger, days: int, points: int) -> None:
    ledger.record(call())
    found = rows(reader.get(f"/usage/charts/calls.csv?days={days}").text)
    assert found[0] == ["time", "succeeded", "failed"]
    assert points <= len(found) - 1 <= points + (days == 90)
    assert [line[1] for line in found[1:]][-1] == "1"
    assert reader.get(f"/usage?days={days}").status_code == 200


def test_links_narrow_and_widen_what_is_counted(reader: Browser, ledger: Ledger) -> None:
    ledger.record(call(provider="acme"), call(provider="acme"), call(provider="other"))
    narrowed = reader.get("/usage?by=model&provider=acme")
    assert "Calls ↑ new , none in the period before 2 " in said(narrowed)
    assert re.search(r'href="/usage\?by=model"><span class="sr">Take away: </span>provider', narrowed.text)
    assert "Nothing fits" in said(reader.get("/usage?provider=nobody"))
    for by in ("feature", "user", "hour", "day"):
        assert f"By {by}" in said(reader.get(f"/usage?by={by}"))


def test_calls_are_filtered_and_paged(reader: Browser, ledger: Ledger) -> None:
    ledger.record(
        *(call(user_id=f"u{number}", finished_at=NOW - timedelta(minutes=number)) for number in range(9)),
        call(outcome="failed", error_class="rate_limit", user_id=ARABIC),
        call(outcome="failed", error_class="overloaded", called=False, breaker="open", user_id=EVIL),
    )
    first = reader.get("/usage")
    assert f'<small dir="auto">{ARABIC}</small>' in first.text
    assert EVIL not in first.text
    assert "passed over" in said(first)
    [older] = re.findall(r'href="([^"]*cursor=[^"#]*)#calls"', first.text)
    assert "u5" in said(reader.get(older.replace("&amp;", "&")))
    failed = said(reader.get("/usage?outcome=failed&error_class=rate_limit&user_id=&job_id="))
    assert ARABIC in failed
    assert "u1" not in failed
    assert "No such call" in said(reader.get("/usage?user_id=nobody"))
    assert "This is no cursor of this list" in said(reader.get("/usage?cursor=x"))


def test_what_makes_no_sense_is_told_at_its_field(reader: Browser, ledger: Ledger) -> None:
    ledger.record(call())
    page = reader.get("/usage?job_id=nonsense&days=5&by=planet")
    assert page.status_code == 200
    assert re.search(r'id="job_id"[^>]*aria-invalid="true" aria-describedby="job_id-error"', page.text)
    assert 'id="job_id-error"' in page.text
    for name in ("days", "by"):
        assert f"{name}: " in said(page)
    assert 'aria-current="true">7 days' in page.text


def test_csv_is_safe_and_audited(reader: Browser, ledger: Ledger, people: People) -> None:
    ledger.record(
        call(provider="=cmd()", user_id="@u", cost_usd="0.5"), call(finished_at=NOW - timedelta(days=20))
    )
    calls = reader.get("/usage/export.csv?days=7")
    assert calls.headers["content-type"] == "text/csv; charset=utf-8"
    head, *lines = rows(calls.text)
    [line] = [dict(zip(head, each, strict=True)) for each in lines]
    assert (line["provider"], line["user_id"], line["cost_usd"]) == ("'=cmd()", "'@u", "0.5")
    assert rows(reader.get("/usage/charts/cost.csv").text)[0] == ["time", "'=cmd()"]
    groups = rows(reader.get("/usage/charts/groups.csv?by=user").text)
    assert dict(zip(*groups, strict=True))["user"] == "'@u"
    assert reader.get("/usage/charts/planets.csv").status_code == 404
    assert audited(people).count(("export", None)) == 3


def test_csv_is_for_who_may_read(browse: Browse) -> None:
    for path in ("/usage", "/usage/export.csv", "/usage/charts/cost.csv"):
        assert browse().get(path).headers["location"].startswith("/login")


def _sums(**members: Any) -> Sums:
    counts = {name: 0 for name, field in Sums.model_fields.items() if field.annotation in (int, float)}
    nothing: dict[str, Any] = {
        "cost_usd": "0",
        "wasted_usd": "0",
        "success_rate": None,
        "error_rate": None,
        "errors": {},
    }
    latency = Latency(**dict.fromkeys(Latency.model_fields))
    return Sums(**{**counts, **nothing, "latency_ms": latency, **members})


@pytest.mark.parametrize(
    ("now", "before", "words"),
    [
        (0, 0, None),
        (5, 0, "none in the period before"),
        (1000, 1001, "as much as in the period before"),
        (50, 100, "down 50 % from the period before"),
        (150, 100, "up 50 % from the period before"),
        (5000, 100, "up 50 times from the period before"),
        (0, 9, "down 100 % from the period before"),
    ],
)
def test_changes_are_told_in_words(now: int, before: int, words: str | None) -> None:
    found = {each.label: each for each in figures(_sums(calls=now), _sums(calls=before))}
    change = found["Calls"].change
    assert (change and change.words) == words
