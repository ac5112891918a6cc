"""Assignments: targets in two forms, prompts in versions."""

from __future__ import annotations

from tests.admin_api.conftest import Api, Json, People
from tests.admin_api.nouns import assigned, model_body, provider_body


def models(api: Api, count: int = 3, **members: object) -> list[str]:
    provider = api.made("/providers", provider_body())
    return [api.made("/models", model_body(provider, f"m{n}", **members))["id"] for n in range(count)]


def targets_of(assignment: Json) -> list[str]:
    targets = assignment["targets"]
    assert [target["position"] for target in targets] == list(range(len(targets)))
    ids = [target["model_id"] for target in targets]
    assert assignment["model_id"] == ids[0]
    assert assignment["backup_model_id"] == (ids[1] if len(ids) > 1 else None)
    return ids


def test_targets_have_two_forms(api: Api) -> None:
    a, b, c = models(api)
    short = {"feature_name": "tarot_reading", "model_id": a, "backup_model_id": b}
    made = api.post("/feature-assignments", short)
    assert made.status_code == 201
    assert targets_of(made.json()) == [a, b]
    path = f"/feature-assignments/{made.json()['id']}"
    assert api.get(path).json() == made.json()

    listed = [{"model_id": c, "position": 1}, {"model_id": a, "position": 0}, {"model_id": b, "position": 2}]
    assert targets_of(api.patch(path, {"targets": listed}).json()) == [a, c, b]
    assert targets_of(api.patch(path, {"backup_model_id": None}).json()) == [a, b]
    assert targets_of(api.patch(path, {"model_id": c}).json()) == [c, b]
    assert targets_of(api.patch(path, {"model_id": b, "backup_model_id": c}).json()) == [b, c]
    assert targets_of(api.patch(path, {"max_retries": 1}).json()) == [b, c]
    clash = api.patch(path, {"model_id": c})
    assert (clash.status_code, clash.json()["errors"][0]["field"]) == (422, "model_id")
    whole = api.get(path).json()
    assert targets_of(api.put(path, whole).json()) == [b, c]
    assert targets_of(api.put(path, {"feature_name": "tarot_reading", "model_id": a}).json()) == [a]
    assert api.delete(path).status_code == 204
    assert api.get(path).status_code == 404


def test_a_bad_field_is_named(api: Api) -> None:
    a, b, _ = models(api)
    deaf = api.made(
        "/models", model_body(api.get("/providers").json()["items"][0], "x", capabilities=["speech"])
    )
    tired = api.made("/models", model_body(api.get("/providers").json()["items"][0], "y", is_active=False))
    base = {"feature_name": "tarot_reading", "model_id": a}
    unknown = "01a20014-64af-763e-823e-5bdedc96b077"
    cases: list[tuple[Json, str]] = [
        ({"feature_name": "nothing"}, "feature_name"),
        ({"model_id": None}, "model_id"),
        ({"model_id": unknown}, "model_id"),
        ({"model_id": deaf["id"]}, "model_id"),
        ({"model_id": tired["id"]}, "model_id"),
        ({"backup_model_id": unknown}, "backup_model_id"),
        ({"backup_model_id": a}, "backup_model_id"),
        ({"targets": [{"model_id": b}]}, "model_id"),
        ({"targets": [{"model_id": a}, {"model_id": unknown}]}, "targets/1/model_id"),
        ({"targets": [{"model_id": a}, {"model_id": a}]}, "targets/1/model_id"),
        ({"targets": [{"model_id": a, "position": 1}]}, "targets"),
        ({"targets": [{"model_id": a, "weight": -1}]}, "targets/0/weight"),
        ({"targets": [{"model_id": a, "conditions": {"moon": "full"}}]}, "targets/0/conditions/moon"),
        (
            {"targets": [{"model_id": a, "conditions": {"budget_burn_percent": 101}}]},
            "targets/0/conditions/budget_burn_percent",
        ),
        ({"targets": [{"model_id": a, "weight": 0}], "strategy": "weighted"}, "targets"),
        ({"strategy": "by mood"}, "strategy"),
        ({"max_retries": 21}, "max_retries"),
        ({"timeout_seconds": -1}, "timeout_seconds"),
        ({"parameters": {"temprature": 1}}, "parameters"),
        ({"prompt_template": {"user": "{{ cards"}}, "prompt_template/user"),
        ({"prompt_template": {"system": "ok\n{% if %}"}}, "prompt_template/system"),
    ]
    for members, field in cases:
        refused = api.post("/feature-assignments", base | members)
        assert refused.status_code == 422, members
        assert refused.json()["errors"][0]["field"] == field, refused.text
    assert "line 2" in refused.json()["detail"]
    assert api.get("/feature-assignments").json()["items"] == []


