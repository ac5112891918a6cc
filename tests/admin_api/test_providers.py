"""Providers: what an administrator can do with them, and what is refused."""

from __future__ import annotations

import pytest

from store.settings import Settings
from store.vault import Keyring, Sealed, Vault
from tests.admin_api.conftest import Api, Json, People
from tests.admin_api.nouns import KEY, assigned, model_body, provider_body
from tests.sandbox import Sandbox


def test_a_provider_lives_its_life(api: Api) -> None:
    made = api.post("/providers", provider_body(type="openai", base_url="https://api.example.com/v1/"))
    assert made.status_code == 201
    provider = made.json()
    assert provider["type"] == "openai_compatible"
    assert provider["base_url"] == "https://api.example.com/v1"
    assert provider["created_by"] == provider["updated_by"] is not None
    path = f"/providers/{provider['id']}"
    assert api.get(path).json() == provider

    changed = api.patch(path, {"name": "Other", "settings": {"auth_header": "api-key"}}).json()
    assert (changed["name"], changed["settings"]) == ("Other", {"auth_header": "api-key"})
    assert changed["base_url"] == provider["base_url"]
    assert changed["updated_at"] > provider["updated_at"]

    replaced = api.put(path, provider_body()).json()
    assert (replaced["name"], replaced["settings"]) == ("Acme", {})

    assert api.delete(path).status_code == 204
    assert api.get(path).status_code == 404


def test_a_key_is_sealed_for_its_row_and_never_shown(api: Api, people: People, settings: Settings) -> None:
    made = api.post("/providers", provider_body(api_key=KEY))
    provider = made.json()
    assert KEY not in made.text
    assert provider["api_key_last4"] == KEY[-4:]

    def opened() -> str | None:
        ((blob, version),) = people.run("SELECT sealed_key, key_version FROM ai_providers")
        if blob is None:
            return None
        vault = Vault(Keyring.load(settings))
        return vault.open(
            Sealed(blob), table="ai_providers", row=provider["id"], field="api_key", version=version
        )

    assert opened() == KEY
    path = f"/providers/{provider['id']}"
    assert api.put(path, provider_body()).json()["api_key_last4"] == KEY[-4:]
    assert opened() == KEY
    api.patch(path, {"api_key": "sk-second-0000"})
    assert opened() == "sk-second-0000"
    gone = api.patch(path, {"api_key": None}).json()
    assert (gone["api_key_last4"], opened()) == (None, None)
    assert api.patch(path, {"api_key": KEY}).json()["key_version"] == 3
    assert opened() == KEY
    assert KEY not in api.get("/providers").text


BAD_FIELDS: list[tuple[Json, str, str]] = [
    ({"type": "cohere"}, "type", "openai_compatible"),
    ({"type": "palm"}, "type", "anthropic"),
    ({"base_url": "ftp://example.com"}, "base_url", "http"),
    ({"base_url": "/v1"}, "base_url", "absolute"),
    ({"base_url": "https://me:secret@example.com"}, "base_url", "api_key"),
    ({"base_url": "https://example.com/v1?key=1"}, "base_url", "query"),
    ({"base_url": "https://example.com:99999"}, "base_url", "absolute"),
    ({"slug": "Not A Slug"}, "slug", "small letters"),
    ({"slug": "s" * 3000}, "slug", "64"),
    ({"api_key": "two words"}, "api_key", "ASCII"),
    ({"api_key": ""}, "api_key", "ASCII"),
    ({"timeout_seconds": 0}, "timeout_seconds", "greater"),
    ({"sort_order": 2**31}, "sort_order", "less"),
    ({"daily_token_limit": 2**63}, "daily_token_limit", "less"),
    ({"capabilities": ["text", "telepathy"]}, "capabilities/1", "text"),
    ({"colour": "red"}, "colour", "no such field"),
    ({"name": None}, "name", "string"),
]


def test_a_bad_field_is_named(api: Api) -> None:
    for members, field, said in BAD_FIELDS:
        refused = api.post("/providers", provider_body(**members))
        assert refused.status_code == 422, members
        (error,) = refused.json()["errors"]
        assert error["field"] == field
        assert said in error["message"]
    assert api.get("/providers").json()["items"] == []


