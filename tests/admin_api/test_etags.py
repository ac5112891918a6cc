"""ETag, If-Match and If-None-Match: no update is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from admin_api import sessions
from admin_api.app import create_app
from admin_api.etags import _READERS
from store.settings import Settings
from tests.admin_api.conftest import Api, Json, People
from tests.admin_api.nouns import KEY, assigned, feature_body, model_body, provider_body

WRITES = {"PUT", "PATCH", "DELETE"}


def _provider(api: Api) -> str:
    odd = {"b": 1e22, "a": -0.0, "ccc": [1e-7, 1.50, 100.0], "z": {"ü": "x"}}
    body = provider_body(api_key=KEY, settings=odd, timeout_seconds=5)
    return f"/providers/{api.made('/providers', body)['id']}"


def _model(api: Api) -> str:
    provider = api.made("/providers", provider_body())
    body = model_body(provider, input_price_per_1k="0.00100", retires_at="2031-01-01")
    return f"/models/{api.made('/models', body)['id']}"


def _feature(api: Api) -> str:
    schema = {"type": "object", "properties": {"n": {"maximum": 1e3}}, "example": {"n": 2.0}}
    return f"/features/{api.made('/features', feature_body(input_schema=schema))['name']}"


def _assignment(api: Api) -> str:
    prompt = {"system": "Be brief.", "user": "{{ question }}"}
    made = assigned(api, models=2, prompt_template=prompt, parameters={"temperature": 1.0, "seed": 7})
    return f"/feature-assignments/{made['id']}"


def _integration(api: Api) -> str:
    body = {"name": "a", "type": "webhook", "endpoint": "https://example.com/", "settings": {}}
    return f"/integrations/{api.made('/integrations', body)['id']}"


def _admin(api: Api) -> str:
    body = {"email": "a@example.com", "role": "admin", "password": "canary-longer-than-that"}
    return f"/admins/{api.made('/admins', body)['id']}"


def _personal_key(api: Api) -> str:
    address = f"/personal-keys/{api.made('/providers', provider_body())['id']}"
    assert api.put(address, {"api_key": KEY}).is_success
    return address


NOUNS: dict[str, tuple[Callable[[Api], str], Json]] = {
    "/providers/{provider_id}": (_provider, {"name": "Other", "settings": {"y": 1e21, "x": 3.0}}),
    "/models/{model_id}": (_model, {"input_price_per_1k": "0.0020"}),
    "/features/{name}": (_feature, {"input_schema": {"type": "object", "maxProperties": 1e1}}),
    "/feature-assignments/{assignment_id}": (_assignment, {"backup_model_id": None}),
    "/integrations/{integration_id}": (_integration, {"category": "Other"}),
    "/admins/{admin_id}": (_admin, {"role": "super_admin"}),
    "/personal-keys/{provider_id}": (_personal_key, {"monthly_limit": 7}),
}


@pytest.mark.parametrize("path", NOUNS)
def test_an_update_is_made_of_what_was_read_or_not_at_all(api: Api, path: str) -> None:
    make, changes = NOUNS[path]
    address = make(api)
    first = api.get(address)
    stale = first.headers["etag"]
    assert api.get(address).headers["etag"] == stale

    allowed = api.call("TRACE", address).headers["allow"].split(", ")
    change = "PATCH" if "PATCH" in allowed else "PUT"

    changed = _write(api, change, address, changes, stale)
    assert changed.status_code == 200, changed.text
    fresh = changed.headers["etag"]
    assert fresh != stale
    assert api.get(address).headers["etag"] == fresh

    now = api.get(address).json()
    for method, body in (("PATCH", changes), ("PUT", first.json()), ("DELETE", None)):
        if method not in allowed:
            continue
        lost = _write(api, method, address, body, stale)
        assert lost.status_code == 412, lost.text
        assert lost.headers["content-type"] == "application/problem+json"
        assert lost.json()["errors"][0]["field"] == "If-Match"
    assert api.get(address).json() == now

    if {"PATCH", "PUT"} <= set(allowed):
        replaced = _write(api, "PUT", address, first.json(), f'"other", {fresh}')
        assert replaced.status_code == 200, replaced.text
        assert api.get(address).headers["etag"] == replaced.headers["etag"]
    again = _write(api, change, address, changes, "*")
    assert again.status_code == 200, again.text
    assert api.get(address).headers["etag"] == again.headers["etag"]


@pytest.mark.parametrize("path", ["/feature-assignments/{assignment_id}", "/personal-keys/{provider_id}"])
def test_where_nothing_is_nothing_is_matched(api: Api, path: str) -> None:
    """Nor made: the PUT of a personal key adds one where there is none."""
    address = NOUNS[path][0](api)
    body, tag = api.get(address).json(), api.get(address).headers["etag"]
    assert _write(api, "DELETE", address, None, tag).status_code == 204
    for expected in ("*", tag):
        assert _write(api, "PUT", address, {**body, "api_key": KEY}, expected).status_code == 404
    assert api.get(address).status_code == 404


@pytest.mark.parametrize("path", NOUNS)
def test_what_is_known_is_not_sent_again(api: Api, path: str) -> None:
    address = NOUNS[path][0](api)
    tag = api.get(address).headers["etag"]
    for known in (tag, f"W/{tag}", f'"x" ,, {tag}', "*"):
        answer = api.get(address, headers={"If-None-Match": known})
        assert answer.status_code == 304, known
        assert answer.content == b""
        assert answer.headers["etag"] == tag
    for unknown in ('"x"', tag.strip('"'), "", f"{tag} {tag}"):
        assert api.get(address, headers={"If-None-Match": unknown}).status_code == 200, unknown


def test_a_created_noun_has_its_tag(api: Api) -> None:
    made = api.post("/providers", provider_body())
    assert made.headers["etag"] == api.get(f"/providers/{made.json()['id']}").headers["etag"]


@pytest.mark.parametrize("header", ["x", '"a', 'a"', '"a" "b"', "**", "*, *", 'w/"a"', ",", "", '"a b"'])
def test_a_malformed_if_match_is_refused(api: Api, header: str) -> None:
    address = _provider(api)
    refused = _write(api, "PATCH", address, {"name": "Other"}, header)
    assert refused.status_code == 400
    assert "If-Match" in refused.json()["detail"]
    assert api.get(address).json()["name"] == "Acme"


def test_a_weak_tag_matches_no_write(api: Api) -> None:
    address = _provider(api)
    weak = f"W/{api.get(address).headers['etag']}"
    assert _write(api, "PATCH", address, {"name": "Other"}, weak).status_code == 412


def test_a_price_that_comes_into_force_is_a_change(api: Api, people: People) -> None:
    address = _model(api)
    before = api.get(address).headers["etag"]
    people.run("UPDATE model_prices SET input_price_per_1k = 7")
    assert api.get(address).headers["etag"] != before


def test_of_two_updates_at_once_one_is_made(api: Api) -> None:
    """The tag is compared under the writers' lock."""
    address = _provider(api)
    for turn in range(10):
        tag = api.get(address).headers["etag"]
        with ThreadPoolExecutor(2) as pool:
            sent = [
                pool.submit(_write, api, "PATCH", address, {"description": f"{turn}{who}"}, tag)
                for who in "ab"
            ]
        assert sorted(each.result().status_code for each in sent) == [200, 412]