def test_a_protocol_must_speak_the_capability(api: Api) -> None:
    provider = api.made("/providers", provider_body(type="anthropic"))
    model = api.made("/models", model_body(provider, capabilities=["speech"]))
    refused = api.post("/feature-assignments", {"feature_name": "daily_zodiac_tts", "model_id": model["id"]})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["field"] == "model_id"


def test_a_feature_has_one_assignment_and_an_assignment_one_feature(api: Api) -> None:
    assignment = assigned(api)
    again = api.post("/feature-assignments", {k: assignment[k] for k in ("feature_name", "model_id")})
    assert again.status_code == 409
    assert again.json()["errors"][0]["field"] == "feature_name"
    path = f"/feature-assignments/{assignment['id']}"
    assert api.patch(path, {"feature_name": "cv_draft"}).status_code == 422
    assert api.get(path).json() == assignment


def test_prompts_are_kept_in_versions(api: Api, people: People) -> None:
    assignment = assigned(api, prompt_template={"system": "Be brief.", "user": "Cards: {{ cards }}"})
    path = f"/feature-assignments/{assignment['id']}"

    def version(change: Json) -> object:
        prompt = api.patch(path, change).json()["prompt_template"]
        return prompt and prompt["version"]

    assert assignment["prompt_template"] == {
        "system": "Be brief.",
        "user": "Cards: {{ cards }}",
        "version": 1,
    }
    assert version({"max_retries": 0}) == 1
    assert version({"prompt_template": {"user": "{{ cards }}"}}) == 2
    assert api.get(path).json()["prompt_template"]["system"] == "Be brief."
    assert version({"prompt_template": None}) is None
    assert version({"prompt_template": {"user": "again"}}) == 3
    kept = people.run("SELECT version, system_template, user_template FROM prompt_templates ORDER BY version")
    assert kept == [
        (1, "Be brief.", "Cards: {{ cards }}"),
        (2, "Be brief.", "{{ cards }}"),
        (3, None, "again"),
    ]


def test_lists_can_be_narrowed(api: Api) -> None:
    for feature in ("tarot_reading", "cv_draft"):
        assigned(api, feature, models=2, prompt_template={"user": feature})
    listed = api.get("/feature-assignments").json()["items"]
    assert [item["feature_name"] for item in listed] == ["tarot_reading", "cv_draft"]
    assert [len(targets_of(item)) for item in listed] == [2, 2]
    (one,) = api.get("/feature-assignments", params={"feature": "cv_draft"}).json()["items"]
    assert one == listed[1]


def test_targets_have_weights_and_conditions(api: Api) -> None:
    made = assigned(api, models=3, strategy="weighted")
    first, second, third = (target["model_id"] for target in made["targets"])
    assert {target["weight"] for target in made["targets"]} == {1}
    path = f"/feature-assignments/{made['id']}"
    wanted = [
        {"model_id": first, "weight": 9, "conditions": {"plan": "premium"}},
        {"model_id": second, "weight": 0.5},
    ]

    changed = api.patch(path, {"targets": wanted}).json()
    swapped = api.patch(path, {"model_id": third}).json()

    assert [target["weight"] for target in changed["targets"]] == [9, 0.5]
    assert changed["targets"][0]["conditions"] == {"plan": "premium", "budget_burn_percent": None}
    assert [(target["model_id"], target["weight"]) for target in swapped["targets"]] == [
        (third, 1),
        (second, 0.5),
    ]
    back = api.post(f"{path}/rollback", {"version": 2}).json()
    assert back["targets"] == changed["targets"]
