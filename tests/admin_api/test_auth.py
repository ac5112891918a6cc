"""Logging in and out, second factors, and those who try."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from admin_api.second_factors import STEP_SECONDS
from store.settings import Settings
from tests.admin_api.conftest import People
from tests.admin_api.logins import PASSWORD, Person, audited, long_waiting, no_waiting, person

FORWARDED = {"X-Forwarded-For": "203.0.113.9"}


@pytest.fixture
def ada(people: People) -> Person:
    """A super admin without a second factor."""
    return person(people)


@pytest.fixture
def ben(people: People) -> Person:
    """An admin without a second factor."""
    return person(people, "admin")


def kind(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["type"].rpartition(":")[2]


def test_a_session_begins_goes_on_and_ends(people: People, ben: Person) -> None:
    tokens = ben.tokens(email=f" {ben.email.upper()} ")
    assert tokens["expires_in"] == 900
    api = people.nobody(tokens["access_token"])
    me = api.get("/auth/me").json()
    assert (me["id"], me["email"], me["role"], me["mfa"]) == (ben.id, ben.email, "admin", False)
    assert me["second_factor"] == "missing"

    fresh = people.nobody().post("/auth/refresh", {"refresh_token": tokens["refresh_token"]}).json()
    assert fresh["refresh_token"] != tokens["refresh_token"]
    again = people.nobody(fresh["access_token"])
    assert again.get("/auth/me").json()["session_id"] == me["session_id"]
    assert api.get("/features").status_code == 200

    assert again.post("/auth/logout").status_code == 204
    for ended in (api, again):
        assert ended.get("/features").status_code == 401
    refused = people.nobody().post("/auth/refresh", {"refresh_token": fresh["refresh_token"]})
    assert refused.status_code == 401
    session = me["session_id"]
    assert audited(people)[-2:] == [("login", session), ("logout", session)]


@pytest.mark.parametrize("was", ["unknown", "wrong password", "inactive"])
def test_a_failed_login_tells_nothing(people: People, ben: Person, was: str) -> None:
    if was == "inactive":
        people.run("UPDATE admins SET is_active = false")
    email = "somebody@example.com" if was == "unknown" else ben.email
    password = "another password" if was == "wrong password" else PASSWORD
    refused = ben.login(email=email, password=password, otp="123456")
    assert kind(refused) == (401, "wrong-credentials")
    assert refused.json()["detail"] == "The e-mail address or the password is wrong."
    assert audited(people)[-1] == ("login_failed", None if was == "unknown" else ben.id)


def test_what_is_typed_in_place_of_the_address_is_not_kept(people: People, ben: Person) -> None:
    ben.login(email="my secret passphrase", password="x")
    kept = people.run("SELECT row_to_json(audit_log)::text FROM audit_log ORDER BY id DESC LIMIT 1")
    assert "passphrase" not in kept[0][0]
    assert "no e-mail address" in kept[0][0]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"email": "a@b", "password": ""},
        {"email": "a@b", "password": "x" * 1025},
        {"email": "a@b", "password": ["x"]},
        {"email": "a@b", "password": "x", "otp": 123456},
        {"email": "a@b", "password": "x", "opt": "123456"},
    ],
)
def test_a_malformed_login_names_the_field(people: People, body: object) -> None:
    refused = people.nobody().post("/auth/login", body)
    assert refused.status_code == 422
    assert refused.json()["errors"]


# --- refresh ------------------------------------------------------------------------------------------


def test_a_refresh_token_that_comes_again_ends_the_session(people: People, ben: Person) -> None:
    """Also where the thief was faster, and where the client only repeats itself: no grace period."""
    first = ben.tokens()
    other = ben.api()
    second = people.nobody().post("/auth/refresh", {"refresh_token": first["refresh_token"]}).json()
    assert people.nobody().post("/auth/refresh", {"refresh_token": first["refresh_token"]}).status_code == 401
    assert people.nobody(second["access_token"]).get("/auth/me").status_code == 401
    refused = people.nobody().post("/auth/refresh", {"refresh_token": second["refresh_token"]})
    assert refused.status_code == 401
    assert audited(people)[-1][0] == "refresh_reuse"
    assert other.get("/auth/me").status_code == 200


def test_of_two_refreshes_at_once_one_is_made(people: People, ben: Person) -> None:
    token = ben.tokens()["refresh_token"]
    with ThreadPoolExecutor(4) as pool:
        sent = [
            pool.submit(people.nobody().post, "/auth/refresh", {"refresh_token": token}) for _ in range(4)
        ]
    assert sorted(each.result().status_code for each in sent) == [200, 401, 401, 401]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE admins SET is_active = false",
        "UPDATE admin_sessions SET expires_at = now()",
        "UPDATE admin_sessions SET revoked_at = now()",
        "DELETE FROM admin_sessions",
    ],
)
def test_a_session_that_has_ended_is_over(people: People, ben: Person, change: str) -> None:
    tokens = ben.tokens()
    api = people.nobody(tokens["access_token"])
    assert api.get("/features").status_code == 200
    people.run(change)
    assert api.get("/features").status_code == 401
    assert (
        people.nobody().post("/auth/refresh", {"refresh_token": tokens["refresh_token"]}).status_code == 401
    )


def test_no_session_lives_for_ever(people: People, ben: Person) -> None:
    token = ben.tokens()["refresh_token"]
    people.run("UPDATE admin_sessions SET created_at = now() - interval '29 days 23 hours'")
    assert people.nobody().post("/auth/refresh", {"refresh_token": token}).status_code == 200
    ((left,),) = people.run("SELECT extract(epoch FROM expires_at - now())::int FROM admin_sessions")
    assert 3500 < left <= 3600


def test_a_refresh_token_is_no_access_token(people: People, ben: Person) -> None:
    tokens = ben.tokens()
    assert people.nobody(tokens["refresh_token"]).get("/auth/me").status_code == 401
    refused = people.nobody().post("/auth/refresh", {"refresh_token": tokens["access_token"][:200]})
    assert refused.status_code == 401


# --- second factors -----------------------------------------------------------------------------------


def test_a_super_admin_without_a_second_factor_may_only_enrol(people: People, ada: Person) -> None:
    api = ada.api()
    for refused in (
        api.get("/providers"),
        api.post("/providers", {}),
        api.get("/jobs"),
        api.get("/sessions"),
    ):
        assert kind(refused) == (403, "second-factor-missing")
        assert "/auth/mfa/enroll" in refused.json()["detail"]
    assert api.get("/auth/me").json()["second_factor"] == "missing"

    waiting = api.post("/auth/mfa/enroll").json()
    assert api.get("/providers").status_code == 403
    assert ada.login().status_code == 200, "it is not in force yet"
    wrong = api.post("/auth/mfa/confirm", {"otp": "000000"})
    assert wrong.status_code == 422
    enrolment = ada.enrol(api)
    assert enrolment["secret"] != waiting["secret"]
    assert api.get("/providers").status_code == 200, "this session has it at once"
    me = api.get("/auth/me").json()
    assert (me["mfa"], me["second_factor"]) == (True, "enrolled")
    assert "mfa_enrolled" in [action for action, _ in audited(people)]
    assert api.post("/auth/logout").status_code == 204


def test_an_enrolment_is_what_authenticators_take(ada: Person) -> None:
    enrolment = ada.enrol(ada.api())
    uri = urlsplit(enrolment["otpauth_uri"])
    asked = parse_qs(uri.query)
    assert (uri.scheme, uri.netloc) == ("otpauth", "totp")
    assert asked["secret"] == [enrolment["secret"]]
    assert (asked["issuer"], asked["digits"], asked["period"]) == (["Orrery"], ["6"], ["30"])
    assert len(set(enrolment["recovery_codes"])) == 10


def test_the_second_factor_is_asked_for_behind_the_password(ada: Person) -> None:
    ada.enrol(ada.api())
    assert kind(ada.login()) == (401, "otp-required")
    assert kind(ada.login(password="wrong password")) == (401, "wrong-credentials")
    assert kind(ada.login(otp="000000")) == (401, "otp-wrong")
    assert ada.api(otp=ada.code()).get("/auth/me").json()["mfa"] is True


def test_a_code_is_good_for_one_use(people: People, ada: Person) -> None:
    """Of four logins with one code at once, one; later none, and none with the code before it."""
    ada.enrol(ada.api())
    before, now = ada.code(-1), ada.code()
    with ThreadPoolExecutor(4) as pool:
        sent = [pool.submit(ada.login, otp=now) for _ in range(4)]
    assert sorted(each.result().status_code for each in sent) == [200, 401, 401, 401]
    for used in (before, now):
        no_waiting(people)
        assert kind(ada.login(otp=used)) == (401, "otp-wrong")
    no_waiting(people)
    assert ada.login(otp=f"{ada.code(1)[:3]} {ada.code(1)[3:]}").status_code == 200, "clocks may differ"


def test_a_code_of_long_ago_or_far_ahead_is_wrong(people: People, ada: Person) -> None:
    ada.enrol(ada.api())
    people.run("UPDATE admin_second_factors SET last_step = NULL")
    for offset in (-3, 3):
        assert kind(ada.login(otp=ada.code(offset))) == (401, "otp-wrong")
    assert STEP_SECONDS == 30


def test_a_recovery_code_is_good_for_one_use(people: People, ada: Person) -> None:
    one, other, *_ = ada.enrol(ada.api())["recovery_codes"]
    with ThreadPoolExecutor(3) as pool:
        sent = [pool.submit(ada.login, otp=one) for _ in range(3)]
    assert sorted(each.result().status_code for each in sent) == [200, 401, 401]
    no_waiting(people)
    assert ada.api(otp=other.replace("-", "").lower()).get("/auth/me").json()["mfa"] is True
    assert people.run("SELECT count(*) FROM admin_recovery_codes WHERE used_at IS NOT NULL") == [(2,)]


def test_enrolling_ends_the_other_sessions(people: People, ben: Person) -> None:
    other, api = ben.api(), ben.api()
    ben.enrol(api)
    assert other.get("/auth/me").status_code == 401
    assert api.get("/auth/me").status_code == 200


def test_a_second_factor_is_replaced_by_who_has_it(people: People, ada: Person) -> None:
    ada.enrol(ada.api())
    hasty = people.admin(mfa=False)
    people.run("UPDATE admin_second_factors SET admin_id = (SELECT id FROM admins ORDER BY id DESC LIMIT 1)")
    assert hasty.post("/auth/mfa/enroll").status_code == 403
    assert hasty.post("/auth/mfa/confirm", {"otp": "123456"}).status_code == 403
    people.run("UPDATE admin_second_factors SET admin_id = %s", [ada.id])

    api = ada.api(otp=ada.code())
    old = ada.secret
    ada.enrol(api)
    assert ada.secret != old
    assert people.run("SELECT count(*) FROM admin_second_factors") == [(1,)]
    assert people.run("SELECT count(*) FROM admin_recovery_codes") == [(10,)]


def test_a_factor_of_somebody_else_does_not_open(people: People, ada: Person, ben: Person) -> None:
    """The secret is sealed for its row: pasted over another's it is of no use."""
    ada.enrol(ada.api())
    ben.enrol(ben.api())
    people.run(
        "UPDATE admin_second_factors SET sealed_secret = (SELECT sealed_secret FROM admin_second_factors "
        "WHERE admin_id = %s) WHERE admin_id = %s",
        [ben.id, ada.id],
    )
    ada.secret = ben.secret
    assert ada.login(otp=ada.code()).status_code not in (200, 500)