def test_a_header_that_carries_a_key_is_refused(api: Api) -> None:
    kept = api.made(
        "/providers", provider_body(settings={"extra_headers": {"X-Title": "Orrery", "x-ms": "1"}})
    )
    for name in (
        *("Authorization", "x-api-key", "api-key", "X-Goog-Api-Key", "xi-api-key", "Cookie", "X-Auth-Token"),
        *("Proxy-Authorization", "Ocp-Apim-Subscription-Key", "x-key", "apikey"),
    ):
        settings = {"extra_headers": {"X-Title": "Orrery", name: "value"}}
        for refused in (
            api.post("/providers", provider_body("other", settings=settings)),
            api.post("/providers/test", provider_body("other", settings=settings)),
            api.patch(f"/providers/{kept['id']}", {"settings": settings}),
        ):
            assert refused.status_code == 422, name
            (error,) = refused.json()["errors"]
            assert error["field"] == f"settings/extra_headers/{name}"
            assert "api_key" in error["message"]
    assert [item["slug"] for item in api.get("/providers").json()["items"]] == ["acme"]


def test_a_change_that_would_break_assignments_is_refused(api: Api, people: People) -> None:
    provider = api.made("/providers", provider_body())
    path = f"/providers/{provider['id']}"
    assert api.patch(path, {"type": "anthropic"}).status_code == 200, "nothing is assigned"
    api.patch(path, {"type": "openai"})
    every = ["text", "speech", "moderation"]
    model = api.made("/models", model_body(provider, capabilities=every))
    for feature in ("daily_zodiac_text", "daily_zodiac_tts", "content_moderation"):
        api.made("/feature-assignments", {"feature_name": feature, "model_id": model["id"]})
    for refused in (
        api.patch(path, {"type": "claude"}),
        api.put(path, provider_body(type="anthropic", name="Other")),
    ):
        assert refused.status_code == 409
        (error,) = refused.json()["errors"]
        assert error["field"] == "type"
        assert "content_moderation" in error["message"]
        assert "daily_zodiac_tts" in error["message"]
        assert "daily_zodiac_text" not in error["message"], "text it can serve"
    assert api.get(path).json()["type"] == "openai_compatible"

    other = api.made("/providers", provider_body("claude", type="anthropic"))
    moved = api.patch(f"/models/{model['id']}", {"provider_id": other["id"]})
    assert moved.status_code == 409
    assert moved.json()["errors"][0]["field"] == "provider_id"

    people.run("UPDATE ai_providers SET type = 'anthropic' WHERE slug = 'acme'")
    mended = api.patch(path, {"name": "Other"})
    assert mended.status_code == 200, "what was broken already is not this change's doing"


def test_a_missing_field_is_named(api: Api) -> None:
    refused = api.post("/providers", {"slug": "acme", "name": "Acme", "type": "openai"})
    assert [error["field"] for error in refused.json()["errors"]] == ["base_url"]


def test_a_slug_is_taken_once(api: Api) -> None:
    api.made("/providers", provider_body("one"))
    other = api.made("/providers", provider_body("two"))
    for refused in (
        api.post("/providers", provider_body("one")),
        api.patch(f"/providers/{other['id']}", {"slug": "one"}),
    ):
        assert refused.status_code == 409
        assert refused.json()["errors"][0]["field"] == "slug"
    assert api.get(f"/providers/{other['id']}").json() == other


def test_a_provider_with_models_stays(api: Api) -> None:
    provider = api.made("/providers", provider_body())
    api.made("/models", model_body(provider, "big-one"))
    refused = api.delete(f"/providers/{provider['id']}")
    assert refused.status_code == 409
    assert "big-one" in refused.json()["detail"]
    assert api.get(f"/providers/{provider['id']}").status_code == 200


