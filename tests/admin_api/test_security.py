"""Who gets in, and how far."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import jwt
import pytest
from fastapi import APIRouter

from admin_api.security import GuardedRoute, UnguardedRoute
from admin_api.tokens import InvalidToken, verify_admin_jwt
from store.settings import Settings
from store.vault import Keyring
from tests.admin_api.conftest import Api, People
from tests.admin_api.nouns import assigned

SOMETHING = "01a20014-64af-763e-823e-5bdedc96b077"


def operations(http: httpx.Client) -> list[tuple[str, str, dict[str, Any]]]:
    """Method, path below /api/v1 and description of every operation there, with names and ids filled in."""
    paths = http.get("/openapi.json").json()["paths"]
    return [
        (method.upper(), path.removeprefix("/api/v1").replace("{name}", "x"), operation)
        for path, methods in paths.items()
        if path.startswith("/api/")
        for method, operation in methods.items()
    ]


def filled(path: str) -> str:
    return "/".join(SOMETHING if part.startswith("{") else part for part in path.split("/"))


def test_no_operation_is_open(http: httpx.Client, people: People) -> None:
    nobody = people.nobody()
    found = operations(http)
    assert len(found) >= 28
    for method, path, _ in found:
        refused = nobody.call(method, filled(path), content=b"{not json")
        assert refused.status_code == 401, (method, path)
        assert refused.headers["www-authenticate"].startswith("Bearer")
        assert refused.headers["content-type"] == "application/problem+json"


def test_what_is_declared_is_enforced(http: httpx.Client, people: People) -> None:
    callers = {
        "super_admin": people.admin(),
        "admin": people.admin("admin"),
        "application": people.application(),
    }
    for method, path, operation in operations(http):
        roles = operation["x-orrery-roles"]
        for role, caller in callers.items():
            answer = caller.call(method, filled(path))
            assert (answer.status_code == 403) == (role not in roles), (method, path, role, answer.text)
            assert answer.status_code != 401


def test_writing_the_configuration_needs_a_second_factor(http: httpx.Client, people: People) -> None:
    hasty = people.admin(mfa=False)
    for method, path, operation in operations(http):
        refused = hasty.call(method, filled(path)).status_code == 403
        writes_configuration = method != "GET" and not path.startswith("/jobs")
        assert refused == writes_configuration == operation.get("x-orrery-mfa", False), (method, path)
    refusal = hasty.post("/providers", {})
    assert "mfa" in refusal.json()["detail"]


def test_a_route_that_names_nobody_cannot_be_made() -> None:
    router = APIRouter(route_class=GuardedRoute)
    with pytest.raises(UnguardedRoute):

        @router.get("/open")
        def leak() -> None: ...


def test_only_our_own_tokens_are_believed(people: People, settings: Settings) -> None:
    admin = people.admin()
    assert admin.get("/features").status_code == 200
    assert admin.token is not None
    keyring = Keyring.load(settings)
    key = keyring.derive("admin-jwt")
    header = {"kid": keyring.current}
    claims = jwt.decode(admin.token, options={"verify_signature": False})

    def signed(*, key: Any = key, algorithm: str = "HS256", header: Any = header, **changed: Any) -> str:
        body = {name: value for name, value in {**claims, **changed}.items() if value is not None}
        return jwt.encode(body, key, algorithm=algorithm, headers=header)

    now = datetime.now(UTC)
    believed = people.nobody(signed())
    assert believed.get("/features").status_code == 200
    for token in (
        signed(key=b"k" * 32),
        signed(key=keyring.derive("something-else")),
        signed(key=key + key, algorithm="HS512"),
        signed(algorithm="none", key=None),
        signed(header={}),
        signed(header={"kid": "nowhere"}),
        "a.b.c",
        signed(aud="somebody"),
        signed(iss="somebody"),
        signed(exp=now - timedelta(minutes=1)),
        signed(iat=now + timedelta(hours=1)),
        signed(sub="root"),
        signed(sub=str(uuid4())),
        signed(mfa=None),
        signed(exp=None),
        signed(jti="x" * 5000),
        "orr_" + "x" * 43,
    ):
        assert people.nobody(token).get("/features").status_code == 401, token


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