def test_nothing_waits_to_be_confirmed(ben: Person) -> None:
    assert ben.api().post("/auth/mfa/confirm", {"otp": "123456"}).status_code == 409


# --- postponing it ------------------------------------------------------------------------------------


@pytest.fixture
def local(settings: Settings, serve: Callable[..., httpx.Client]) -> People:
    """The API as `orrery up` starts it on a loopback address."""
    settings = settings.model_copy(update={"second_factor_postponable": True})
    return People(settings, serve(settings))


def test_on_this_machine_it_may_be_postponed(local: People) -> None:
    ada = person(local)
    api, other = ada.api(), ada.api()
    me = api.get("/auth/me").json()
    assert (me["mfa"], me["second_factor"]) == (True, "postponed")
    assert api.post("/providers", {}).status_code == 422
    for header in ("X-Forwarded-For", "Forwarded", "X-Real-IP", "Via"):
        assert kind(api.get("/providers", headers={header: "x"})) == (403, "second-factor-missing")
    assert person(local, "admin").api().get("/auth/me").json()["second_factor"] == "missing"
    assert local.admin(mfa=False).post("/providers", {}).status_code == 403, "an operator's choice"

    ada.enrol(api)
    assert api.post("/providers", {}).status_code == 422
    assert other.get("/auth/me").status_code == 401
    assert kind(ada.login()) == (401, "otp-required")


