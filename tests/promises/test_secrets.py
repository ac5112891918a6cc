"""Keys stay secret: a provider's key is nowhere but sealed in its row, like whatever else is a secret."""

from __future__ import annotations

import base64
import time
from typing import Any

from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.totp import TOTP

from standalone.api_client import ApiClient, ApiError
from tests.canaries import stored, told
from tests.fleet import Fleet
from tests.sandbox import Sandbox
from workers.client import Client

CANARIES = ("sk-canary-one-5d1f0a7b", "sk-canary-two-93be62c4", "sk-canary-three-0f8d7e6a")
PERSONAL = ("sk-canary-own-71c2b9e0", "sk-canary-next-3f5ad184")
CREDENTIALS = ("whsec-canary-90ab4417", "xoxb-canary-5523cd0e", "https://127.0.0.1:9/canary-hook-6b1d")
PASSWORDS = ("canary words like these 4411", "canary words like those 9020", "canary words refused 7788")
TEXT = "cv_draft"
INPUT = {"profile": "Sam, gardener", "job": "Head gardener"}


def test_no_canary_in_dumps_logs_answers_or_tracebacks(fleet: Fleet, sandbox: Sandbox) -> None:
    answers: list[str] = []
    api = fleet.api()
    fleet.worker(lanes="standard", threads=2)
    client = Client(fleet.settings)
    _use_keys(api, client, sandbox, answers)
    _use_own_keys_and_integrations(api, client, sandbox, answers)
    issued = _use_people(fleet, api, answers)
    client.close()
    seen = {
        "HTTP answers": "\n".join(answers),
        "logs at DEBUG": fleet.logs(),
        **stored(fleet.settings),
    }
    for place, content in seen.items():
        assert content, f"{place} is empty: nothing was looked at"
        sent = CANARIES + PERSONAL + CREDENTIALS + PASSWORDS
        assert told(place, content, sent if place == "HTTP answers" else (*sent, *issued)) == []
    assert CANARIES[0][-4:] in seen["HTTP answers"], "people see the last four characters"


def _use_own_keys_and_integrations(
    api: ApiClient, client: Client, sandbox: Sandbox, answers: list[str]
) -> None:
    """Keys that belong to people, and credentials of what is no provider."""

    def call(method: str, path: str, body: Any = None) -> Any:
        return _called(api, method, path, body, answers)

    provider = call("GET", "/providers")["items"][0]["id"]
    for key in PERSONAL:
        call("PUT", f"/personal-keys/{provider}", {"api_key": key})
        answers.append(str(client.result(client.enqueue(TEXT, INPUT))))
    call("PUT", f"/personal-keys/{provider}", {"api_key": PERSONAL[0], "use_shared_api": PERSONAL[1]})
    call("GET", "/personal-keys")
    call("DELETE", f"/personal-keys/{provider}")
    hook = {"name": "hook", "type": "webhook", "endpoint": f"{sandbox.url}/hook"}
    private = {"settings": {"allow_private_network": True}}
    made = call("POST", "/integrations", {**hook, **private, "credentials": {"secret": CREDENTIALS[0]}})
    assert made is not None, answers[-1]
    call("POST", f"/integrations/{made['id']}/test")
    call("PATCH", f"/integrations/{made['id']}", {"credentials": {"secret": CREDENTIALS[1]}})
    call("PATCH", f"/integrations/{made['id']}", {"credentials": {"secret": CREDENTIALS[1] + "\n", "x": 1}})
    slack = {"name": "slack", "type": "slack", "credentials": {"webhook_url": CREDENTIALS[2]}, **private}
    made = call("POST", "/integrations", slack)
    assert made is not None, answers[-1]
    call("POST", f"/integrations/{made['id']}/test")
    call("GET", "/integrations")
    call("GET", "/audit?limit=200")


