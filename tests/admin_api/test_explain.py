"""Explain: the same answer that a worker would act on."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.admin_api.conftest import Api, Json, People
from tests.admin_api.nouns import KEY, assigned, model_body, provider_body


def explained(api: Api, assignment: Json, question: Json | None = None) -> Json:
    answer = api.post(f"/feature-assignments/{assignment['id']}/explain", question or {})
    assert answer.status_code == 200, answer.text
    found: Json = answer.json()
    return found


def verdicts(found: Json) -> dict[str, str]:
    return {one["model"]: one["verdict"] for one in found["candidates"]}


def test_the_first_usable_target_wins_and_the_others_say_why_not(api: Api) -> None:
    first = api.made("/providers", provider_body("first", api_key=KEY))
    idle = api.made("/providers", provider_body("idle"))
    names: list[tuple[str, Json, dict[str, Any]]] = [
        ("tired", first, {}),
        ("old", first, {}),
        ("mute", first, {}),
        ("asleep", idle, {}),
        ("best", first, {"input_price_per_1k": "0.5", "default_parameters": {"top_p": 0.5}}),
        ("second", first, {}),
    ]
    models = {name: api.made("/models", model_body(of, name, **members)) for name, of, members in names}
    assignment = api.made(
        "/feature-assignments",
        {
            "feature_name": "tarot_reading",
            "targets": [{"model_id": models[name]["id"]} for name, _, _ in names],
            "parameters": {"temperature": 0.5},
            "prompt_template": {"system": "Brief.", "user": "Cards: {{ cards | join(', ') }}"},
        },
    )
    api.patch(f"/models/{models['tired']['id']}", {"is_active": False})
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    api.patch(f"/models/{models['old']['id']}", {"retires_at": yesterday.isoformat()})
    api.patch(f"/providers/{idle['id']}", {"is_active": False})
    found = explained(api, assignment, {"input": {"cards": ["The Fool", "The Star"]}})
    assert verdicts(found) == {
        "tired": "passed_over",
        "old": "passed_over",
        "mute": "wins",
        "asleep": "passed_over",
        "best": "backup",
        "second": "backup",
    }
    reasons = {one["model"]: one["reason"] for one in found["candidates"]}
    assert "inactive" in reasons["tired"]
    assert f"retired after {yesterday}" in reasons["old"]
    assert "'idle' is inactive" in reasons["asleep"]
    assert found["winner"]["model"] == "mute"
    assert any("no price" in note for note in found["winner"]["notes"])
    assert found["prompt"] == {
        "system": "Brief.",
        "user": "Cards: The Fool, The Star",
        "texts": [],
        "voice": None,
    }
    best = next(one for one in found["candidates"] if one["model"] == "best")
    assert best["parameters"] == {"top_p": 0.5, "temperature": 0.5}
    assert (best["access"], best["input_price_per_1k"], best["notes"]) == ("AVAILABLE_SHARED", "0.5", [])
    assert KEY not in str(found)


def test_access_is_the_callers_or_the_named_admins(api: Api, people: People) -> None:
    provider = api.made("/providers", provider_body(allow_shared_for_normal_admins=False))
    model = api.made("/models", model_body(provider))
    assignment = api.made("/feature-assignments", {"feature_name": "tarot_reading", "model_id": model["id"]})
    normal = people.admin("admin")
    ((admin_id,),) = people.run("SELECT id FROM admins WHERE role = 'admin'")
    assert explained(api, assignment)["winner"]["access"] == "AVAILABLE_SHARED"
    for found in (explained(normal, assignment), explained(api, assignment, {"as_admin_id": str(admin_id)})):
        assert found["winner"] is None
        assert found["candidates"][0]["error_class"] == "no_access"
    path = f"/feature-assignments/{assignment['id']}/explain"
    ((super_id,),) = people.run("SELECT id FROM admins WHERE role = 'super_admin'")
    assert normal.post(path, {"as_admin_id": str(super_id)}).status_code == 403
    assert normal.post(path, {"as_admin_id": str(admin_id)}).status_code == 200
    nobody = "01a20014-64af-763e-823e-5bdedc96b077"
    assert api.post(path, {"as_admin_id": nobody}).status_code == 422
    assert people.application().post(path, {}).status_code == 403


def test_input_feature_and_template_errors_are_told(api: Api) -> None:
    assignment = assigned(api, prompt_template={"user": "line one\n{{ 1 / (cards | length - 3) }}"})
    path = f"/feature-assignments/{assignment['id']}"
    example = explained(api, assignment)
    assert example["input"], "the example of the input schema"
    found = explained(api, assignment, {"input": {"cards": ["a", "b", "c"]}})
    assert found["winner"] is None
    assert "line 2" in found["prompt_error"]
    wrong = explained(api, assignment, {"input": {"cards": 7}})
    assert wrong["error"]["field"].startswith("input/cards")
    assert (wrong["winner"], wrong["prompt"], wrong["prompt_error"]) == (None, None, None)
    api.patch(path, {"is_active": False})
    asleep = explained(api, assignment)
    assert "inactive" in asleep["error"]["message"]
    assert asleep["candidates"] == []
    assert api.post(f"{path}/explain", {"input": []}).status_code == 422
    assert (
        api.post("/feature-assignments/01a20014-64af-763e-823e-5bdedc96b077/explain", {}).status_code == 404
    )


def test_an_open_breaker_passes_the_turn_on(api: Api, people: People) -> None:
    a, b = (api.made("/providers", provider_body(slug)) for slug in ("a", "b"))
    models = [api.made("/models", model_body(of, of["slug"]))["id"] for of in (a, b)]
    assignment = api.made(
        "/feature-assignments",
        {"feature_name": "tarot_reading", "model_id": models[0], "backup_model_id": models[1]},
    )
    for worker in ("w1", "w2"):
        people.run(_WORKER, [worker])
    people.run(
        "INSERT INTO worker_breakers (worker_id, provider_id, state) VALUES ('w1', %s, 'open')", [a["id"]]
    )
    found = explained(api, assignment)
    assert verdicts(found) == {"a": "wins", "b": "backup"}
    assert any("1 of 2" in note for note in found["winner"]["notes"])
    people.run(
        "INSERT INTO worker_breakers (worker_id, provider_id, state) VALUES ('w2', %s, 'open')", [a["id"]]
    )
    found = explained(api, assignment)
    assert verdicts(found) == {"a": "passed_over", "b": "wins"}
    assert "circuit breaker" in found["candidates"][0]["reason"]


_WORKER = """
INSERT INTO workers (id, lanes, threads, version, beat_seconds) VALUES (%s, ARRAY['standard'], 1, '1', 60)"""


def test_the_last_resort_prefers_defaults(api: Api) -> None:
    assignment = assigned(api, use_any_active_model=True)
    provider = api.made("/providers", provider_body())
    for name, members in (("x", {}), ("y", {"is_default": True}), ("z", {"retires_at": "2020-01-01"})):
        api.made("/models", model_body(provider, name, **members))
    found = explained(api, assignment)
    assert [one["model"] for one in found["candidates"]] == ["m0", "y", "x"]
    assert "last resort" in found["candidates"][1]["notes"][0]


def test_a_price_comes_into_force_without_any_write(api: Api) -> None:
    assignment = assigned(api)
    soon = datetime.now(UTC) + timedelta(seconds=2)
    model = f"/models/{assignment['model_id']}"
    api.patch(model, {"input_price_per_1k": "1"})
    made = api.post(f"{model}/prices", {"valid_from": soon.isoformat(), "input_price_per_1k": "2"})
    assert made.status_code == 201, made.text
    before = explained(api, assignment)
    assert before["winner"]["input_price_per_1k"] == "1"
    deadline = time.monotonic() + 15
    while (found := explained(api, assignment))["winner"]["input_price_per_1k"] == "1":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert found["winner"]["input_price_per_1k"] == "2"
    assert datetime.now(UTC) >= soon
    assert found["config_version"] == before["config_version"]
    assert api.get(model).json()["input_price_per_1k"] == "2"
