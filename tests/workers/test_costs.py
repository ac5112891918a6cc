"""Days that cost much more than usual are told of, once each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from store.database import Pool
from store.settings import Settings
from tests.usage_rows import Ledger, call
from workers import alerts


@pytest.fixture
def ledger(settings: Settings) -> Iterator[Ledger]:
    with closing(Ledger(settings)) as made:
        yield made


def spent(feature: str, usd: str, *, days_ago: int = 0) -> dict[str, Any]:
    """A call of this hour, some days ago."""
    at = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(days=days_ago)
    return call(feature=feature, cost_usd=usd, finished_at=at)


def raised(db: Pool, ledger: Ledger) -> list[tuple[str, str]]:
    with db.connection() as connection:
        alerts.raise_cost_anomalies(connection)
    found = ledger.db.execute("SELECT noun, noun_id FROM alerts WHERE kind = 'cost_anomaly' ORDER BY noun")
    return [(row["noun"], row["noun_id"]) for row in found]


@pytest.mark.parametrize(
    ("today", "before", "is_told"),
    [
        ("4.01", {1: "1.00", 7: "1.00"}, True),
        ("3.01", {1: "1.50", 2: "0.50"}, True),
        ("3.00", {1: "1.00"}, False),  # three times as much, and no more
        ("1.20", {1: "0.25"}, False),  # five times as much, and less than a dollar more
        ("9.00", {8: "1.00"}, False),  # too long ago to be usual
        ("9.00", {1: "0"}, False),  # what never cost anything has no usual
        ("3.01", {1: "1.00", 2: "0", 3: "0"}, True),  # days without costs do not count
    ],
)
def test_today_is_compared_with_the_same_hours_of_the_last_days(
    db: Pool, ledger: Ledger, today: str, before: dict[int, str], is_told: bool
) -> None:
    ledger.record(
        spent("cv_draft", today), *(spent("cv_draft", usd, days_ago=days) for days, usd in before.items())
    )
    expected = [("features", "cv_draft"), ("usage", "all")] if is_told else []
    assert raised(db, ledger) == expected


def test_a_feature_is_told_of_alone_and_once_a_day(db: Pool, ledger: Ledger) -> None:
    ledger.record(
        spent("cv_draft", "9"),
        spent("cv_draft", "1", days_ago=1),
        spent("chat_assistant", "90"),
        spent("chat_assistant", "90", days_ago=1),
    )
    assert raised(db, ledger) == [("features", "cv_draft")]
    [row] = ledger.db.execute("SELECT message FROM alerts").fetchall()
    assert "Calls of cv_draft cost $9.00 today, and usually $1.00" in row["message"]

    assert raised(db, ledger) == [("features", "cv_draft")]
    [row] = ledger.db.execute("SELECT count FROM alerts").fetchall()
    assert row["count"] == 1
    ledger.db.execute(
        "UPDATE alerts SET acknowledged_at = now(), "
        "last_seen_at = date_trunc('day', now(), 'UTC') - interval '2 h'"
    )
    assert raised(db, ledger) == [("features", "cv_draft")] * 2, "another day is another alert"
