"""Features and their schemas."""

from __future__ import annotations

from tests.admin_api.conftest import Api, Json, People
from tests.admin_api.nouns import assigned, feature_body

SCHEMA: Json = {
    "type": "object",
    "properties": {"name": {"$ref": "#/$defs/name"}},
    "required": ["name"],
    "$defs": {"name": {"type": "string", "minLength": 1}},
    "example": {"name": "Ada"},
}


def test_a_feature_lives_its_life(api: Api) -> None:
    made = api.post("/features", feature_body(input_schema=SCHEMA, category="chat"))
    assert made.status_code == 201
    assert made.json()["input_schema"] == SCHEMA
    assert api.get("/features/greeting").json() == made.json()
    assert api.patch("/features/greeting", {"lane": "batch"}).json()["lane"] == "batch"
    replaced = api.put("/features/greeting", {"capability": "speech", "lane": "standard"}).json()
    assert (replaced["name"], replaced["input_schema"], replaced["category"]) == ("greeting", {}, None)
    assert api.put("/features/greeting", made.json()).json()["input_schema"] == SCHEMA
    assert api.delete("/features/greeting").status_code == 204
    assert api.get("/features/greeting").status_code == 404


def test_a_bad_field_is_named(api: Api) -> None:
    cases: list[tuple[Json, str]] = [
        ({"name": "Not A Name"}, "name"),
        ({"capability": "telepathy"}, "capability"),
        ({"lane": "fast"}, "lane"),
        ({"input_schema": {"type": "objekt"}}, "input_schema/type"),
        ({"input_schema": {"properties": {"a": {"pattern": "("}}}}, "input_schema/properties/a/pattern"),
        ({"input_schema": []}, "input_schema"),
        ({"input_schema": {"$ref": "http://127.0.0.1:9/schema"}}, "input_schema"),
        ({"input_schema": {"$ref": "#/$defs/missing"}}, "input_schema"),
        ({"input_schema": {"$ref": "#"}}, "input_schema"),
        ({"input_schema": SCHEMA | {"example": {"name": 7}}}, "input_schema/example/name"),
        ({"input_schema": SCHEMA | {"example": {}}}, "input_schema/example/name"),
        ({"output_schema": {"type": 1}}, "output_schema/type"),
    ]
    for members, field in cases:
        refused = api.post("/features", feature_body() | members)
        assert refused.status_code == 422, members
        assert refused.json()["errors"][0]["field"] == field
    assert api.get("/features/greeting").status_code == 404


def test_a_name_is_taken_once_and_kept(api: Api) -> None:
    refused = api.post("/features", feature_body("tarot_reading"))
    assert refused.status_code == 409
    assert refused.json()["errors"][0]["field"] == "name"
    renamed = api.patch("/features/tarot_reading", {"name": "cards"})
    assert renamed.status_code == 422
    assert renamed.json()["errors"][0]["field"] == "name"
    assert api.patch("/features/tarot_reading", {"name": "tarot_reading"}).status_code == 200


def test_built_in_features_can_be_sent_back_as_they_are(api: Api) -> None:
    listed = api.get("/features", params={"limit": 200}).json()["items"]
    assert len(listed) == 16
    for feature in listed:
        kept = api.put(f"/features/{feature['name']}", feature)
        assert kept.status_code == 200, kept.text
        assert kept.json()["input_schema"] == feature["input_schema"]


def test_lists_can_be_narrowed(api: Api) -> None:
    def listed(**params: str) -> set[str]:
        return {item["name"] for item in api.get("/features", params=params).json()["items"]}

    assert listed(capability="moderation") == {"content_moderation"}
    assert "chat_assistant" in listed(lane="interactive")
    assert listed(is_active="false") == set()


def test_a_feature_that_is_assigned_stays_or_is_deactivated(api: Api, people: People) -> None:
    api.made("/features", feature_body())
    assignment = assigned(api, "greeting", prompt_template={"user": "Hello"})
    refused = api.delete("/features/greeting")
    assert refused.status_code == 409
    assert refused.json()["assignments"] == [{"id": assignment["id"], "feature_name": "greeting"}]
    kept = api.delete("/features/greeting?deactivate=true")
    assert (kept.status_code, kept.json()["is_active"]) == (200, False)
    assert api.get("/features/greeting").json() == kept.json()
    api.delete(f"/feature-assignments/{assignment['id']}")
    assert api.delete("/features/greeting").status_code == 204
    assert api.get(f"/feature-assignments/{assignment['id']}").status_code == 404
    assert people.run("SELECT FROM prompt_templates") == []
