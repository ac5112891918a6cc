"""How many jobs an action on all that match would meet, before it is taken."""

from __future__ import annotations

from dataclasses import replace

import pytest

from store.database import Pool
from tests.rows import Rows
from tests.sandbox import Sandbox
from workers import matching
from workers.client import Client
from workers.matching import Action, Count
from workers.records import JobFilter
from workers.requests import Sender

TEXT = "daily_zodiac_text"
ANN = JobFilter(user_id="ann")


@pytest.mark.parametrize(
    ("action", "state", "jobs"),
    [
        ("cancel", None, 3),
        ("cancel", "queued", 3),
        ("cancel", "running", 0),
        ("cancel", "succeeded", 0),
        ("retry", None, 2),
        ("retry", "cancelled", 2),
        ("retry", "failed", 0),
        ("retry", "queued", 0),
    ],
)
def test_what_would_be_acted_on_is_counted(
    action: Action, state: str | None, jobs: int, client: Client, rows: Rows, sandbox: Sandbox, db: Pool
) -> None:
    rows.assign(TEXT, rows.model(rows.provider("primary", sandbox.openai), "text-1"), user="{{ sign }}")
    ids = [client.enqueue(TEXT, {"sign": "aries"}, user_id="ann") for _ in range(5)]
    client.enqueue(TEXT, {"sign": "leo"}, user_id="bob")
    client.cancel_many(ids[:2])
    filters = replace(ANN, state=state)
    assert matching.count(db, filters, action, most=1000) == Count(jobs, is_exact=True)
    assert matching.count(db, replace(filters, q="aries"), action, most=1000) == Count(jobs, is_exact=True)
    if jobs:
        assert matching.count(db, filters, action, most=jobs - 1) == Count(jobs - 1, is_exact=False)
        assert acted(client, db, filters, action) == jobs


def acted(client: Client, db: Pool, filters: JobFilter, action: Action) -> int:
    """On how many jobs the action is taken."""
    if action == "cancel":
        return matching.cancel_all(client, db, filters)
    return len(matching.retry_all(client, db, filters, Sender()).ids)
