"""Prices with dates: no two at once, none changed, those ahead removable."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from routing.resolver import resolve
from routing.snapshot import Snapshot
from routing.values import Price, PriceUnit, Request, Target
from tests.admin_api.conftest import Api, Json
from tests.admin_api.nouns import model_body, provider_body
from tests.routing import factories


def a_model(api: Api, **members: Any) -> str:
    return (
        f"/models/{api.made('/models', model_body(api.made('/providers', provider_body()), **members))['id']}"
    )


def at(**delta: float) -> str:
    return (datetime.now(UTC) + timedelta(**delta)).isoformat()


def test_prices_follow_each_other(api: Api) -> None:
    model = a_model(api, input_price_per_1k="1")
    later = api.made(f"{model}/prices", {"valid_from": at(days=2), "input_price_per_1k": "3"})
    soon = api.made(f"{model}/prices", {"valid_from": at(days=1), "input_price_per_1k": "2"})
    listed = api.get(f"{model}/prices").json()["items"]
    assert [one["input_price_per_1k"] for one in listed] == ["3", "2", "1"]
    assert [one["is_in_force"] for one in listed] == [False, False, True]
    assert [one["valid_until"] for one in listed] == [None, later["valid_from"], soon["valid_from"]]
    assert api.get(model).json()["input_price_per_1k"] == "1"
    now = api.made(
        f"{model}/prices",
        {"price_unit": "characters", "input_price_per_1k": 0, "batch_input_price_per_1k": 1},
    )
    assert (now["is_in_force"], now["valid_until"]) == (True, soon["valid_from"])
    shown = api.get(model).json()
    assert (shown["price_unit"], shown["input_price_per_1k"], shown["batch_input_price_per_1k"]) == (
        "characters",
        "0",
        "1",
    )
    assert shown["output_price_per_1k"] is None


def test_a_patch_of_a_price_starts_a_row_before_those_ahead(api: Api) -> None:
    model = a_model(api, input_price_per_1k="1")
    api.made(f"{model}/prices", {"valid_from": at(days=1), "input_price_per_1k": "9"})
    api.patch(model, {"input_price_per_1k": "2"})
    listed = api.get(f"{model}/prices").json()["items"]
    assert [one["input_price_per_1k"] for one in listed] == ["9", "2", "1"]
    assert [one["is_in_force"] for one in listed] == [False, True, False]


def test_only_prices_ahead_can_be_removed(api: Api) -> None:
    model = a_model(api, input_price_per_1k="1")
    ahead = api.made(f"{model}/prices", {"valid_from": at(days=1), "input_price_per_1k": "2"})
    twice = api.post(f"{model}/prices", {"valid_from": ahead["valid_from"], "input_price_per_1k": "3"})
    assert (twice.status_code, twice.json()["errors"][0]["field"]) == (409, "valid_from")
    assert api.delete(f"{model}/prices/{ahead['id']}").status_code == 204
    (kept,) = api.get(f"{model}/prices").json()["items"]
    assert kept["valid_until"] is None
    assert api.delete(f"{model}/prices/{kept['id']}").status_code == 409
    assert api.delete(f"{model}/prices/{ahead['id']}").status_code == 404


def test_a_bad_field_is_named(api: Api) -> None:
    model = a_model(api)
    cases: list[tuple[Json, str]] = [
        ({}, "input_price_per_1k"),
        ({"input_price_per_1k": -1}, "input_price_per_1k"),
        ({"input_price_per_1k": 1, "valid_from": "2027-01-01T00:00:00"}, "valid_from"),
        ({"input_price_per_1k": 1, "valid_from": "9999-01-01T00:00:00Z"}, "valid_from"),
        ({"input_price_per_1k": 1, "price_unit": "words"}, "price_unit"),
        ({"input_price_per_1k": 1, "colour": "red"}, "colour"),
    ]
    for body, field in cases:
        refused = api.post(f"{model}/prices", body)
        assert refused.status_code == 422, body
        assert refused.json()["errors"][0]["field"] == field
    assert api.get(f"{model}/prices", params={"cursor": "WyJ4Il0"}).status_code == 422


def test_prices_come_in_pages(api: Api) -> None:
    model = a_model(api)
    for day in range(5):
        api.made(f"{model}/prices", {"valid_from": at(days=day + 1), "input_price_per_1k": str(day)})
    seen: list[str] = []
    cursor = None
    while True:
        params = {"limit": 2} | ({} if cursor is None else {"cursor": cursor})
        page = api.get(f"{model}/prices", params=params).json()
        seen += [one["input_price_per_1k"] for one in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == ["4", "3", "2", "1", "0"]


_START = datetime(2026, 1, 1, tzinfo=UTC)


@given(days=st.lists(st.integers(0, 400), unique=True), asked=st.integers(0, 400))
def test_a_route_costs_what_holds_when_it_is_called(days: list[int], asked: int) -> None:
    """Given one configuration, when time passes, the newest price that has begun holds."""
    provider = factories.provider()
    model = factories.model(provider.id)
    feature = factories.feature()
    assignment = factories.assignment(feature_id=feature.id, targets=(Target(model.id),))
    snapshot = Snapshot(
        1,
        {feature.name: feature},
        {feature.id: assignment},
        {model.id: model},
        {provider.id: provider},
        {model.id: [Price(_START + timedelta(days=day), PriceUnit.TOKENS, None, None) for day in days]},
    )
    now = _START + timedelta(days=asked)
    (route,) = resolve(snapshot, Request(feature.name, {}), now=now).routes
    begun = [day for day in days if day <= asked]
    assert (route.price and route.price.valid_from) == (
        _START + timedelta(days=max(begun)) if begun else None
    )
