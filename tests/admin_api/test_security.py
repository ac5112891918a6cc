"""Who gets in, and how far. Forged tokens are in test_tokens.py, routes in test_authorisation.py."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from fastapi import APIRouter

from admin_api.security import GuardedRoute, UnguardedRoute
from admin_api.tokens import InvalidToken, verify_admin_jwt
from store.settings import Settings
from store.vault import Keyring
from tests.admin_api.conftest import Api, People
from tests.admin_api.nouns import assigned


def test_a_route_that_names_nobody_cannot_be_made() -> None:
    router = APIRouter(route_class=GuardedRoute)
    with pytest.raises(UnguardedRoute):

        @router.get("/open")
        def leak() -> None: ...


def test_a_retired_master_key_signs_nothing(people: People, settings: Settings) -> None:
    token = people.admin().token
    assert token is not None
    settings.keyring_file.unlink()
    Keyring.create(settings.keyring_file)
    with pytest.raises(InvalidToken):
        verify_admin_jwt(Keyring.load(settings), token)


def test_an_admin_is_asked_for_anew_with_each_call(people: People) -> None:
    admin = people.admin()
    assert admin.post("/providers", {}).status_code == 422
    people.run("UPDATE admins SET role = 'admin'")
    assert admin.post("/providers", {}).status_code == 403
    assert admin.get("/providers").status_code == 200
    people.run("UPDATE admins SET is_active = false")
    assert admin.get("/providers").status_code == 401


def test_an_application_token_ends(people: People) -> None:
    assert (
        people.application(expires_at=datetime.now(UTC) - timedelta(seconds=1)).get("/jobs").status_code
        == 401
    )
    token = people.application(expires_at=datetime.now(UTC) + timedelta(hours=1))
    assert token.get("/jobs").status_code == 200
    people.run("UPDATE app_tokens SET revoked_at = now()")
    assert token.get("/jobs").status_code == 401

    people.admin("admin")
    ((owner,),) = people.run("SELECT id FROM admins")
    owned = people.application(owner=owner)
    assert owned.get("/jobs").status_code == 200
    people.run("UPDATE admins SET is_active = false")
    assert owned.get("/jobs").status_code == 401


def test_a_scope_allows_what_it_says(people: People, api: Api) -> None:
    assigned(api)
    job = {"feature": "tarot_reading", "input": {"cards": ["The Fool"]}}
    writer, reader = people.application("jobs:enqueue"), people.application("jobs:read")
    made = writer.post("/jobs", job)
    assert made.status_code == 202
    assert writer.get(made.headers["location"].removeprefix("/api/v1")).status_code == 403
    assert reader.get("/jobs").status_code == 200
    refused = reader.post("/jobs", job)
    assert refused.status_code == 403
    assert "jobs:enqueue" in refused.json()["detail"]


def test_an_application_sees_its_own_jobs_only(people: People, api: Api) -> None:
    assigned(api)
    one, other = people.application(), people.application()
    job = one.made("/jobs", {"feature": "tarot_reading", "input": {"cards": ["The Fool"]}})
    for path in (f"/jobs/{job['id']}", f"/jobs/{job['id']}?wait=5", f"/jobs/{job['id']}/artifact"):
        assert other.get(path).status_code == 404
    assert other.get("/jobs").json()["items"] == []
    assert [item["id"] for item in one.get("/jobs").json()["items"]] == [job["id"]]
    assert people.admin("admin").get(f"/jobs/{job['id']}").status_code == 200