def test_it_goes_with_an_idempotency_key(api: Api) -> None:
    """The repeated request is answered as it was, though its ETag is stale by now."""
    address = _provider(api)
    headers = {"If-Match": api.get(address).headers["etag"], "Idempotency-Key": "k"}
    first, second = (api.call("PATCH", address, {"name": "Other"}, headers=headers) for _ in range(2))
    assert first.status_code == second.status_code == 200
    assert first.headers["etag"] == second.headers["etag"]
    assert second.headers["idempotent-replayed"] == "true"


def test_a_refusal_tells_strangers_nothing(api: Api, people: People) -> None:
    address = _provider(api)
    assert _write(people.nobody(), "PATCH", address, {}, '"x"').status_code == 401
    assert _write(people.admin("admin"), "PATCH", address, {}, '"x"').status_code == 403


def test_every_address_that_is_changed_compares(settings: Settings, http: httpx.Client) -> None:
    """A new noun with a GET, and a PUT, PATCH or DELETE beside it, is tagged, and its writes compare."""
    app = create_app(settings)
    routes = list(_routes(app))
    paths = {route.path for route in routes if "GET" in (route.methods or ()) and route.path.endswith("}")}
    changed = [route for route in routes if WRITES & (route.methods or set()) and route.path in paths]
    assert len({route.path for route in changed}) >= 4
    for route in changed:
        assert route.path in _READERS, f"{route.path}: put @tagged below @allow at its GET"
        assert sessions._writing in _dependencies(route.dependant), route.path
    document = http.get("/openapi.json").json()
    for route in changed:
        operation = document["paths"][route.path if route.path.startswith("/api") else f"/api/v1{route.path}"]
        for method in route.methods or ():
            assert "If-Match" in {each["name"] for each in operation[method.lower()]["parameters"]}
        assert "304" in operation["get"]["responses"]
        assert "ETag" in operation["get"]["responses"]["200"]["headers"]


def _write(api: Api, method: str, address: str, body: Any, tag: str) -> httpx.Response:
    return api.call(method, address, body, headers={"If-Match": tag})


def _routes(app: FastAPI) -> Iterator[APIRoute]:
    waiting: list[Any] = list(app.routes)
    while waiting:
        route = waiting.pop()
        if isinstance(route, APIRoute):
            yield route
        waiting += getattr(getattr(route, "original_router", None) or route, "routes", [])


def _dependencies(dependant: Dependant) -> set[Any]:
    return {dependant.call}.union(*(_dependencies(each) for each in dependant.dependencies))
