"""GET /access: what the caller may use, as the access table says."""

from __future__ import annotations

import pytest

from tests.admin_api.conftest import Api, Json, People
from tests.admin_api.nouns import model_body, provider_body

OWN = "sk-canary-personal-5e0d11aa"


def accesses(api: Api) -> dict[tuple[str, str | None], str]:
    items = api.get("/access", params={"limit": 200}).json()["items"]
    return {(entry["provider"], entry["model"]): entry["access"] for entry in items}


@pytest.fixture
def nouns(api: Api) -> dict[str, Json]:
    """Providers that share or not, are active or not, with a model each, one of which is inactive."""
    made = {}
    for n, (shared, active) in enumerate([(True, True), (False, True), (True, False)]):
        body = provider_body(f"p{n}", allow_shared_for_normal_admins=shared, is_active=active, sort_order=-n)
        made[f"p{n}"] = api.made("/providers", body)
        api.made("/models", model_body(made[f"p{n}"], "m"))
    api.made("/models", model_body(made["p0"], "off", is_active=False))
    api.made("/models", model_body(made["p0"], "old", retires_at="2020-01-01"))
    return made


def test_each_caller_is_told_what_holds_for_them(api: Api, people: People, nouns: dict[str, Json]) -> None:
    admin = people.admin("admin", mfa=False)
    shared, personal = "AVAILABLE_SHARED", "AVAILABLE_PERSONAL"
    of_admin = {
        ("p2", None): "DISABLED",
        ("p2", "m"): "DISABLED",
        ("p1", None): "NO_ACCESS",
        ("p1", "m"): "NO_ACCESS",
        ("p0", None): shared,
        ("p0", "m"): shared,
        ("p0", "off"): "DISABLED",
        ("p0", "old"): "DISABLED",
    }
    assert accesses(admin) == of_admin
    assert list(accesses(admin)) == list(of_admin), "by sort_order, each provider before its models"
    assert accesses(api) == {**of_admin, ("p1", None): shared, ("p1", "m"): shared}

    for provider in nouns.values():
        answer = admin.put(f"/personal-keys/{provider['id']}", {"api_key": OWN, "use_shared_api": True})
        assert answer.status_code == 200
    with_keys = {**of_admin, ("p1", None): personal, ("p1", "m"): personal}
    assert accesses(admin) == with_keys
    admin.put(f"/personal-keys/{nouns['p0']['id']}", {"use_shared_api": False})
    assert accesses(admin) == {**with_keys, ("p0", None): personal, ("p0", "m"): personal}
    admin.put(f"/personal-keys/{nouns['p1']['id']}", {"is_active": False})
    assert accesses(admin)["p1", "m"] == "NO_ACCESS"
    assert accesses(api)["p0", "m"] == shared, "another's key changes nothing"


def test_what_is_refused_says_what_to_do(api: Api, people: People, nouns: dict[str, Json]) -> None:
    entries = people.admin("admin").get("/access").json()["items"]
    reasons = {(entry["provider"], entry["model"]): entry["reason"] for entry in entries}
    assert f"PUT /personal-keys/{nouns['p1']['id']}" in reasons["p1", "m"]
    assert "provider is inactive" in reasons["p2", "m"]
    assert "model is inactive" in reasons["p0", "off"]
    assert "retired" in reasons["p0", "old"]
    assert reasons["p0", "m"] is None


def test_pages_hold_every_entry_once(api: Api, nouns: dict[str, Json]) -> None:
    whole = api.get("/access").json()["items"]
    found: list[Json] = []
    cursor = None
    while cursor is not None or not found:
        page = api.get("/access", params={"limit": 2, **({"cursor": cursor} if cursor else {})}).json()
        found += page["items"]
        cursor = page["next_cursor"]
    assert found == whole
    assert api.get("/access", params={"cursor": "WzFd"}).status_code == 422


def test_providers_alone_if_that_is_all_one_asks(api: Api, nouns: dict[str, Json]) -> None:
    items = api.get("/access?with_models=false").json()["items"]
    assert [(item["provider"], item["model"]) for item in items] == [("p2", None), ("p1", None), ("p0", None)]
    first = api.get("/access?with_models=false&limit=2").json()
    rest = api.get(f"/access?with_models=false&limit=2&cursor={first['next_cursor']}").json()
    assert first["items"] + rest["items"] == items


def test_applications_name_no_providers_so_they_see_none(people: People) -> None:
    assert people.application().get("/access").status_code == 403
