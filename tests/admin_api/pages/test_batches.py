"""The page of batches: what it shows of them."""

from __future__ import annotations

import re

from store.ids import new_id
from tests.admin_api.conftest import Api, People
from tests.admin_api.pages.conftest import Browser, said


def test_each_batch_says_how_far_it_is(desk: Browser, people: People) -> None:
    for state, jobs, completed, failed, is_live, error in (
        ("submitted", 12, None, None, False, None),
        ("submitted", 36, 20, 4, False, None),
        ("over", 6, 3, 0, True, "The batch <i>expired</i>."),
    ):
        people.run(
            "INSERT INTO provider_batches (id, state, feature, provider_id, provider, model_row_id, model, "
            "jobs, config_version, assignment_id, key_version, live_at, sent_at, completed, failed, "
            "gone_live, error) VALUES (%s, %s, 'daily_zodiac_text', gen_random_uuid(), 'openai', "
            "gen_random_uuid(), 'gpt-6', %s, 1, gen_random_uuid(), 1, now() + interval '1 hour', now(), "
            "%s, %s, %s, %s)",
            [new_id(), state, jobs, completed, failed, is_live, error],
        )

    page = desk.get("/batches")

    meters = re.findall(
        r'<meter class="" min="0" max="(\d+)" value="(\d+)" aria-label="([^"<>]*)">', page.text
    )
    assert sorted(meters) == [
        ("12", "0", "Answered of daily_zodiac_text"),
        ("36", "24", "Answered of daily_zodiac_text"),
        ("6", "3", "Answered of daily_zodiac_text"),
    ]
    text = said(page)
    for told in ("not told yet", "4 failed", "none failed", "went live", "The batch <i>expired</i>."):
        assert told in text
    assert "<i>" not in page.text
    assert said(desk.get("/batches?state=over")).count("gpt-6") == 1
    assert "Nothing matches" in said(desk.get("/batches?state=ready"))


def test_without_batches_it_says_where_to_begin(desk: Browser, api: Api) -> None:
    page = desk.get("/batches")
    assert "No batch yet" in said(page)
    assert 'href="/schedules"' in page.text
    assert api.get("/batches").json()["items"] == []
