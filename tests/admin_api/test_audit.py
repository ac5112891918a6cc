"""The audit log over HTTP: what each route leaves in it, who reads it, and that altering it is noticed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from store.ids import new_id
from tests.admin_api.conftest import Api, Json, People
from tests.admin_api.nouns import KEY, assigned, feature_body, model_body, provider_body


def entries(api: Api, **filters: Any) -> list[Json]:
    """What was done by people and programs, oldest first."""
    answer = api.get("/audit", params={"limit": 200, **filters})
    assert answer.status_code == 200, answer.text
    found: list[Json] = answer.json()["items"]
    return [entry for entry in found[::-1] if not entry["actor"].startswith("database ")]


def test_a_provider_from_its_first_day_to_its_last(api: Api) -> None:
    headers = {"X-Request-ID": "ticket-17"}
    made = api.post("/providers", provider_body(api_key=KEY), headers=headers).json()
    address = f"/providers/{made['id']}"
    api.patch(address, {"name": "Other", "api_key": KEY + "x"})
    api.patch(address, {"name": "Other"})
    api.patch(address, {"type": "nonsense"})
    api.delete(address)
    created, changed, deleted = entries(api)
    assert created["actor"].startswith("admin ")
    assert created["admin_id"] == made["created_by"]
    assert created["request_id"] == "ticket-17"
    assert (created["action"], created["noun"], created["noun_id"]) == ("create", "providers", made["id"])
    assert created["before"] is None
    assert created["after"]["slug"] == "acme"
    assert created["after"]["sealed_key"] == "(secret)"
    assert changed["action"] == "update"
    assert changed["before"] == {
        "name": "Acme", "key_last4": KEY[-4:], "sealed_key": "(secret)", "key_version": 1,
    }  # fmt: skip
    assert changed["after"] == {
        "name": "Other", "key_last4": KEY[-3:] + "x", "sealed_key": "(changed)", "key_version": 2,
    }  # fmt: skip
    assert deleted["action"] == "delete"
    assert deleted["before"]["name"] == "Other"
    assert deleted["after"] is None
    assert deleted["request_id"] not in (None, created["request_id"])


def test_an_assignment_shows_its_targets(api: Api) -> None:
    made = assigned(api, models=2)
    first, second = (target["model_id"] for target in made["targets"])
    address = f"/feature-assignments/{made['id']}"
    swapped = [{"model_id": second}, {"model_id": first}]
    api.patch(address, {"targets": swapped, "max_retries": 1})
    api.patch(address, {"prompt_template": {"user": "{{ question }}?"}})
    assert api.delete(address).status_code == 204
    created, changed, prompted, deleted = entries(api, noun="feature-assignments", noun_id=made["id"])

    def target(position: int, model_id: str) -> Json:
        return {"position": position, "model_id": model_id, "weight": 1, "conditions": {}}

    targets = [target(0, first), target(1, second)]
    assert created["after"]["targets"] == targets
    assert changed["before"] == {"targets": targets, "max_retries": 3}
    assert changed["after"] == {
        "targets": [target(0, second), target(1, first)],
        "max_retries": 1,
    }
    (prompt,) = entries(api, noun="prompt-templates", action="create")
    assert prompt["after"]["user_template"] == "{{ question }}?"
    assert prompted["after"] == {"prompt_template_id": prompt["noun_id"]}
    assert prompted["request_id"] == prompt["request_id"]
    assert deleted["action"] == "delete"
    assert [target["model_id"] for target in deleted["before"]["targets"]] == [second, first]


def test_models_prices_features_and_lanes(api: Api) -> None:
    provider = api.made("/providers", provider_body())
    model = api.made("/models", model_body(provider, input_price_per_1k="0.001"))
    api.patch(f"/models/{model['id']}", {"input_price_per_1k": "0.002"})
    api.made("/features", feature_body())
    api.put("/features/greeting", feature_body(lane="batch"))
    api.post("/queues/batch/pause")
    api.post("/queues/batch/pause")
    api.post("/queues/batch/resume")
    done = [(entry["action"], entry["noun"], entry["noun_id"]) for entry in entries(api)[1:]]
    assert done == [
        ("create", "models", model["id"]),
        ("update", "models", model["id"]),
        ("create", "features", "greeting"),
        ("update", "features", "greeting"),
        ("update", "queues", "batch"),
        ("update", "queues", "batch"),
    ]
    priced = entries(api, noun="models", action="update")[0]
    assert priced["after"]["prices"][0]["input_price_per_1k"] == 0.002
    paused = entries(api, noun="queues")[0]
    assert (paused["before"], paused["after"]) == ({"is_paused": False}, {"is_paused": True})


def test_what_was_refused_changed_nothing_and_left_nothing(api: Api, people: People) -> None:
    provider = api.made("/providers", provider_body())
    api.made("/models", model_body(provider))
    before = len(entries(api))
    assert api.delete(f"/providers/{provider['id']}").status_code == 409
    assert api.post("/providers", provider_body()).status_code == 409
    assert people.admin("admin").patch(f"/providers/{provider['id']}", {"name": "x"}).status_code == 403
    assert len(entries(api)) == before


def test_a_change_that_cannot_be_audited_is_not_made(api: Api, people: People) -> None:
    people.run("ALTER TABLE audit_log ADD CONSTRAINT no_room CHECK (noun <> 'providers')")
    assert api.post("/providers", provider_body()).status_code == 500
    assert api.get("/providers").json()["items"] == []


def test_a_repeated_request_is_audited_once(api: Api) -> None:
    for _ in range(2):
        api.post("/providers", provider_body(), headers={"Idempotency-Key": "k"})
    assert len(entries(api)) == 1


def test_cancelling_and_retrying_by_filter(api: Api, people: People) -> None:
    assigned(api)
    app = people.application()
    app.made("/jobs", {"feature": "tarot_reading", "input": {"cards": ["The Fool"]}})
    app.post("/jobs/cancel", {"filter": {"feature": "tarot_reading"}})
    api.post("/jobs/retry", {"filter": {"state": "cancelled"}})
    cancelled, retried = entries(api, noun="jobs")
    assert cancelled["actor"] == "application test"
    assert cancelled["action"] == "cancel"
    assert cancelled["after"]["filter"]["feature"] == "tarot_reading"
    assert retried["action"] == "retry"
    assert retried["actor"].startswith("admin ")
    assert retried["after"]["filter"]["state"] == "cancelled"


def test_the_list_is_filtered_and_paged(api: Api) -> None:
    for number in range(5):
        api.made("/features", feature_body(f"f{number}"))
        api.patch(f"/features/f{number}", {"category": "Other"})
    whole = entries(api)
    assert [entry["id"] for entry in whole] == sorted(entry["id"] for entry in whole)
    assert len(entries(api, action="update")) == 5
    assert [entry["action"] for entry in entries(api, noun="features", noun_id="f2")] == ["create", "update"]
    assert len(entries(api, actor=whole[0]["actor"])) == len(whole)
    assert entries(api, actor="nobody") == []
    middle = whole[4]
    assert entries(api, since=middle["at"]) == whole[4:]
    assert entries(api, until=middle["at"]) == whole[:4]
    assert entries(api, since=middle["at"], until=whole[6]["at"]) == whole[4:6]
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    assert entries(api, since=later) == []
    assert entries(api, until=later) == whole

    paged: list[Json] = []
    cursor: dict[str, str] = {}
    while True:
        page = api.get("/audit", params={"limit": 3, "noun": "features", **cursor}).json()
        paged += page["items"]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert paged == whole[::-1]


@pytest.mark.parametrize(
    "query",
    ["cursor=x", "cursor=WyItMSJd", "cursor=WyJcdTA2NjEiXQ", "cursor=WyI5OTk5OTk5OTk5OTk5OTk5OTk5OSJd",
     "since=yesterday", "since=2020-01-01", "until=0001-01-01T00:00:00Z", "actor=", "noun=%00", "limit=0",
     "nouns=providers"],
)  # fmt: skip
def test_a_question_that_is_none_is_refused(api: Api, query: str) -> None:
    assert api.get(f"/audit?{query}").status_code == 422


def test_one_row_is_read_by_its_id(api: Api) -> None:
    first = api.get("/audit").json()["items"][-1]
    assert api.get(f"/audit/{first['id']}").json() == first
    assert api.get("/audit/123456789").status_code == 404
    assert api.get("/audit/0").status_code == 422


def test_who_reads_it(people: People) -> None:
    for path in ("/audit", "/audit/verify"):
        assert people.admin("admin").get(path).status_code == 200
        assert people.admin(mfa=False).get(path).status_code == 200
        assert people.application().get(path).status_code == 403
        assert people.nobody().get(path).status_code == 401


def test_an_altered_row_is_named(api: Api, people: People) -> None:
    api.made("/providers", provider_body())
    ((last,),) = people.run("SELECT max(id) FROM audit_log")
    ok = api.get("/audit/verify").json()
    ((digest,),) = people.run("SELECT encode(last_hash, 'hex') FROM audit_head")
    assert ok == {"valid": True, "checked": last, "first_bad": None, "end": {"id": last, "hash": digest}}
    assert entries(api)[-1]["hash"] == digest

    people.run('UPDATE audit_log SET after = after || \'{"slug": "innocent"}\' WHERE id = %s', [last])
    bad = api.get("/audit/verify").json()
    assert bad["valid"] is False
    assert bad["first_bad"]["id"] == last
    assert "altered" in bad["first_bad"]["reason"]
    people.run("DELETE FROM audit_log WHERE id = %s", [last])
    assert "cut off" in api.get("/audit/verify").json()["first_bad"]["reason"]


def test_a_long_log_is_checked_while_it_grows(api: Api, people: People) -> None:
    people.run("SELECT audit_append('cli', NULL, 'x', 'x', NULL, NULL, NULL) FROM generate_series(1, 6000)")
    first = api.get("/audit/verify").json()
    people.run("SELECT audit_append('cli', NULL, 'x', %s, NULL, NULL, NULL)", [str(new_id())])
    second = api.get("/audit/verify").json()
    assert first["valid"]
    assert second["valid"]
    assert second["checked"] == first["checked"] + 1 > 6000
