"""Personal keys: one's own alone, sealed, and what jobs are really called with."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import jwt
import pytest

from routing import snapshot
from store.ids import new_id
from store.settings import Settings
from store.vault import Keyring, Sealed, Vault, VaultError
from tests.admin_api.conftest import Api, Json, People
from tests.admin_api.nouns import KEY, model_body, provider_body
from tests.sandbox import Sandbox
from workers.client import Client
from workers.records import Job
from workers.run import WorkerProcess

OWN = "sk-canary-personal-77aa55e1"
SHARED = "sk-canary-shared-11bb22c3"
FEATURE, INPUT = "tarot_reading", {"cards": ["The Sun"]}


def id_of(api: Api) -> UUID:
    assert api.token is not None
    return UUID(jwt.decode(api.token, options={"verify_signature": False})["sub"])


def put(api: Api, provider: Json, **members: Any) -> Json:
    answer = api.put(f"/personal-keys/{provider['id']}", {"api_key": OWN, **members})
    assert answer.status_code == 200, answer.text
    key: Json = answer.json()
    return key


# --- the noun -----------------------------------------------------------------------------------------


def test_a_key_lives_its_life(api: Api, people: People) -> None:
    provider = api.made("/providers", provider_body(api_key=KEY))
    admin = people.admin("admin", mfa=False)
    path = f"/personal-keys/{provider['id']}"
    assert admin.get("/personal-keys").json() == {"items": [], "next_cursor": None}
    missing = admin.put(path, {"use_shared_api": True})
    assert (missing.status_code, missing.json()["errors"][0]["field"]) == (422, "api_key")

    made = put(admin, provider, monthly_limit=5000)
    assert (made["provider"], made["api_key_last4"], made["key_version"]) == ("acme", OWN[-4:], 1)
    assert (made["use_shared_api"], made["monthly_limit"], made["is_active"]) == (False, 5000, True)
    assert made["created_by"] == made["updated_by"] == str(id_of(admin))
    assert admin.get(path).json() == made
    assert admin.get("/personal-keys").json()["items"] == [{**made, "tokens_this_month": 0}]

    kept = admin.put(path, {"use_shared_api": True}).json()
    assert (kept["key_version"], kept["use_shared_api"], kept["monthly_limit"]) == (1, True, None)
    read = admin.get("/personal-keys").json()["items"][0]
    assert admin.put(path, read).json()["use_shared_api"] is True, "what was read may be sent back"
    assert put(admin, provider)["key_version"] == 2

    tag = admin.get(path).headers["etag"]
    put(admin, provider, monthly_limit=9)
    stale = admin.call("PUT", path, {"is_active": False}, headers={"If-Match": tag})
    assert stale.status_code == 412

    assert admin.delete(path).status_code == 204
    assert admin.delete(path).status_code == 404
    assert admin.put(f"/personal-keys/{new_id()}", {"api_key": OWN}).status_code == 404


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"api_key": "two words"}, "api_key"),
        ({"api_key": ""}, "api_key"),
        ({"api_key": {"nested": OWN}}, "api_key"),
        ({"monthly_limit": 0}, "monthly_limit"),
        ({"monthly_limit": 2**63}, "monthly_limit"),
        ({"monthly_limit": 1.5}, "monthly_limit"),
        ({"use_shared_api": None}, "use_shared_api"),
        ({"admin_id": str(new_id())}, "admin_id"),
    ],
)
def test_what_is_wrong_is_named(api: Api, members: Json, field: str) -> None:
    provider = api.made("/providers", provider_body())
    refused = api.put(f"/personal-keys/{provider['id']}", {"api_key": OWN, **members})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["field"].split("/")[0] == field
    assert OWN not in refused.text


def test_nobody_sees_or_changes_anothers(api: Api, people: People) -> None:
    provider = api.made("/providers", provider_body())
    first, second = people.admin("admin"), people.admin("admin")
    put(first, provider)
    assert api.get("/personal-keys").json()["items"] == second.get("/personal-keys").json()["items"] == []
    assert second.delete(f"/personal-keys/{provider['id']}").status_code == 404
    assert api.delete(f"/personal-keys/{provider['id']}").status_code == 404
    assert second.get(f"/personal-keys/{provider['id']}").status_code == 404
    put(second, provider, monthly_limit=7)
    assert first.get("/personal-keys").json()["items"][0]["monthly_limit"] is None


def test_a_super_admin_needs_a_second_factor_an_admin_does_not(api: Api, people: People) -> None:
    provider = api.made("/providers", provider_body())
    path, body = f"/personal-keys/{provider['id']}", {"api_key": OWN}
    assert people.admin(mfa=False).put(path, body).status_code == 403
    assert people.admin("admin", mfa=False).put(path, body).status_code == 200
    assert people.application().put(path, body).status_code == 403


def test_a_key_opens_nowhere_but_in_its_row(api: Api, people: People, settings: Settings) -> None:
    provider = api.made("/providers", provider_body(api_key=KEY))
    admin = people.admin("admin")
    put(admin, provider)
    ((row, blob),) = people.run("SELECT id, sealed_key FROM admin_provider_settings")
    vault, here = Vault(Keyring.load(settings)), {"table": "admin_provider_settings", "field": "api_key"}
    assert vault.open(Sealed(blob), row=str(row), version=1, **here) == OWN
    for moved in (
        {**here, "row": str(new_id()), "version": 1},
        {**here, "row": str(row), "version": 2},
        {**here, "row": provider["id"], "version": 1, "table": "ai_providers"},
    ):
        with pytest.raises(VaultError):
            vault.open(Sealed(blob), **moved)


def test_lists_have_pages(api: Api, people: People) -> None:
    admin = people.admin("admin")
    for n in range(3):
        put(admin, api.made("/providers", provider_body(f"p{n}")))
    first = admin.get("/personal-keys", params={"limit": 2}).json()
    rest = admin.get("/personal-keys", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [key["provider"] for key in first["items"] + rest["items"]] == ["p0", "p1", "p2"]
    assert rest["next_cursor"] is None


# --- jobs ---------------------------------------------------------------------------------------------


@pytest.fixture
def worker(settings: Settings) -> Iterator[WorkerProcess]:
    worker = WorkerProcess(settings, lanes=("standard", "interactive", "batch"), threads=2)
    worker.start()
    yield worker
    worker.stop()


@pytest.fixture
def provider(api: Api, sandbox: Sandbox) -> Json:
    """A provider that serves the feature; it keeps its key to itself."""
    made = api.made(
        "/providers",
        provider_body(base_url=sandbox.openai, api_key=SHARED, allow_shared_for_normal_admins=False),
    )
    model = api.made("/models", model_body(made, input_price_per_1k="0.001", output_price_per_1k="0.002"))
    api.made("/feature-assignments", {"feature_name": FEATURE, "model_id": model["id"], "max_retries": 0})
    return made


def run(caller: Api, client: Client) -> Job:
    return client.result(UUID(caller.made("/jobs", {"feature": FEATURE, "input": INPUT})["id"]), timeout=30)


def keys_used(sandbox: Sandbox) -> list[str]:
    return [str(call["key"])[-4:] for call in sandbox.calls()["calls"]]


def test_jobs_are_called_with_the_key_that_the_access_table_says(
    api: Api, people: People, sandbox: Sandbox, client: Client, worker: WorkerProcess, provider: Json
) -> None:
    admin = people.admin("admin")
    owned, unowned = people.application(owner=id_of(admin)), people.application()

    def key_of(caller: Api) -> str:
        sandbox.reset()
        job = run(caller, client)
        assert job.state == "succeeded", job
        [last4] = keys_used(sandbox)
        return last4

    refused = owned.post("/jobs", {"feature": FEATURE, "input": INPUT})
    assert (refused.status_code, refused.json()["type"]) == (403, "urn:orrery:problem:no_access")
    assert "PUT /personal-keys/" in refused.json()["detail"]
    assert key_of(unowned) == key_of(api) == SHARED[-4:]

    put(admin, provider, use_shared_api=True)
    assert key_of(owned) == OWN[-4:], "what is not shared is not used, whatever is preferred"
    assert key_of(admin) == OWN[-4:]
    api.patch(f"/providers/{provider['id']}", {"allow_shared_for_normal_admins": True})
    assert key_of(owned) == SHARED[-4:]
    admin.put(f"/personal-keys/{provider['id']}", {"use_shared_api": False})
    assert key_of(owned) == OWN[-4:]
    assert key_of(unowned) == key_of(api) == SHARED[-4:], "it is nobody else's"
    admin.put(f"/personal-keys/{provider['id']}", {"is_active": False})
    assert key_of(owned) == SHARED[-4:]
    put(api, provider)
    assert key_of(api) == OWN[-4:]
    recorded = people.run("SELECT key_version FROM job_history ORDER BY finished_at")
    assert [version for (version,) in recorded] == [1, 1, -1, -1, 1, -1, 1, 1, 1, -1]
    assert recorded == people.run("SELECT key_version FROM ai_usage_analytics ORDER BY finished_at")


def test_a_job_that_lost_its_access_while_it_waited_fails_with_no_access(
    api: Api, people: People, client: Client, settings: Settings, sandbox: Sandbox, provider: Json
) -> None:
    admin = people.admin("admin")
    put(admin, provider)
    waiting = UUID(admin.made("/jobs", {"feature": FEATURE, "input": INPUT})["id"])
    assert admin.delete(f"/personal-keys/{provider['id']}").status_code == 204
    worker = WorkerProcess(settings, lanes=("standard", "interactive"), threads=1)
    worker.start()
    try:
        job = client.result(waiting, timeout=30)
    finally:
        worker.stop()
    assert (job.state, job.error_class) == ("failed", "no_access")
    assert keys_used(sandbox) == []


def test_a_month_that_is_spent_fails_with_budget_until_the_limit_is_raised(
    monkeypatch: pytest.MonkeyPatch,
    api: Api,
    people: People,
    client: Client,
    sandbox: Sandbox,
    settings: Settings,
    provider: Json,
) -> None:
    monkeypatch.setattr(snapshot, "COUNT_SECONDS", 0.05)
    admin, other = people.admin("admin"), people.admin("admin")
    put(other, provider)
    worker = WorkerProcess(settings, lanes=("standard", "interactive"), threads=1)
    worker.start()
    try:
        put(admin, provider, monthly_limit=1)
        assert run(other, client).state == "succeeded", "another's tokens are not counted"
        assert run(admin, client).state == "succeeded"
        deadline = time.monotonic() + 20
        while run(admin, client).state == "succeeded":  # until the next count
            assert time.monotonic() < deadline
        sandbox.reset()
        job = run(admin, client)
        assert (job.state, job.error_class) == ("failed", "budget")
        assert "monthly limit" in (job.error_message or "")
        assert keys_used(sandbox) == []

        spent = admin.get("/personal-keys").json()["items"][0]["tokens_this_month"]
        assert spent > 1
        admin.put(f"/personal-keys/{provider['id']}", {"monthly_limit": spent + 1})
        assert run(admin, client).state == "succeeded", "a raised limit holds at once"
        admin.put(f"/personal-keys/{provider['id']}", {"monthly_limit": 1, "use_shared_api": True})
        api.patch(f"/providers/{provider['id']}", {"allow_shared_for_normal_admins": True})
        assert run(admin, client).state == "succeeded", (
            "the limit is the personal key's, not the shared one's"
        )
    finally:
        worker.stop()


def test_last_months_tokens_are_forgotten(api: Api, people: People, provider: Json) -> None:
    admin = people.admin("admin")
    put(admin, provider)
    people.run("SELECT ensure_partitions((date_trunc('month', now()) - interval '1 day')::date, 2)")
    for at, version in (("interval '0'", -1), ("interval '0'", 1), ("interval '1 microsecond'", -1)):
        people.run(
            "INSERT INTO ai_usage_analytics (job_id, run, n, finished_at, started_at, feature, capability, "
            "lane, caller_admin_id, provider_id, outcome, called, input_tokens, output_tokens, key_version) "
            f"VALUES (gen_random_uuid(), 1, 1, date_trunc('month', now(), 'UTC') - {at}, now(), 'f', 'text', "
            f"'batch', '{id_of(admin)}', '{provider['id']}', 'succeeded', true, 10, NULL, {version})"
        )
    assert admin.get("/personal-keys").json()["items"][0]["tokens_this_month"] == 10
