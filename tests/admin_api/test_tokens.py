"""Access tokens that are not ours, or not any more: each is refused, whatever it says."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from store.settings import Settings
from store.vault import Keyring
from tests.admin_api.conftest import Api, People
from tests.admin_api.logins import person


class Forge:
    """Tokens like a real one, but for what is asked."""

    def __init__(self, token: str, keyring: Keyring) -> None:
        self.token = token
        self.keyring = keyring
        self.key = keyring.derive("admin-jwt")
        self.claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})

    def claiming(self, **changed: Any) -> str:
        """Well signed, with other claims; None leaves one out."""
        body = {name: value for name, value in {**self.claims, **changed}.items() if value is not None}
        return self.raw(json.dumps(self.header), json.dumps(body, default=datetime.timestamp))

    def headed(self, header: Mapping[str, Any], *, key: bytes | None = None, hash: str = "sha256") -> str:
        """Well signed, with another header."""
        return self.raw(json.dumps(header), json.dumps(self.claims), key=key, hash=hash)

    def raw(self, header: str, claims: str, *, key: bytes | None = None, hash: str = "sha256") -> str:
        signed = f"{_encoded(header.encode())}.{_encoded(claims.encode())}"
        signature = hmac.digest(self.key if key is None else key, signed.encode(), hash)
        return f"{signed}.{_encoded(signature)}"

    @property
    def header(self) -> dict[str, Any]:
        return {"alg": "HS256", "typ": "JWT", "kid": self.keyring.current}


@pytest.fixture
def ours(people: People) -> Api:
    return person(people, "admin").api()


@pytest.fixture
def forge(ours: Api, settings: Settings) -> Forge:
    assert ours.token is not None
    return Forge(ours.token, Keyring.load(settings))


def refuse(http: httpx.Client, *tokens: str) -> None:
    for token in tokens:
        answer = http.get("/api/v1/features", headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 401, (token, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["www-authenticate"].startswith("Bearer")


def test_the_forge_can_make_a_good_one(people: People, forge: Forge) -> None:
    """Or the tests below would show nothing."""
    good = [forge.token, forge.claiming(), forge.headed(forge.header)]
    for token in good:
        assert people.nobody(token).get("/features").status_code == 200


def test_no_algorithm_but_the_pinned_one(http: httpx.Client, forge: Forge) -> None:
    head, body, signature = forge.token.split(".")
    unsigned = [
        f"{_encoded(json.dumps({**forge.header, 'alg': name}).encode())}.{body}."
        for name in ("none", "None", "NONE", "nOnE", "")
    ]
    refuse(
        http, *unsigned, *(f"{token}{signature}" for token in unsigned), f"{head}.{body}.", f"{head}.{body}"
    )
    for name, digest in (("HS384", "sha384"), ("HS512", "sha512"), ("hs256", "sha256"), ("HS256 ", "sha256")):
        refuse(http, forge.headed({**forge.header, "alg": name}, hash=digest))
    refuse(http, forge.headed({**forge.header, "alg": "HS256"}, hash="sha384"))
    missing = {name: value for name, value in forge.header.items() if name != "alg"}
    refuse(http, forge.headed(missing), forge.headed({**forge.header, "alg": ["HS256"]}))


def test_no_public_key_as_a_secret(http: httpx.Client, forge: Forge) -> None:
    """Algorithm confusion: a key that everybody may know signs as if it were the shared one."""
    header = {"kid": forge.keyring.current}
    rsa_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    ec_key = ec.generate_private_key(ec.SECP256R1())
    refuse(
        http,
        jwt.encode(forge.claims, rsa_key, algorithm="RS256", headers=header),
        jwt.encode(forge.claims, ec_key, algorithm="ES256", headers=header),
    )
    for private in (rsa_key, ec_key):
        public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        for algorithm in ("HS256", "RS256", "ES256"):
            refuse(http, forge.headed({**forge.header, "alg": algorithm}, key=public))


def test_no_key_but_the_keyrings(http: httpx.Client, forge: Forge) -> None:
    """A kid picks one of the keyring's: it is no path, no query, no address, and no key itself."""
    for kid in (
        "nowhere",
        "",
        "../../../../dev/null",
        "/dev/null",
        "master.keys",
        "' UNION SELECT 'x' --",
        "http://127.0.0.1/key",
        "\x00",
        "\ud800",
        "k" * 2000,
        0,
        None,
        True,
        ["x"],
        {"x": 1},
    ):
        for key in (b"", b"x", forge.key):
            refuse(http, forge.headed({**forge.header, "kid": kid}, key=key))
    without = {"alg": "HS256", "typ": "JWT"}
    jwk = {"kty": "oct", "k": _encoded(b"k" * 32)}
    for more in ({"jwk": jwk}, {"jku": "http://127.0.0.1/"}, {"x5u": "http://127.0.0.1/"}, {"crit": ["exp"]}):
        refuse(
            http,
            forge.headed({**forge.header, **more}),
            forge.headed({**forge.header, **more}, key=b"k" * 32),
        )
    refuse(http, forge.headed(without), forge.headed({**forge.header, "typ": "JWE"}))
    refuse(http, forge.headed(forge.header, key=b"k" * 32))
    refuse(http, forge.headed(forge.header, key=forge.keyring.derive("another purpose")))
    refuse(http, forge.headed(forge.header, key=forge.keyring.key(forge.keyring.current)))