def test_behind_a_proxy_it_may_not(settings: Settings, serve: Callable[..., httpx.Client]) -> None:
    both = {"second_factor_postponable": True, "trusted_proxies": "10.0.0.0/8"}
    changed = settings.model_copy(update=both)
    people = People(changed, serve(changed))
    assert person(people).api().get("/providers").status_code == 403


# --- guessing -----------------------------------------------------------------------------------------


def test_guessing_is_slowed_down(people: People, ben: Person) -> None:
    answers = [ben.login(password="wrong password") for _ in range(8)]
    assert [answer.status_code for answer in answers].count(401) == 6, "five are free, the next one waits"
    late = answers[-1]
    assert kind(late) == (429, "too-many-attempts")
    assert 0 < int(late.headers["retry-after"]) <= 2
    assert ben.login().status_code == 429, "the right one, too"
    failed = [action for action, _ in audited(people)].count("login_failed")
    assert failed == 6, "who is told to wait was not looked at"
    waits = []
    for _ in range(9):
        no_waiting(people)
        ben.login(password="wrong password")
        waits.append(int(ben.login().headers["retry-after"]))
    assert waits == sorted(waits)
    assert waits[-1] == 300
    no_waiting(people)
    assert ben.login().status_code == 200, "waits are bounded"
    assert ben.login(password="wrong password").status_code == 401, "and forgotten then"


