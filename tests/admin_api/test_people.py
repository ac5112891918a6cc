"""People, their sessions, and applications' tokens."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import jwt
import pytest

from standalone import people as at_the_machine
from standalone.people import PeopleError
from store.settings import Settings
from tests.admin_api.conftest import Api, Json, People
from tests.admin_api.logins import PASSWORD, audited, person

NEW = {"email": "Ada@Example.com", "role": "admin", "password": PASSWORD}


def test_a_person_is_added_changed_and_removed(api: Api, people: People) -> None:
    made = api.made("/admins", NEW)
    assert (made["email"], made["role"], made["is_active"]) == ("ada@example.com", "admin", True)
    assert made["has_second_factor"] is False
    assert not {"password", "password_hash"} & made.keys()
    address = f"/admins/{made['id']}"
    assert api.get(address).json() == made
    assert {**made, "last_login_at": None} in api.get("/admins?role=admin").json()["items"]
    assert made["email"] not in api.get("/admins?role=super_admin").text

    changed = api.patch(address, {"email": "ada@example.org", "role": "super_admin"})
    assert changed.status_code == 200
    assert api.patch(address, changed.json()).status_code == 200, "as it was read"
    assert changed.json()["email"] == "ada@example.org"
    assert api.delete(address).status_code == 204
    assert api.get(address).status_code == 404
    assert [action for action, noun_id in audited(people) if noun_id == made["id"]] == [
        "create",
        "update",
        "delete",
    ]


def test_a_person_who_has_done_something_is_deactivated(api: Api, people: People) -> None:
    ada = person(people, "admin")
    session = ada.api()
    gone = api.delete(f"/admins/{ada.id}")
    assert gone.status_code == 200
    assert gone.json()["is_active"] is False
    assert session.get("/features").status_code == 401
    assert ada.login().status_code == 401
    assert api.patch(f"/admins/{ada.id}", {"is_active": True}).status_code == 200
    assert session.get("/features").status_code == 401, "its session has ended"
    assert ada.login().status_code == 200


def test_the_owner_of_a_token_is_deactivated(api: Api, people: People) -> None:
    ada = person(people, "admin")
    made = api.made("/tokens", {"name": "shop", "owner_admin_id": ada.id})
    assert made["owner_email"] == ada.email
    assert api.get("/tokens").json()["items"][0]["owner_email"] == ada.email
    token = made["token"]
    assert people.nobody(token).get("/jobs").status_code == 200
    assert api.delete(f"/admins/{ada.id}").status_code == 200
    assert people.nobody(token).get("/jobs").status_code == 401


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"email": "nobody"}, "email"),
        ({"email": "a b@c"}, "email"),
        ({"email": "ä@example.com"}, "email"),
        ({"email": "\u0130@example.com"}, "email"),
        ({"email": f"{'x' * 250}@example.com"}, "email"),
        ({"role": "root"}, "role"),
        ({"role": None}, "role"),
        ({"is_active": None}, "is_active"),
        ({"password": "short"}, "password"),
        ({"password": "x" * 1025}, "password"),
        ({"password_hash": "x"}, "password_hash"),
    ],
)
def test_what_makes_no_person_is_refused(api: Api, change: Json, field: str) -> None:
    refused = api.post("/admins", {**NEW, **change})
    assert refused.status_code == 422
    assert [error["field"] for error in refused.json()["errors"]] == [field]
    assert "x" * 1025 not in refused.text


def test_an_address_belongs_to_one(api: Api) -> None:
    api.made("/admins", NEW)
    refused = api.post("/admins", {**NEW, "email": "ADA@example.com"})
    assert refused.status_code == 409
    assert refused.json()["errors"][0]["field"] == "email"


def test_nobody_sets_the_password_of_somebody_else(api: Api) -> None:
    made = api.made("/admins", NEW)
    assert api.patch(f"/admins/{made['id']}", {"password": "another password"}).status_code == 422


CHANGES: list[Callable[[Api, str], int]] = [
    lambda api, who: api.delete(f"/admins/{who}").status_code,
    lambda api, who: api.patch(f"/admins/{who}", {"role": "admin"}).status_code,
    lambda api, who: api.patch(f"/admins/{who}", {"is_active": False}).status_code,
]


@pytest.mark.parametrize("change", CHANGES)
def test_the_last_super_admin_stays(api: Api, people: People, change: Callable[[Api, str], int]) -> None:
    person(people, "admin")
    asleep = person(people)
    people.run("UPDATE admins SET is_active = false WHERE id = %s", [asleep.id])
    me = api.get("/auth/me").json()["id"]
    assert change(api, me) == 409
    assert api.patch(f"/admins/{me}", {"email": "still@example.com"}).status_code == 200
    person(people)
    assert change(api, me) == 200 or people.run("SELECT FROM admins WHERE id = %s", [me]) == []


def test_of_two_who_remove_each_other_one_stays(people: People) -> None:
    for _ in range(5):
        people.run("UPDATE admins SET is_active = false")
        pair = [people.admin(), people.admin()]
        ids = [each.get("/auth/me").json()["id"] for each in pair]
        with ThreadPoolExecutor(2) as pool:
            sent = [
                pool.submit(one.patch, f"/admins/{other}", {"role": "admin"})
                for one, other in zip(pair, reversed(ids), strict=True)
            ]
        # Whoever comes second is no super admin any more, or would remove the last one.
        assert min(each.result().status_code for each in sent) == 200
        left = people.run("SELECT count(*) FROM admins WHERE role = 'super_admin' AND is_active")
        assert left[0][0] >= 1


def test_a_change_holds_from_the_next_request_on(api: Api, people: People) -> None:
    ada = person(people, "admin")
    session = ada.api()
    assert session.get("/providers").status_code == 200
    api.patch(f"/admins/{ada.id}", {"role": "super_admin"})
    assert session.get("/providers").status_code == 403, "a super admin needs a second factor"
    ada.enrol(session)
    assert session.post("/providers", {}).status_code == 422
    api.patch(f"/admins/{ada.id}", {"is_active": False})
    assert session.get("/providers").status_code == 401


def test_an_admin_sees_people_and_changes_none(api: Api, people: People) -> None:
    ada, ben = person(people, "admin"), person(people, "admin")
    session = ada.api()
    ada.enrol(session)
    shown = {item["id"]: item["has_second_factor"] for item in session.get("/admins").json()["items"]}
    assert (shown[ada.id], shown[ben.id]) == (True, None)
    shown = {item["id"]: item["has_second_factor"] for item in api.get("/admins").json()["items"]}
    assert (shown[ada.id], shown[ben.id]) == (True, False)
    assert session.patch(f"/admins/{ben.id}", {}).status_code == 403


# --- sessions -----------------------------------------------------------------------------------------


def test_people_see_and_end_their_own_sessions(api: Api, people: People) -> None:
    ada, ben = person(people, "admin"), person(people, "admin")
    first, second, other = ada.api(headers={"User-Agent": "curl\t8"}), ada.api(), ben.api()
    listed = first.get("/sessions").json()["items"]
    assert [(item["email"], item["is_current"]) for item in listed] == [(ada.email, True), (ada.email, False)]
    assert listed[0]["user_agent"] == "curl8"
    assert len(api.get("/sessions").json()["items"]) == 3
    assert len(api.get(f"/sessions?admin_id={ben.id}").json()["items"]) == 1

    theirs = other.get("/sessions").json()["items"][0]["id"]
    assert first.delete(f"/sessions/{theirs}").status_code == 404
    assert first.get(f"/sessions?admin_id={ben.id}").json()["items"] == []
    assert first.delete(f"/sessions/{listed[1]['id']}").status_code == 204
    assert second.get("/auth/me").status_code == 401
    assert first.delete(f"/sessions/{listed[1]['id']}").status_code == 404

    assert api.delete(f"/sessions/{theirs}").status_code == 204
    assert other.get("/auth/me").status_code == 401
    assert ada.login().status_code == 200
    assert first.delete("/sessions").status_code == 204
    assert first.get("/auth/me").status_code == 401
    assert api.get("/sessions").json()["items"] == []
    assert [action for action, _ in audited(people)].count("session_revoked") == 4


def test_who_logs_in_may_end_all_other_sessions(people: People) -> None:
    ada, ben = person(people, "admin"), person(people, "admin")
    first, second, other = ada.api(), ada.api(), ben.api()
    assert first.delete("/sessions?keep_current=true").status_code == 204
    assert first.get("/auth/me").status_code == 200
    assert second.get("/auth/me").status_code == 401
    assert other.get("/auth/me").status_code == 200
    (left,) = first.get("/sessions").json()["items"]
    assert (left["is_current"], left["is_browser"]) == (True, False)


def test_the_last_login_is_told_to_whom_it_concerns(api: Api, people: People) -> None:
    ada = person(people, "admin")
    session = ada.api()

    def last(reader: Api, who: str) -> object:
        return {each["id"]: each["last_login_at"] for each in reader.get("/admins").json()["items"]}[who]

    first = last(api, ada.id)
    assert first is not None
    assert last(session, ada.id) == first
    assert last(people.admin("admin"), ada.id) is None
    listed = api.get("/admins").json()["items"]
    assert (
        api.patch(f"/admins/{ada.id}", {**listed[0], "email": ada.email, "role": "admin"}).status_code == 200
    )
    ada.api()
    assert last(api, ada.id) != first


def test_an_operators_token_has_no_session(api: Api) -> None:
    assert api.get("/auth/me").json()["session_id"] is None
    assert api.post("/auth/logout").status_code == 409


# --- applications' tokens -----------------------------------------------------------------------------


def test_a_token_is_made_shown_once_and_revoked(api: Api, people: People) -> None:
    made = api.made("/tokens", {"name": " web shop "})
    clear = made.pop("token")
    assert made["name"] == "web shop"
    assert made["scopes"] == ["jobs:enqueue", "jobs:read"]
    assert made["token_last4"] == clear[-4:]
    assert clear not in api.get("/tokens").text
    assert api.get("/tokens").json()["items"] == [made]

    application = people.nobody(clear)
    assert application.get("/jobs").status_code == 200
    assert api.delete(f"/tokens/{made['id']}").status_code == 204
    assert application.get("/jobs").status_code == 401
    (left,) = api.get("/tokens").json()["items"]
    assert left["is_active"] is False
    assert api.delete(f"/tokens/{made['id']}").status_code == 204
    assert api.get("/tokens").json()["items"] == [left], "the time it was revoked stays"
    assert api.delete(f"/tokens/{uuid4()}").status_code == 404


def test_a_token_is_sent_again_with_its_idempotency_key(api: Api) -> None:
    first, second = (
        api.post("/tokens", {"name": "shop"}, headers={"Idempotency-Key": "k"}).json() for _ in range(2)
    )
    assert first == second
    assert first["token"].startswith("orr_")


def test_a_tokens_use_is_noted_once_a_minute(api: Api, people: People) -> None:
    made = api.made("/tokens", {"name": "shop"})
    assert api.get("/tokens").json()["items"][0]["last_used_at"] is None
    application = people.nobody(made["token"])

    def used() -> list[tuple[int, datetime]]:
        return people.run("SELECT xmin::text::bigint, last_used_at FROM app_token_uses")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: application.get("/jobs"), range(16)))
    first = used()
    assert len(first) == 1
    application.get("/jobs")
    assert used() == first
    people.run("UPDATE app_token_uses SET last_used_at = now() - interval '61 seconds'")
    application.get("/jobs")
    assert used()[0][1] > first[0][1]
    assert api.get("/tokens").json()["items"][0]["last_used_at"] is not None


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": "  "}, "name"),
        ({"name": "two\nlines"}, "name"),
        ({"scopes": []}, "scopes"),
        ({"scopes": ["admin"]}, "scopes/0"),
        ({"owner_admin_id": str(uuid4())}, "owner_admin_id"),
        ({"owner_admin_id": "x"}, "owner_admin_id"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"expires_at": "2030-01-01T00:00:00"}, "expires_at"),
        ({"expires_at": "9999-12-31T23:59:59Z"}, "expires_at"),
        ({"token": "orr_x"}, "token"),
    ],
)
def test_what_makes_no_token_is_refused(api: Api, change: Json, field: str) -> None:
    refused = api.post("/tokens", {"name": "shop", **change})
    assert refused.status_code == 422
    assert [error["field"] for error in refused.json()["errors"]] == [field]


def test_a_token_expires(api: Api, people: People) -> None:
    soon = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    made = api.made("/tokens", {"name": "shop", "scopes": ["jobs:read", "jobs:read"], "expires_at": soon})
    assert made["scopes"] == ["jobs:read"]
    application = people.nobody(made["token"])
    assert application.get("/jobs").status_code == 200
    people.run("UPDATE app_tokens SET expires_at = now()")
    assert application.get("/jobs").status_code == 401


# --- at the machine -----------------------------------------------------------------------------------


def test_an_operator_resets_a_second_factor(settings: Settings, people: People) -> None:
    ada = person(people)
    session = ada.api()
    ada.enrol(session)
    at_the_machine.reset_second_factor(settings, email=f" {ada.email.upper()}")
    assert session.get("/auth/me").status_code == 401
    assert ada.api().get("/auth/me").json()["second_factor"] == "missing"
    assert ("mfa_reset", ada.id) in audited(people)
    with pytest.raises(PeopleError, match="nobody@example"):
        at_the_machine.reset_second_factor(settings, email="nobody@example.com")


def test_what_an_operator_does_is_audited(settings: Settings, people: People) -> None:
    at_the_machine.create_admin(settings, email="ada@example.com", role="super_admin", password=PASSWORD)
    token = at_the_machine.admin_jwt(settings, email="ada@example.com", mfa=True)
    clear = at_the_machine.create_token(settings, name="shop", owner="ada@example.com", scopes=["metrics"])
    at_the_machine.revoke_token(settings, at_the_machine.list_tokens(settings)[0].id)
    rows = people.run("SELECT actor, noun, action FROM audit_log ORDER BY id")
    assert rows == [
        ("cli", "admins", "create"),
        ("cli", "admins", "token_minted"),
        ("cli", "tokens", "create"),
        ("cli", "tokens", "update"),
    ]
    claims = jwt.decode(token, options={"verify_signature": False})
    left = datetime.fromtimestamp(claims["exp"], UTC) - datetime.now(UTC)
    assert claims["mfa"] is True
    assert timedelta(minutes=59) < left <= timedelta(minutes=60)
    assert people.nobody(token).get("/admins").status_code == 200
    assert people.nobody(clear).get("/jobs").status_code == 401


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"email": "nobody"}, "--email"),
        ({"role": "root"}, "--role"),
        ({"password": "short"}, "12"),
    ],
)
def test_who_is_no_person_is_refused_at_the_machine_too(
    settings: Settings, change: dict[str, str], message: str
) -> None:
    who = {"email": "ada@example.com", "role": "admin", "password": PASSWORD, **change}
    with pytest.raises(PeopleError, match=message):
        at_the_machine.create_admin(settings, **who)