def test_no_token_of_another_time_or_place(http: httpx.Client, forge: Forge) -> None:
    now = datetime.now(UTC)
    minute, hour = timedelta(minutes=1), timedelta(hours=1)
    impossible: tuple[dict[str, Any], ...] = (
        {"exp": now - minute},
        {"exp": 0},
        {"exp": "tomorrow"},
        {"exp": now + 2 * hour},
        {"exp": 1e300},
        {"exp": [1]},
        {"nbf": now + minute},
        {"nbf": "x"},
        {"iat": now + hour},
        {"iat": "x"},
        {"aud": "somebody"},
        {"aud": []},
        {"aud": ""},
        {"aud": {"orrery-admin": 1}},
        {"iss": "somebody"},
        {"iss": ["orrery"]},
        {"iss": ""},
        {"sub": "root"},
        {"sub": str(uuid4())},
        {"sub": 1},
        {"sid": str(uuid4())},
        {"sid": "x"},
        {"sid": 1},
        *({name: None} for name in ("exp", "nbf", "iat", "aud", "iss", "sub", "mfa", "jti", "role", "email")),
    )
    for changed in impossible:
        refuse(http, forge.claiming(**changed))


def test_no_session_of_somebody_elses(http: httpx.Client, people: People, forge: Forge) -> None:
    other = person(people, "admin").api()
    session = other.get("/auth/me").json()["session_id"]
    refuse(http, forge.claiming(sid=session))


def test_nothing_that_was_altered(http: httpx.Client, forge: Forge) -> None:
    head, body, signature = forge.token.split(".")
    promoted = _encoded(json.dumps({**forge.claims, "role": "super_admin", "mfa": True}).encode())
    refuse(
        http,
        f"{head}.{promoted}.{signature}",
        f"{head}.{body}.{signature[:-2]}",
        f"{head}.{body}.{signature}A",
    )
    for place in range(0, len(forge.token), 7):
        letter = "A" if forge.token[place] != "A" else "B"
        altered = f"{forge.token[:place]}{letter}{forge.token[place + 1 :]}"
        if altered.split(".")[:2] != [head, body]:
            refuse(http, altered)
    raw = base64.urlsafe_b64decode(signature + "=")
    refuse(
        http,
        f"{head}.{body}.{_encoded(bytes([raw[0] ^ 1]) + raw[1:])}",
        f"{head}.{body}.{_encoded(bytes(32))}",
    )


def test_nothing_that_readers_could_differ_on(http: httpx.Client, forge: Forge) -> None:
    header, claims = json.dumps(forge.header), json.dumps(forge.claims)
    assert status_of(http, forge.raw(header, claims)) == 200
    for twice in (
        forge.raw(header[:-1] + ', "alg": "HS256"}', claims),
        forge.raw('{"alg": "none", ' + header[1:], claims),
        forge.raw('{"kid": "x", ' + header[1:], claims),
        forge.raw(header, claims[:-1] + f', "sub": "{forge.claims["sub"]}"}}'),
        forge.raw(header, f'{{"mfa": true, {claims[1:]}'),
        forge.raw(header, claims[:-1] + ', "exp": 99999999999}'),
        forge.raw(f"[{header}]", claims),
        forge.raw(header, f"[{claims}]"),
        forge.raw(header, claims + "x"),
        forge.raw(header, "null"),
    ):
        refuse(http, twice)


def test_nothing_oversized_or_without_form(http: httpx.Client, forge: Forge) -> None:
    refuse(
        http,
        forge.claiming(jti="x" * 5000),
        "x" * 4097,
        "." * 4000,
        "a.b.c",
        "..",
        "e30.e30.e30",
        f"{_encoded(b'[' * 2900)}.e30.",
        f"{forge.token}.{forge.token}",
        forge.token.replace(".", ".."),
        "orr_" + "x" * 43,
        "orrr_" + "x" * 43,
    )
    for header in ("Bearer", "Basic eDp4", f"Token {forge.token}", forge.token, "\u00ff"):
        answer = http.get("/api/v1/features", headers={b"Authorization": header.encode("latin-1")})
        assert answer.status_code == 401


def test_nothing_that_was_revoked(people: People, forge: Forge, ours: Api, http: httpx.Client) -> None:
    assert ours.post("/auth/logout").status_code == 204
    refuse(http, forge.token)


def status_of(http: httpx.Client, token: str) -> int:
    return http.get("/api/v1/features", headers={"Authorization": f"Bearer {token}"}).status_code


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")
