"""Budgets over HTTP; what they hold back is in tests/promises and tests/workers."""

from __future__ import annotations

from typing import Any

import pytest

from tests.admin_api.conftest import Api, Json, People
from tests.admin_api.nouns import provider_body

CALL = """
INSERT INTO ai_usage_analytics (job_id, run, n, started_at, finished_at, feature, capability, lane, user_id,
    provider_id, outcome, called, cost_usd, input_tokens, output_tokens)
VALUES (gen_random_uuid(), 1, 1, now(), now(), %s, 'text', 'batch', %s,
    %s, 'succeeded', true, %s, 600, 400)"""


def budget_body(**members: Any) -> Json:
    return {"scope": "global", "limit_usd": "10", **members}


def test_a_budget_is_made_read_changed_and_deleted(api: Api) -> None:
    made = api.made("/budgets", budget_body(scope="feature", scope_id="tarot_reading", period="day"))

    assert made["limit_usd"] == "10"
    assert (made["action"], made["alert_percent"], made["is_active"]) == ("alert", [80, 100], True)
    assert made["spent"]["usd"] == "0"
    path = f"/budgets/{made['id']}"
    assert api.get(path).json()["scope_id"] == "tarot_reading"
    changed = api.patch(path, {"action": "defer", "alert_percent": [90, 50, 90]}).json()
    assert (changed["action"], changed["alert_percent"]) == ("defer", [50, 90])
    assert [one["id"] for one in api.get("/budgets").json()["items"]] == [made["id"]]
    assert api.delete(path).status_code == 204
    assert api.get(path).status_code == 404


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"limit_usd": None}, "limit_usd"),
        ({"limit_usd": "0"}, "limit_usd"),
        ({"limit_tokens": 0}, "limit_tokens"),
        ({"scope_id": "x"}, "scope_id"),
        ({"scope": "feature"}, "scope_id"),
        ({"scope": "feature", "scope_id": "no_such"}, "scope_id"),
        ({"scope": "provider", "scope_id": "no-such"}, "scope_id"),
        ({"scope": "team"}, "scope"),
        ({"period": "week"}, "period"),
        ({"action": "explode"}, "action"),
        ({"alert_percent": [0]}, "alert_percent/0"),
    ],
)
def test_what_is_wrong_is_named(api: Api, members: Json, field: str) -> None:
    refused = api.post("/budgets", budget_body(**members))

    assert refused.status_code == 422
    assert refused.json()["errors"][0]["field"] == field


def test_a_provider_is_named_by_slug_or_id(api: Api) -> None:
    provider = api.made("/providers", provider_body("acme"))

    for name in ("acme", provider["id"]):
        assert (
            api.made("/budgets", budget_body(scope="provider", scope_id=name))["scope_id"] == provider["id"]
        )


def test_a_new_budget_counts_what_its_period_has_cost_already(api: Api, people: People) -> None:
    """What the rollups hold and what they do not yet, and nothing twice."""
    provider = api.made("/providers", provider_body("acme"))["id"]
    people.run(CALL, ["tarot_reading", "ada", provider, "1.5"])
    people.run(CALL, ["cv_draft", None, provider, "2"])

    spent = {
        scope: api.made("/budgets", budget_body(scope=scope, scope_id=scope_id))["spent"]
        for scope, scope_id in (
            ("global", None),
            ("provider", "acme"),
            ("feature", "tarot_reading"),
            ("user", "ada"),
        )
    }

    assert {scope: (one["usd"], one["tokens"]) for scope, one in spent.items()} == {
        "global": ("3.5", 2000),
        "provider": ("3.5", 2000),
        "feature": ("1.5", 1000),
        "user": ("1.5", 1000),
    }
    people.run(CALL, ["tarot_reading", "ada", provider, "0.25"])
    assert [one["spent"]["usd"] for one in api.get("/budgets").json()["items"]] == [
        "3.75",
        "3.75",
        "1.75",
        "1.75",
    ]


def test_an_unknown_cost_is_told_of(api: Api, people: People) -> None:
    provider = api.made("/providers", provider_body("acme"))["id"]
    made = api.made("/budgets", budget_body())
    people.run(CALL, ["cv_draft", None, provider, None])

    spent = api.get(f"/budgets/{made['id']}").json()["spent"]

    assert (spent["usd"], spent["unpriced_calls"]) == ("0", 1)


def test_each_threshold_is_told_of_once_a_period(api: Api, people: People) -> None:
    provider = api.made("/providers", provider_body("acme"))["id"]
    hook = {"name": "hook", "type": "webhook", "endpoint": "https://hooks.example.com/x"}
    api.made("/integrations", hook)
    made = api.made("/budgets", budget_body(alert_percent=[50, 80, 100]))

    for cost in ("4", "2", "1", "1", "4"):
        people.run(CALL, ["cv_draft", None, provider, cost])

    told = people.run("SELECT content ->> 'percent', content ->> 'message' FROM notices ORDER BY made_at, 1")
    assert [percent for percent, _ in told] == ["50", "80", "100"]
    assert told[0][1] == "The budget of this month has reached 50 %: $6.0000 of $10. It stops nothing."
    (alert,) = api.get("/alerts").json()["items"]
    assert (alert["kind"], alert["noun_id"], alert["count"]) == ("budget", made["id"], 3)


def test_each_user_may_have_a_budget_of_his_own(api: Api, people: People) -> None:
    provider = api.made("/providers", provider_body("acme"))["id"]
    made = api.made("/budgets", budget_body(scope="user"))
    for user in ("ada", "ben", None):
        people.run(CALL, ["cv_draft", user, provider, "1"])

    assert made["spent"] is None
    counted = people.run("SELECT scope_id, usd FROM budget_usage ORDER BY 1")
    assert [(user, str(usd)) for user, usd in counted] == [("ada", "1"), ("ben", "1")]
