"""Versions of assignments: every state kept, and the way back."""

from __future__ import annotations

import pytest

from store.settings import Settings
from tests.admin_api.conftest import Api, Json, People
from tests.admin_api.nouns import assigned, model_body, provider_body


def versions(api: Api, assignment: Json, **params: object) -> list[Json]:
    answer = api.get(f"/feature-assignments/{assignment['id']}/versions", params=params)
    assert answer.status_code == 200, answer.text
    items: list[Json] = answer.json()["items"]
    return items


def test_every_saved_state_is_kept_with_who_and_what(api: Api, people: People) -> None:
    assignment = assigned(api, models=2, prompt_template={"user": "one"})
    path = f"/feature-assignments/{assignment['id']}"
    other = people.admin()
    other.patch(path, {"prompt_template": {"user": "two"}, "max_retries": 1})
    assert api.patch(path, {"max_retries": 1}).status_code == 200, "changes nothing"
    api.patch(path, {"backup_model_id": None})
    third, second, first = versions(api, assignment)
    assert [one["version"] for one in (first, second, third)] == [1, 2, 3]
    assert [one["is_current"] for one in (first, second, third)] == [False, False, True]
    assert first["changes"] == []
    assert {one["field"]: (one["before"], one["after"]) for one in second["changes"]} == {
        "max_retries": (3, 1),
        "prompt_template/user": ("one", "two"),
    }
    assert third["changes"] == [
        {
            "field": "targets",
            "before": ["p-tarot-reading/m0", "p-tarot-reading/m1"],
            "after": ["p-tarot-reading/m0"],
        }
    ]
    assert first["saved_by"] == third["saved_by"] == assignment["created_by"]
    assert second["saved_by"] not in (None, first["saved_by"])
    assert first["prompt_template"]["user"] == "one"
    assert first["settings"]["max_retries"] == 3


def test_versions_come_in_pages_with_their_changes(api: Api) -> None:
    assignment = assigned(api)
    path = f"/feature-assignments/{assignment['id']}"
    for retries in range(3):
        api.patch(path, {"max_retries": retries})
    page = api.get(f"{path}/versions", params={"limit": 2}).json()
    assert [(one["version"], one["changes"][0]["before"]) for one in page["items"]] == [(4, 1), (3, 0)]
    rest = api.get(f"{path}/versions", params={"limit": 2, "cursor": page["next_cursor"]}).json()
    assert [(one["version"], len(one["changes"])) for one in rest["items"]] == [(2, 1), (1, 0)]
    assert rest["next_cursor"] is None


def test_a_rollback_is_a_new_version_that_equals_the_old_one(api: Api, people: People) -> None:
    assignment = assigned(api, models=3, prompt_template={"user": "one"}, parameters={"temperature": 0.1})
    path = f"/feature-assignments/{assignment['id']}"
    api.patch(
        path,
        {
            "prompt_template": {"user": "two"},
            "parameters": {},
            "targets": [{"model_id": assignment["backup_model_id"]}],
            "is_active": False,
        },
    )
    back = api.post(f"{path}/rollback", {"version": 1})
    assert back.status_code == 200, back.text
    changing = {"updated_at", "updated_by"}
    assert {k: v for k, v in back.json().items() if k not in changing} == {
        k: v for k, v in assignment.items() if k not in changing
    }
    assert api.get(path).json() == back.json()
    ((old,), (new,)) = people.run(
        "SELECT state FROM assignment_versions WHERE version IN (1, 3) ORDER BY version"
    )
    assert old == new
    assert len(versions(api, assignment)) == 3
    again = api.post(f"{path}/rollback", {"version": 2}).json()
    assert (again["is_active"], again["prompt_template"]["user"]) == (False, "two")
    assert api.post(f"{path}/rollback", {"version": 99}).status_code == 404
    assert api.post(f"{path}/rollback", {"version": 0}).status_code == 422


def test_a_rollback_to_a_deleted_model_is_refused_by_name(api: Api) -> None:
    assignment = assigned(api, models=2)
    path = f"/feature-assignments/{assignment['id']}"
    api.patch(path, {"backup_model_id": None})
    assert api.delete(f"/models/{assignment['backup_model_id']}").status_code == 204
    refused = api.post(f"{path}/rollback", {"version": 1})
    assert refused.status_code == 409
    assert "p-tarot-reading/m1" in refused.json()["detail"]
    assert refused.json()["errors"][0]["field"] == "version"
    assert len(versions(api, assignment)) == 2


def test_a_rollback_that_would_break_says_so(api: Api) -> None:
    assignment = assigned(api, models=2)
    path = f"/feature-assignments/{assignment['id']}"
    api.patch(path, {"backup_model_id": None})
    api.patch(f"/models/{assignment['backup_model_id']}", {"capabilities": ["speech"]})
    refused = api.post(f"{path}/rollback", {"version": 1})
    assert refused.status_code == 409
    assert "capability" in refused.json()["detail"]


@pytest.mark.parametrize(
    "statement", ["UPDATE assignment_versions SET version = 9", "DELETE FROM assignment_versions"]
)
@pytest.mark.parametrize("role", ["orrery_api", "orrery_super_admin", "orrery_worker"])
def test_versions_are_immutable_by_grant(
    people: People, settings: Settings, role: str, statement: str
) -> None:
    with pytest.raises(Exception, match="permission denied"):
        people.run(f"SET ROLE {role}; {statement}")


def test_what_is_saved_past_the_api_is_a_version_too(api: Api, people: People) -> None:
    provider = api.made("/providers", provider_body())
    model = api.made("/models", model_body(provider))
    assignment = api.made("/feature-assignments", {"feature_name": "cv_draft", "model_id": model["id"]})
    people.run("UPDATE feature_ai_assignments SET max_retries = 7")
    assert [one["settings"]["max_retries"] for one in versions(api, assignment)] == [7, 3]