def test_failures_fade(people: People, ben: Person) -> None:
    for _ in range(6):
        ben.login(password="wrong password")
    people.run("UPDATE login_throttles SET failed_at = now() - interval '2 hours', blocked_until = now()")
    for _ in range(4):
        assert ben.login(password="wrong password").status_code == 401


def test_a_thousand_at_once_are_no_more_than_one_after_the_other(people: People, ben: Person) -> None:
    with ThreadPoolExecutor(16) as pool:
        sent = [pool.submit(ben.login, password="wrong password") for _ in range(32)]
    assert sorted(each.result().status_code for each in sent).count(401) == 6


def test_codes_are_counted_too(people: People, ada: Person) -> None:
    ada.enrol(ada.api())
    answers = [ada.login(otp="000000") for _ in range(8)]
    assert [answer.status_code for answer in answers].count(401) == 6
    assert 2 < int(answers[-1].headers["retry-after"]) <= 30
    assert ada.login(otp=ada.code()).status_code == 429
    assert kind(ada.login()) == (401, "otp-required"), "the password is not what was guessed"
    no_waiting(people)
    assert ada.login(otp=ada.code()).status_code == 200

    ben = person(people, "admin")
    api = ben.api()
    api.post("/auth/mfa/enroll")
    answers = [api.post("/auth/mfa/confirm", {"otp": "000000"}) for _ in range(8)]
    assert [answer.status_code for answer in answers].count(422) == 6
    assert answers[-1].status_code == 429


