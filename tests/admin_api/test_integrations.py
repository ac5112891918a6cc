"""Integrations: what is kept of them, what is shown, and that a test really sends."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import socket
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from store.settings import Settings
from store.vault import Keyring, Sealed, Vault
from tests.admin_api.conftest import Api, Json, People
from tests.mailbox import mail_server
from tests.routing.servers import ok, raw
from workers import delivery

SECRET = "whsec-canary-3c9d21f0"
PRIVATE = {"allow_private_network": True}


def body(**members: Any) -> Json:
    return {"name": "ops", "type": "webhook", "endpoint": "https://hooks.example.com/x?sig=1", **members}


def trial(api: Api, **members: Any) -> Json:
    """The result of testing an integration that is made for it."""
    made = api.made("/integrations", body(**members))
    answer = api.post(f"/integrations/{made['id']}/test")
    assert answer.status_code == 200, answer.text
    assert SECRET not in answer.text
    result: Json = answer.json()
    assert result.keys() == {"ok", "latency_ms", "detail"}
    return result


# --- the noun -----------------------------------------------------------------------------------------


def test_an_integration_lives_its_life(api: Api) -> None:
    made = api.made("/integrations", body(credentials={"secret": SECRET}, category="alerts"))
    assert made["credential_names"] == ["secret"]
    assert (made["is_default"], made["is_active"], made["settings"]) == (False, True, {})
    path = f"/integrations/{made['id']}"
    assert api.get(path).json() == made
    assert SECRET not in api.get("/integrations").text

    changed = api.patch(path, {"name": "Other"}).json()
    assert (changed["name"], changed["category"], changed["credential_names"]) == (
        "Other",
        "alerts",
        ["secret"],
    )
    replaced = api.put(path, body()).json()
    assert (replaced["category"], replaced["credential_names"]) == (None, ["secret"]), "credentials stay"
    assert api.put(path, replaced).json()["name"] == "ops", "what was read may be sent back"
    refused = api.patch(path, {"type": "slack"})
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "credentials")
    assert api.patch(path, {"credentials": None}).json()["credential_names"] == []

    assert api.delete(path).status_code == 204
    for gone in (api.get(path), api.delete(path), api.post(f"{path}/test"), api.get(f"{path}/health")):
        assert gone.status_code == 404


def test_credentials_are_sealed_for_their_row_and_version(
    api: Api, people: People, settings: Settings
) -> None:
    made = api.made("/integrations", body(credentials={"secret": SECRET}))
    api.patch(f"/integrations/{made['id']}", {"credentials": {"secret": SECRET + "2"}})
    ((blob, version),) = people.run("SELECT sealed_credentials, credentials_version FROM system_integrations")
    where = {"table": "system_integrations", "row": made["id"], "field": "credentials"}
    clear = Vault(Keyring.load(settings)).open(Sealed(blob), version=version, **where)
    assert (json.loads(clear), version) == ({"secret": SECRET + "2"}, 2)
    recorded = people.run("SELECT before::text || after::text FROM audit_log WHERE noun = 'integrations'")
    assert len(recorded) == 2
    assert SECRET not in str(recorded)


def test_one_of_each_type_is_the_default(api: Api) -> None:
    first = api.made("/integrations", body(name="a", is_default=True))
    slack = api.made("/integrations", body(name="s", type="slack", is_default=True))
    second = api.made("/integrations", body(name="b", is_default=True))

    def defaults() -> set[str]:
        return {each["name"] for each in api.get("/integrations").json()["items"] if each["is_default"]}

    assert defaults() == {"b", "s"}
    assert api.patch(f"/integrations/{first['id']}", {"is_default": True}).status_code == 200
    assert defaults() == {"a", "s"}
    assert api.patch(f"/integrations/{second['id']}", {"name": "c"}).json()["is_default"] is False
    listed = api.get("/integrations", params={"type": "slack"}).json()["items"]
    assert [each["id"] for each in listed] == [slack["id"]]


def test_names_are_unique(api: Api) -> None:
    api.made("/integrations", body())
    clash = api.post("/integrations", body())
    assert (clash.status_code, clash.json()["errors"][0]["field"]) == (409, "name")


BAD: list[tuple[Json, str, str]] = [
    ({"type": "pigeon"}, "type", "webhook"),
    ({"endpoint": None}, "endpoint", "needs"),
    ({"type": "slack", "endpoint": None}, "endpoint", "needs"),
    ({"endpoint": "ftp://example.com"}, "endpoint", "http"),
    ({"endpoint": "https://me:pw@example.com"}, "endpoint", "password"),
    ({"endpoint": "https://example.com:99999"}, "endpoint", "absolute"),
    ({"endpoint": "https://example.com\\@10.0.0.1"}, "endpoint", "absolute"),
    ({"endpoint": "https://exämple.com"}, "endpoint", "absolute"),
    ({"type": "email", "endpoint": "https://example.com"}, "endpoint", "smtp"),
    ({"type": "email", "endpoint": "smtp://example.com/x"}, "endpoint", "smtp"),
    ({"credentials": "text"}, "credentials", "dictionary"),
    ({"credentials": {"secret": 5}}, "credentials/secret", "string"),
    ({"credentials": {"secret": ""}}, "credentials/secret", "1"),
    ({"type": "slack", "credentials": {"webhook_url": "file:///x"}}, "credentials/webhook_url", "http"),
    ({"settings": {"password": "x"}}, "settings/password", "credentials"),
    ({"settings": {"allow_private_network": "yes"}}, "settings/allow_private_network", "true"),
    ({"settings": {"from": "a\nb@c"}}, "settings/from", "printable"),
    ({"settings": {"to": []}}, "settings/to", "address"),
    ({"settings": {"to": "a@b\nBcc: c@d"}}, "settings/to", "address"),
    ({"colour": "red"}, "colour", "no such field"),
]


@pytest.mark.parametrize(("members", "field", "fix"), BAD)
def test_what_is_wrong_is_named(api: Api, members: Json, field: str, fix: str) -> None:
    refused = api.post("/integrations", body(**members))
    assert refused.status_code == 422, refused.text
    [error] = refused.json()["errors"]
    assert error["field"] == field
    assert fix in error["message"]


def test_a_mail_server_may_be_named_without_a_scheme(api: Api) -> None:
    for given, kept in (
        ("mail.example.com", "smtp://mail.example.com"),
        ("mail.example.com:2525", "smtp://mail.example.com:2525"),
        ("mail.example.com:465", "smtps://mail.example.com:465"),
    ):
        made = api.made("/integrations", body(name=given, type="email", endpoint=given))
        assert made["endpoint"] == kept


# --- sending ------------------------------------------------------------------------------------------


def test_a_webhook_gets_a_signed_post(api: Api) -> None:
    with raw(lambda connection, _: connection.sendall(ok())) as server:
        result = trial(api, endpoint=f"{server.url}/in", credentials={"secret": SECRET}, settings=PRIVATE)
    assert (result["ok"], "200" in result["detail"]) == (True, True)
    [request] = server.requests
    head, _, sent = request.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /in HTTP/1.1")
    found = re.search(rb"orrery-signature: t=(\d+),v1=([0-9a-f]{64})", head.lower())
    assert found is not None
    assert abs(int(found[1]) - time.time()) < 60
    expected = hmac.new(SECRET.encode(), found[1] + b"." + sent, hashlib.sha256).hexdigest()
    assert found[2].decode() == expected
    assert json.loads(sent)["type"] == "integration.test"


def test_slacks_address_may_be_a_credential(api: Api) -> None:
    with raw(lambda connection, _: connection.sendall(ok(b"ok"))) as server:
        result = trial(
            api,
            name="<ops> & co",
            type="slack",
            endpoint=None,
            credentials={"webhook_url": f"{server.url}/services/T0/{SECRET}"},
            settings={**PRIVATE, "channel": "#ops"},
        )
    assert result["ok"] is True
    [request] = server.requests
    assert request.startswith(f"POST /services/T0/{SECRET} ".encode())
    message = json.loads(request.partition(b"\r\n\r\n")[2])
    assert message["channel"] == "#ops"
    assert "&lt;ops&gt; &amp; co" in message["text"]


def test_what_the_other_side_says_is_told_without_the_secret(api: Api) -> None:
    answer = f"no\x00thanks, not with {SECRET}".encode()
    reply = b"HTTP/1.1 403 Forbidden\r\nContent-Length: %d\r\n\r\n%s" % (len(answer), answer)
    with raw(lambda connection, _: connection.sendall(reply)) as server:
        made = api.made(
            "/integrations", body(endpoint=server.url, credentials={"secret": SECRET}, settings=PRIVATE)
        )
        path = f"/integrations/{made['id']}"
        assert api.get(f"{path}/health").json() == {
            "last_test_at": None, "last_ok": None, "last_latency_ms": None, "last_error": None,
        }  # fmt: skip
        result = api.post(f"{path}/test").json()
    assert result["ok"] is False
    assert "403: no thanks" in result["detail"]
    assert SECRET not in result["detail"]
    health = api.get(f"{path}/health").json()
    assert (health["last_ok"], health["last_error"]) == (False, result["detail"])
    assert health["last_test_at"] is not None


def test_redirects_are_not_followed_and_private_networks_need_leave(api: Api) -> None:
    with raw(lambda connection, _: connection.sendall(ok())) as target:
        moved = f"HTTP/1.1 307 Moved\r\nLocation: {target.url}/\r\nContent-Length: 0\r\n\r\n".encode()
        with raw(lambda connection, _: connection.sendall(moved)) as server:
            followed = trial(api, name="a", endpoint=server.url, settings=PRIVATE)
            refused = trial(api, name="b", endpoint=server.url)
            assert len(server.requests) == 1
        assert target.connections == []
    assert (followed["ok"], "redirect" in followed["detail"]) == (False, True)
    assert refused["ok"] is False
    assert "endpoint leads to" in refused["detail"]
    assert "allow_private_network" in refused["detail"]


def test_nobody_waits_longer_than_the_deadline(
    api: Api, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Servers that say one character after the other, each of which begins a socket's timeout anew."""

    def drip(connection: socket.socket, _: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
        while True:
            connection.sendall(b"x")
            time.sleep(0.05)

    monkeypatch.setattr(delivery.deliver, "__kwdefaults__", {"timeout": 0.5})
    with raw(drip) as server, mail_server(tmp_path, drip=True) as mail:
        slow = trial(api, name="a", endpoint=server.url, settings=PRIVATE)
        settings = {**PRIVATE, "from": "a@example.com", "to": "b@example.com"}
        late = trial(api, name="b", type="email", endpoint=f"127.0.0.1:{mail.port}", settings=settings)
    for result in (slow, late):
        assert result["ok"] is False
        assert 400 <= result["latency_ms"] < 5000
    assert "in time" in late["detail"]


MAIL = {**PRIVATE, "from": "orrery@example.com", "to": ["a@example.com", "b@example.com"]}
LOGIN = {"username": "me", "password": SECRET}


def test_mail_is_sent_encrypted_and_logged_in(api: Api, tmp_path: Path) -> None:
    unverified = {**MAIL, "verify_tls": False}
    for options, scheme in (({"starttls": True}, "smtp"), ({"tls": True}, "smtps")):
        with mail_server(tmp_path, **options) as box:
            at = f"{scheme}://127.0.0.1:{box.port}"
            mail = {"type": "email", "endpoint": at, "credentials": LOGIN}
            result = trial(api, name=f"{scheme} 1", settings=unverified, **mail)
            distrusted = trial(api, name=f"{scheme} 2", settings=MAIL, **mail)
        assert result["ok"] is True, result
        assert (box.logins, box.encrypted) == ([("me", SECRET)], [True])
        [sent] = box.mails
        assert "From: orrery@example.com" in sent
        assert "To: a@example.com, b@example.com" in sent
        assert f"A test of the integration '{scheme} 1'." in sent
        assert (distrusted["ok"], "certificate" in distrusted["detail"]) == (False, True)


def test_a_password_is_never_sent_in_the_clear(api: Api, tmp_path: Path) -> None:
    plain = {**MAIL, "require_tls": False}
    with mail_server(tmp_path) as box:
        mail = {"type": "email", "endpoint": f"smtp://127.0.0.1:{box.port}"}
        strict = trial(api, name="a", settings=MAIL, **mail)
        clear = trial(api, name="b", settings=plain, credentials=LOGIN, **mail)
        assert (box.logins, box.mails) == ([], [])
        loose = trial(api, name="c", settings=plain, **mail)
    assert (strict["ok"], "STARTTLS" in strict["detail"]) == (False, True)
    assert (clear["ok"], "not encrypted" in clear["detail"]) == (False, True)
    assert loose["ok"] is True, loose
    assert len(box.mails) == 1


def test_a_refused_login_says_so_without_the_password(api: Api, tmp_path: Path) -> None:
    with mail_server(tmp_path, tls=True, refuses_login=True) as box:
        result = trial(
            api,
            type="email",
            endpoint=f"smtps://127.0.0.1:{box.port}",
            settings={**MAIL, "verify_tls": False},
            credentials=LOGIN,
        )
    assert (result["ok"], "535" in result["detail"]) == (False, True)


def test_a_bucket_is_written_read_and_cleaned(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "the machine's own")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://169.254.169.254")
    objects: dict[str, bytes] = {}
    calls: list[str] = []

    def store(connection: socket.socket, request: bytes) -> None:
        head, _, content = request.partition(b"\r\n\r\n")
        method, target = head.decode().split(" ")[:2]
        path, query = urlsplit(target).path, parse_qs(urlsplit(target).query)
        assert query["X-Amz-Credential"][0].startswith("AKID/")
        assert "X-Amz-Security-Token" not in query
        calls.append(method)
        if method == "PUT":
            objects[path] = content
        found = objects.pop(path, b"") if method == "DELETE" else objects[path]
        connection.sendall(ok(found if method == "GET" else b""))

    credentials = {"access_key_id": "AKID", "secret_access_key": SECRET}
    with raw(store) as server:
        result = trial(
            api,
            type="s3",
            endpoint=server.url,
            credentials=credentials,
            settings={**PRIVATE, "bucket": "b", "prefix": "p"},
        )
    assert result["ok"] is True, result
    assert calls == ["PUT", "GET", "DELETE"]
    assert objects == {}
    incomplete = trial(api, name="x", type="s3", endpoint=None, settings={"bucket": "b"})
    assert (incomplete["ok"], "access_key_id" in incomplete["detail"]) == (False, True)