def test_lists_come_in_pages(api: Api) -> None:
    for number in range(5):
        api.made("/providers", provider_body(f"p{number}", sort_order=-number // 2, is_active=number != 3))
    whole = [item["slug"] for item in api.get("/providers").json()["items"]]
    assert whole[-1] == "p0"
    seen, cursor = [], None
    while True:
        params = {"limit": 2} | ({} if cursor is None else {"cursor": cursor})
        page = api.get("/providers", params=params).json()
        assert len(page["items"]) <= 2
        seen += [item["slug"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == whole
    inactive = api.get("/providers", params={"is_active": False}).json()["items"]
    assert [item["slug"] for item in inactive] == ["p3"]


def test_a_bad_query_is_named(api: Api) -> None:
    for name, value in [
        ("limit", 0),
        ("limit", 201),
        ("cursor", "nonsense"),
        ("cursor", "WzEsMl0"),
        ("page", 2),
    ]:
        refused = api.get("/providers", params={name: value})
        assert refused.status_code == 422, (name, value)
        assert refused.json()["errors"][0]["field"] == name


def test_a_provider_can_be_tried(api: Api, sandbox: Sandbox, people: People) -> None:
    body = provider_body(base_url=sandbox.openai, api_key=KEY)
    unsaved = api.post("/providers/test", body)
    assert unsaved.status_code == 200
    assert unsaved.json()["ok"] is True
    assert unsaved.json()["models"]
    assert api.get("/providers").json()["items"] == []

    provider = api.made("/providers", body)
    path = f"/providers/{provider['id']}"
    verdict = api.post(f"{path}/test").json()
    assert (verdict["ok"], verdict["status"]) == (True, 200)

    api.patch(path, {"api_key": "bad-key"})
    verdict = api.post(f"{path}/test").json()
    assert (verdict["ok"], verdict["status"], verdict["error_class"]) == (False, 401, "auth")
    assert "bad-key" not in verdict["message"]

    api.patch(path, {"allow_private_network": False})
    verdict = api.post(f"{path}/test").json()
    assert (verdict["ok"], verdict["error_class"]) == (False, "configuration")
    assert "allow_private_network" in verdict["message"]

    people.run("UPDATE ai_providers SET key_version = key_version + 1")
    refused = api.post(f"{path}/test")
    assert refused.status_code == 409
    assert refused.json()["errors"][0]["field"] == "api_key"


@pytest.mark.parametrize(
    ("alias", "kind", "listed"),
    [
        ("openai", "openai_compatible", "gpt-4o"),
        ("claude", "anthropic", "claude-opus-5-5"),
        ("google", "gemini", "gemini-3.8-flash"),
        ("elevenlabs", "elevenlabs", None),
    ],
)
def test_every_type_can_be_tried(
    api: Api, sandbox: Sandbox, alias: str, kind: str, listed: str | None
) -> None:
    address = {
        "openai_compatible": sandbox.openai,
        "anthropic": sandbox.anthropic,
        "gemini": sandbox.gemini,
        "elevenlabs": sandbox.elevenlabs,
    }[kind]
    body = provider_body(type=alias, base_url=address, api_key=KEY)
    verdict = api.post("/providers/test", body).json()
    assert verdict["ok"] is True, verdict
    assert (listed in verdict["models"]) if listed else verdict["models"] == []
    refused = api.post("/providers/test", {**body, "api_key": "bad-key"}).json()
    assert (refused["ok"], refused["error_class"]) == (False, "auth")
    assert api.made("/providers", body)["type"] == kind


def test_a_key_that_may_only_speak_is_no_bad_key(api: Api, sandbox: Sandbox) -> None:
    body = provider_body(type="elevenlabs", base_url=sandbox.elevenlabs, api_key="speech-only-key")
    verdict = api.post("/providers/test", body).json()
    assert (verdict["ok"], "eleven_v3" in verdict["models"]) == (True, True)


def test_a_web_page_is_no_provider(api: Api, sandbox: Sandbox) -> None:
    body = provider_body(base_url=sandbox.url, settings={"models_path": "/"})
    verdict = api.post("/providers/test", body).json()
    assert verdict["ok"] is False
    assert verdict["message"]


def test_rows_made_elsewhere_can_be_read_and_mended(api: Api, people: People) -> None:
    provider = api.made("/providers", provider_body())
    people.run("UPDATE ai_providers SET type = 'carrier_pigeon', name = repeat('n', 500)")
    (shown,) = api.get("/providers").json()["items"]
    assert shown["type"] == "carrier_pigeon"
    mended = api.patch(f"/providers/{provider['id']}", {"type": "claude", "name": "Acme"})
    assert mended.json()["type"] == "anthropic"


def test_a_deactivated_provider_keeps_its_assignments(api: Api) -> None:
    assignment = assigned(api)
    (provider,) = api.get("/providers").json()["items"]
    assert api.patch(f"/providers/{provider['id']}", {"is_active": False}).status_code == 200
    path = f"/feature-assignments/{assignment['id']}"
    assert api.patch(path, {"max_retries": 1}).json()["max_retries"] == 1
    assert api.get(path).json()["model_id"] == assignment["model_id"]
