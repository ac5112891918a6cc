"""Models and their prices."""

from __future__ import annotations

from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine

from tests.admin_api.conftest import Api, Json, People
from tests.admin_api.nouns import assigned, feature_body, model_body, provider_body

PRICED: Json = {"input_price_per_1k": "0.00015", "output_price_per_1k": 0.0006}


def prices_of(people: People, model: Json) -> list[Any]:
    return people.run(
        "SELECT input_price_per_1k::text, output_price_per_1k::text FROM model_prices WHERE model_id = %s "
        "ORDER BY valid_from",
        [model["id"]],
    )


def test_a_model_lives_its_life(api: Api) -> None:
    provider = api.made("/providers", provider_body())
    made = api.post("/models", model_body(provider, capabilities=["text", "vision"], **PRICED))
    assert made.status_code == 201
    model = made.json()
    assert (model["input_price_per_1k"], model["output_price_per_1k"]) == ("0.00015", "0.0006")
    path = f"/models/{model['id']}"
    assert api.get(path).json() == model

    changed = api.patch(path, {"context_window": 128_000}).json()
    assert changed["context_window"] == 128_000
    assert changed["input_price_per_1k"] == "0.00015"

    replaced = api.put(path, model_body(provider)).json()
    assert (replaced["context_window"], replaced["capabilities"]) == (None, ["text"])
    assert replaced["input_price_per_1k"] is None
    assert api.delete(path).status_code == 204
    assert api.get(path).status_code == 404


def test_other_names_of_members_are_taken(api: Api) -> None:
    provider = api.made("/providers", provider_body())
    body = {"provider_id": provider["id"], "model_name": "m", "model_version": "2", "name": "M"}
    model = api.made("/models", body)
    assert (model["model_id"], model["version"]) == ("m", "2")
    assert api.patch(f"/models/{model['id']}", {"model_name": "n"}).json()["model_id"] == "n"
    clash = api.post("/models", {**body, "model_id": "other"})
    assert clash.status_code == 422
    assert clash.json()["errors"][0]["field"] == "model_name"


def test_each_change_of_price_is_a_row(api: Api, people: People) -> None:
    provider = api.made("/providers", provider_body())
    model = api.made("/models", model_body(provider))
    path = f"/models/{model['id']}"
    assert prices_of(people, model) == []
    for price in ("0.1", 0.2, "0.3"):
        assert api.patch(path, {"input_price_per_1k": price}).json()["input_price_per_1k"] == str(price)
    api.patch(path, {"input_price_per_1k": 0.3, "name": "Same price"})
    assert prices_of(people, model) == [("0.1", None), ("0.2", None), ("0.3", None)]
    # A price that begins in this very instant, or seems to, is still replaced by the next.
    people.run("UPDATE model_prices SET valid_from = clock_timestamp() WHERE input_price_per_1k = 0.3")
    assert api.patch(path, {"input_price_per_1k": None}).json()["input_price_per_1k"] is None
    assert api.get(path).json()["input_price_per_1k"] is None


def test_a_bad_field_is_named(api: Api) -> None:
    provider = api.made("/providers", provider_body())
    cases: list[tuple[Json, str]] = [
        ({"provider_id": "01a20014-64af-763e-823e-5bdedc96b077"}, "provider_id"),
        ({"provider_id": 7}, "provider_id"),
        ({"input_price_per_1k": -1}, "input_price_per_1k"),
        ({"input_price_per_1k": "much"}, "input_price_per_1k"),
        ({"output_price_per_1k": "NaN"}, "output_price_per_1k"),
        ({"output_price_per_1k": "1e-13"}, "output_price_per_1k"),
        ({"price_unit": "words"}, "price_unit"),
        ({"capabilities": []}, "capabilities"),
        ({"context_window": 0}, "context_window"),
        ({"max_output_tokens": 2**31}, "max_output_tokens"),
        ({"retires_at": "soon"}, "retires_at"),
    ]
    for members, field in cases:
        refused = api.post("/models", model_body(provider) | members)
        assert refused.status_code == 422, members
        assert refused.json()["errors"][0]["field"] == field
    assert api.get("/models").json()["items"] == []


def test_a_provider_has_a_model_once(api: Api) -> None:
    provider = api.made("/providers", provider_body())
    api.made("/models", model_body(provider))
    refused = api.post("/models", model_body(provider))
    assert refused.status_code == 409
    assert refused.json()["errors"][0]["field"] == "model_id"


def test_models_of_many_providers_come_at_once(api: Api) -> None:
    for slug in ("a", "b", "c"):
        provider = api.made("/providers", provider_body(slug))
        api.made("/models", model_body(provider, f"{slug}-text", input_price_per_1k="1"))
        api.made("/models", model_body(provider, f"{slug}-speech", capabilities=["speech"], is_active=False))

    def listed(**params: Any) -> set[str]:
        return {item["model_id"] for item in api.get("/models", params=params).json()["items"]}

    assert listed(provider="a,c") == {"a-text", "a-speech", "c-text", "c-speech"}
    assert listed(provider="a,b,c", capability="speech") == {"a-speech", "b-speech", "c-speech"}
    assert listed(provider="b", is_active=True) == {"b-text"}
    assert listed(provider="nobody") == set()


def test_models_of_many_providers_cost_as_many_queries_as_of_one(api: Api) -> None:
    for slug in "abcde":
        provider = api.made("/providers", provider_body(slug))
        for n in range(4):
            api.made("/models", model_body(provider, f"m{n}", input_price_per_1k="1"))

    def queries(slugs: str) -> int:
        seen: list[str] = []

        def count(*arguments: Any) -> None:
            seen.append(arguments[2])

        event.listen(Engine, "before_cursor_execute", count)
        try:
            listed = api.get("/models", params={"provider": slugs, "limit": 200}).json()["items"]
        finally:
            event.remove(Engine, "before_cursor_execute", count)
        assert [one["input_price_per_1k"] for one in listed] == ["1"] * 4 * len(slugs.split(","))
        return sum("ai_models" in statement or "model_prices" in statement for statement in seen)

    assert queries("a") == queries("a,b,c,d,e") == 2, "the models, and their prices"


def test_a_model_in_use_stays_and_keeps_what_it_is_used_for(api: Api) -> None:
    assignment = assigned(api)
    path = f"/models/{assignment['model_id']}"
    refused = api.delete(path)
    assert refused.status_code == 409
    assert "tarot_reading" in refused.json()["detail"]
    narrowed = api.patch(path, {"capabilities": ["speech"]})
    assert narrowed.status_code == 422
    assert narrowed.json()["errors"][0]["field"] == "capabilities"
    assert api.patch(path, {"capabilities": ["text", "speech"]}).status_code == 200
    api.delete(f"/feature-assignments/{assignment['id']}")
    assert api.delete(path).status_code == 204


def test_features_keep_their_models_capability(api: Api) -> None:
    api.made("/features", feature_body())
    assigned(api, "greeting")
    refused = api.patch("/features/greeting", {"capability": "speech"})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["field"] == "capability"