def _use_people(fleet: Fleet, root: ApiClient, answers: list[str]) -> list[str]:
    """Everything that hands credentials out; returns them. Each is shown once, by what makes it."""
    issued: list[str] = []

    def call(api: ApiClient, method: str, path: str, body: Any = None) -> Any:
        return _called(api, method, path, body, answers)

    person = {"email": "ada@example.com", "role": "super_admin", "password": PASSWORDS[0]}
    assert call(root, "POST", "/admins", person) is not None, answers[-1]
    login = {"email": person["email"], "password": PASSWORDS[0]}
    call(root, "POST", "/auth/login", {**login, "password": PASSWORDS[2]})
    call(root, "POST", "/auth/login", {"email": PASSWORDS[2], "password": [PASSWORDS[2]]})
    session = root.call("POST", "/api/v1/auth/login", login)
    issued += [session["access_token"], session["refresh_token"]]
    with ApiClient(fleet.url, session["access_token"]) as ada:
        factor = ada.call("POST", "/api/v1/auth/mfa/enroll")
        issued += [factor["secret"], *factor["recovery_codes"]]
        raw = base64.b32decode(factor["secret"])
        issued += [raw.hex(), base64.b64encode(raw).decode()]
        code = TOTP(raw, 6, SHA1(), 30).generate(time.time()).decode()
        assert call(ada, "POST", "/auth/mfa/confirm", {"otp": code}) is not None, answers[-1]
        call(ada, "POST", "/auth/mfa/confirm", {"otp": code})
        call(ada, "POST", "/auth/login", {**login, "otp": "000000"})
        call(ada, "POST", "/auth/password", {"current": PASSWORDS[2], "new": PASSWORDS[1]})
        call(ada, "POST", "/auth/password", {"current": PASSWORDS[0], "new": PASSWORDS[1]})
        call(ada, "POST", "/auth/login", {**login, "otp": factor["recovery_codes"][0]})
        renewed = ada.call("POST", "/api/v1/auth/refresh", {"refresh_token": session["refresh_token"]})
        issued += [renewed["access_token"], renewed["refresh_token"]]
        call(ada, "POST", "/auth/refresh", {"refresh_token": session["refresh_token"]})  # used: a thief's
        call(ada, "POST", "/auth/refresh", {"refresh_token": renewed["refresh_token"]})
    token = root.call("POST", "/api/v1/tokens", {"name": "app", "scopes": ["jobs:read"]})
    issued.append(token["token"])
    with ApiClient(fleet.url, token["token"]) as app:
        call(app, "GET", "/jobs")
        call(app, "POST", "/jobs", {"feature": TEXT, "input": INPUT})
    call(root, "DELETE", f"/tokens/{token['id']}")
    for path in ("/admins", "/tokens", "/sessions", "/audit?limit=200", "/auth/me"):
        call(root, "GET", path)
    return issued


def _called(api: ApiClient, method: str, path: str, body: Any, answers: list[str]) -> Any:
    try:
        answer = api.call(method, f"/api/v1{path}", body)
    except ApiError as refused:
        answers.append(str(refused.problem))
        return None
    answers.append(str(answer))
    return answer if answer is not None else {}


def _use_keys(api: ApiClient, client: Client, sandbox: Sandbox, answers: list[str]) -> None:
    """Everything that touches keys: saving, testing, calling, failing, replacing, and wrong requests."""

    def call(method: str, path: str, body: Any = None) -> Any:
        return _called(api, method, path, body, answers)

    base = {"name": "P", "type": "openai", "base_url": sandbox.openai, "allow_private_network": True}
    provider = call("POST", "/providers", {**base, "slug": "p", "api_key": CANARIES[0]})
    model = call("POST", "/models", {"provider_id": provider["id"], "model_id": "m", "name": "M"})
    call("POST", "/feature-assignments", {"feature_name": TEXT, "model_id": model["id"], "max_retries": 0})
    for mode in ({"mode": "status", "status": 401}, {"mode": "garbage"}, {"mode": "reset"}, None):
        sandbox.heal()
        if mode is not None:
            sandbox.fault(**mode)
        call("POST", f"/providers/{provider['id']}/test")
        job = client.result(client.enqueue(TEXT, INPUT))
        answers.append(str(api.call("GET", f"/api/v1/jobs/{job.id}")))
    call("POST", "/providers/test", {**base, "slug": "x", "api_key": CANARIES[1]})
    call("PATCH", f"/providers/{provider['id']}", {"api_key": CANARIES[2]})
    answers.append(str(client.result(client.enqueue(TEXT, INPUT))))
    call("POST", "/providers", {**base, "slug": "p", "api_key": CANARIES[1]})
    call("POST", "/providers", {**base, "slug": "NOT A SLUG", "api_key": CANARIES[1]})
    call("POST", "/providers", {"slug": "y", "api_key": CANARIES[1]})
    call("PATCH", f"/providers/{provider['id']}", {"api_key": {"nested": CANARIES[1]}})
    call("PATCH", f"/providers/{provider['id']}", {"api_key": CANARIES[1] + "\n"})
    call(
        "PATCH",
        f"/providers/{provider['id']}",
        {"settings": {"extra_headers": {"x": 1}}, "api_key": CANARIES[1]},
    )
    call("GET", "/providers")
    call("GET", f"/providers/{provider['id']}")
