"""People who log in as they do outside: with a password, and an authenticator."""

from __future__ import annotations

import base64
import time
from dataclasses import dataclass
from typing import Any

import httpx
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.totp import TOTP

from admin_api.credentials import hash_password
from store.ids import new_id
from tests.admin_api.conftest import Api, Json, People

PASSWORD = "four words like these"
HASH = hash_password(PASSWORD)


@dataclass
class Person:
    """Somebody who can log in; `secret` once they have enrolled."""

    people: People
    id: str
    email: str
    secret: str = ""

    def login(self, **members: Any) -> httpx.Response:
        headers = members.pop("headers", {})
        body = {"email": self.email, "password": PASSWORD, **members}
        return self.people.nobody().post("/auth/login", body, headers=headers)

    def tokens(self, **members: Any) -> Json:
        answer = self.login(**members)
        assert answer.status_code == 200, answer.text
        tokens: Json = answer.json()
        return tokens

    def api(self, **members: Any) -> Api:
        """A client with a session of its own."""
        return self.people.nobody(self.tokens(**members)["access_token"])

    def enrol(self, api: Api) -> Json:
        """Enrol and confirm; the enrolment's answer."""
        made = api.post("/auth/mfa/enroll")
        assert made.status_code == 200, made.text
        enrolment: Json = made.json()
        self.secret = enrolment["secret"]
        confirmed = api.post("/auth/mfa/confirm", {"otp": self.code(-1)})
        assert confirmed.status_code == 200, confirmed.text
        return enrolment

    def code(self, offset: int = 0) -> str:
        """What the authenticator shows, `offset` steps from now."""
        now = time.time() + 30 * offset
        return TOTP(base64.b32decode(self.secret), 6, SHA1(), 30).generate(now).decode()


def person(people: People, role: str = "super_admin") -> Person:
    made = Person(people, str(new_id()), f"{new_id()}@example.com")
    people.run(
        "INSERT INTO admins (id, email, role, password_hash) VALUES (%s, %s, %s, %s)",
        [made.id, made.email, role, HASH],
    )
    return made


def no_waiting(people: People) -> None:
    """As if everybody had waited."""
    people.run("UPDATE login_throttles SET blocked_until = now()")


def long_waiting(people: People) -> None:
    """As if the waits that there are, a second at first, were longer than a slow test."""
    people.run(
        "UPDATE login_throttles SET blocked_until = blocked_until + interval '1 h' "
        "WHERE blocked_until > failed_at + interval '0.5 s'"
    )


def audited(people: People) -> list[tuple[str, str | None]]:
    """What was audited so far, the oldest first: action and noun_id."""
    return [tuple(row) for row in people.run("SELECT action, noun_id FROM audit_log ORDER BY id")]
