"""Provider keys: tried before they are switched, keeping nobody waiting. What is in use stays."""

from __future__ import annotations

import threading

import pytest

from store.settings import Settings
from store.vault import Keyring, Sealed, Vault, VaultError
from tests.admin_api.conftest import Api, Json, People
from tests.admin_api.nouns import KEY, assigned, provider_body
from tests.sandbox import Sandbox

NEW = "sk-second-77c1b2a3"


def test_a_key_that_works_is_switched(api: Api, people: People, sandbox: Sandbox, settings: Settings) -> None:
    provider = api.made("/providers", provider_body(base_url=sandbox.openai, api_key=KEY))
    ((old,),) = people.run("SELECT sealed_key FROM ai_providers")
    rotated = api.post(f"/providers/{provider['id']}/rotate-key", {"api_key": NEW})
    assert rotated.status_code == 200, rotated.text
    shown = rotated.json()
    assert (shown["key_version"], shown["api_key_last4"]) == (2, NEW[-4:])
    assert (shown["test"]["ok"], shown["warning"]) == (True, None)
    assert NEW not in rotated.text
    ((new, version),) = people.run("SELECT sealed_key, key_version FROM ai_providers")
    vault = Vault(Keyring.load(settings))

    def opened(blob: bytes) -> str:
        return vault.open(
            Sealed(blob), table="ai_providers", row=provider["id"], field="api_key", version=version
        )

    assert opened(new) == NEW
    with pytest.raises(VaultError):
        opened(old)
    (entry,) = api.get("/audit", params={"action": "rotate-key"}).json()["items"]
    assert entry["noun_id"] == provider["id"]
    assert entry["after"] == {"key_version": 2, "worked": True}


def test_a_key_that_fails_is_not(api: Api, sandbox: Sandbox) -> None:
    provider = api.made("/providers", provider_body(base_url=sandbox.openai, api_key=KEY))
    path = f"/providers/{provider['id']}"
    refused = api.post(f"{path}/rotate-key", {"api_key": "bad-key"})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["field"] == "api_key"
    assert api.get(path).json() == provider
    forced = api.post(f"{path}/rotate-key", {"api_key": "bad-key", "force": True})
    assert forced.status_code == 200
    assert forced.json()["key_version"] == 2
    assert forced.json()["warning"]
    assert api.post(f"{path}/rotate-key", {"api_key": "two words"}).status_code == 422
    nobody = "/providers/01a20014-64af-763e-823e-5bdedc96b077"
    assert api.post(f"{nobody}/rotate-key", {"api_key": NEW}).status_code == 404


def test_a_rotation_that_is_sent_again_is_answered_again(api: Api, sandbox: Sandbox) -> None:
    provider = api.made("/providers", provider_body(base_url=sandbox.openai, api_key=KEY))
    path = f"/providers/{provider['id']}/rotate-key"
    first, again = (
        api.post(path, {"api_key": NEW}, headers={"Idempotency-Key": "rotation-1"}) for _ in range(2)
    )
    assert first.json() == again.json()
    assert again.headers["Idempotent-Replayed"] == "true"
    assert api.get(f"/providers/{provider['id']}").json()["key_version"] == 2


def test_a_slow_provider_keeps_nobody_from_writing(api: Api, sandbox: Sandbox) -> None:
    provider = api.made("/providers", provider_body(base_url=sandbox.openai, api_key=KEY))
    sandbox.reset()
    sandbox.fault("latency", seconds=3.0)
    rotated: list[int] = []

    def rotate() -> None:
        rotated.append(api.post(f"/providers/{provider['id']}/rotate-key", {"api_key": NEW}).status_code)

    thread = threading.Thread(target=rotate)
    thread.start()
    try:
        assert api.patch(f"/providers/{provider['id']}", {"sort_order": 5}).status_code == 200
        assert not rotated, "the write did not wait for the provider"
    finally:
        thread.join()
        sandbox.heal()
    assert rotated == [200]
    assert api.get(f"/providers/{provider['id']}").json()["sort_order"] == 5


def test_what_assignments_use_stays_and_is_named(api: Api) -> None:
    assignment = assigned(api)
    provider = api.get("/providers").json()["items"][0]
    use: Json = {"id": assignment["id"], "feature_name": "tarot_reading"}
    for path in (f"/providers/{provider['id']}", f"/models/{assignment['model_id']}"):
        refused = api.delete(path)
        assert refused.status_code == 409
        problem = refused.json()
        assert problem["assignments"] == [use]
        assert problem["type"].endswith("in-use")
        assert problem["errors"][0]["field"] == f"feature-assignments/{assignment['id']}"
        kept = api.delete(f"{path}?deactivate=true")
        assert kept.status_code == 200
        assert kept.json()["is_active"] is False
        assert api.get(path).json() == kept.json()