@pytest.fixture
def proxied(settings: Settings, serve: Callable[..., httpx.Client]) -> People:
    """The API behind a proxy, which is this machine."""
    settings = settings.model_copy(update={"trusted_proxies": "127.0.0.1"})
    return People(settings, serve(settings))


def test_strangers_lock_nobody_out(proxied: People) -> None:
    """A thousand networks guess: the person gets in where they were before, and elsewhere within a minute."""
    ben = person(proxied, "admin")
    home, away = {"X-Forwarded-For": "198.51.100.7"}, {"X-Forwarded-For": "2001:db8:1::1"}
    session = ben.api(headers=home)

    def guessed(number: int) -> int:
        address = {"X-Forwarded-For": f"203.0.113.{number}"}
        return ben.login(password="wrong password", headers=address).status_code

    assert [guessed(number) for number in range(21)] == [401] * 21
    long_waiting(proxied)
    assert [guessed(number) for number in range(21, 30)] == [429] * 9
    assert ben.login(headers=home).status_code == 200
    assert session.get("/auth/me").status_code == 200
    assert ben.login(headers=away).status_code == 429
    for number in range(30):
        no_waiting(proxied)
        guessed(number)
    assert int(ben.login(headers=away).headers["retry-after"]) <= 60
    assert ben.login(headers=home).status_code == 200
    no_waiting(proxied)
    assert ben.login(headers=away).status_code == 200


def test_a_network_that_tries_everybody_waits(proxied: People) -> None:
    def guessed(number: int) -> int:
        body = {"email": f"{number}@example.com", "password": "wrong password"}
        address = {"X-Forwarded-For": f"2001:db8::{number:x}"}
        return proxied.nobody().post("/auth/login", body, headers=address).status_code

    assert [guessed(number) for number in range(21)] == [401] * 21
    long_waiting(proxied)
    assert [guessed(number) for number in range(21, 30)] == [429] * 9, "a /64 is one network"


def test_only_known_proxies_say_who_calls(people: People, proxied: People) -> None:
    for api, expected in ((proxied, "203.0.113.9"), (people, "127.0.0.1")):
        ben = person(api, "admin")
        spoofed = {"X-Forwarded-For": "198.51.100.1, 203.0.113.9"}
        listed = ben.api(headers=spoofed).get("/sessions").json()["items"]
        assert [session["address"] for session in listed] == [expected]


# --- passwords ----------------------------------------------------------------------------------------


def test_a_person_changes_their_own_password(people: People, ben: Person) -> None:
    other, api = ben.api(), ben.api()
    new = "other words that are longer"
    assert api.post("/auth/password", {"current": "wrong password", "new": new}).status_code == 422
    assert api.post("/auth/password", {"current": PASSWORD, "new": "short"}).status_code == 422
    assert api.post("/auth/password", {"current": PASSWORD, "new": new}).status_code == 204
    assert api.get("/auth/me").status_code == 200
    assert other.get("/auth/me").status_code == 401
    assert ben.login().status_code == 401
    assert ben.login(password=new).status_code == 200
    assert ("password_changed", ben.id) in audited(people)


def test_guessing_ones_own_password_is_slowed_down(ben: Person) -> None:
    api = ben.api()
    body = {"current": "wrong password", "new": "other words that are longer"}
    answers = [api.post("/auth/password", body).status_code for _ in range(8)]
    assert (answers.count(422), answers.count(429)) == (6, 2)


def test_secrets_are_kept_by_hash_or_seal_only(people: People, ada: Person) -> None:
    tokens = ada.tokens()
    enrolment = ada.enrol(people.nobody(tokens["access_token"]))
    secrets = [tokens["refresh_token"], enrolment["secret"], PASSWORD, *enrolment["recovery_codes"]]
    tables = people.run(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')"
    )
    rows = [
        str(row) for (table,) in tables for row in people.run(f'SELECT to_jsonb(t)::text FROM "{table}" t')
    ]
    for secret in secrets:
        for spelled in (secret, secret.replace("-", ""), secret.encode().hex()):
            assert not [row for row in rows if spelled in row]
