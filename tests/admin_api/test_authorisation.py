"""Who may do what, for every route: the table is the rule; what OpenAPI says and what happens obey it.

The database's side of the same table is `tests/store/test_roles.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from admin_api.security import Scope
from admin_api.tokens import mint_admin_jwt
from store.ids import new_id
from store.settings import Settings
from store.tables import Admin
from store.vault import Keyring
from tests.admin_api.conftest import Api, Json, People

SOMETHING = "01a20014-64af-763e-823e-5bdedc96b077"


@dataclass(frozen=True)
class Rule:
    """What OpenAPI must say, and who gets in.

    `mfa`: a super admin's token must say that a second factor was given. `enrolling`: a super admin gets in
    who has logged in without one.
    """

    roles: tuple[str, ...]
    mfa: bool = False
    scope: str | None = None
    enrolling: bool = False
    is_public: bool = False

    @property
    def openapi(self) -> Json:
        said: Json = {"x-orrery-roles": sorted(self.roles)}
        if self.mfa:
            said["x-orrery-mfa"] = True
        if self.scope is not None:
            said["x-orrery-scope"] = self.scope
        if self.enrolling:
            said["x-orrery-enrolling"] = True
        if self.is_public:
            said["x-orrery-public"] = True
        return said


OPEN = None  # a probe, which has no rule
PUBLIC = Rule(("super_admin", "admin", "application"), is_public=True)
READ = Rule(("super_admin", "admin"))
WRITE = Rule(("super_admin",), mfa=True)
OWN = Rule(("super_admin", "admin"), mfa=True)
SELF = Rule(("super_admin", "admin"), enrolling=True)
ENQUEUE = Rule(("super_admin", "admin", "application"), mfa=True, scope="jobs:enqueue")
WATCH = Rule(("super_admin", "admin", "application"), scope="jobs:read")
METRICS = Rule(("super_admin", "admin", "application"), scope="metrics")

ROUTES: Mapping[str, Rule | None] = {
    "GET /healthz": OPEN,
    "GET /metrics": METRICS,
    "GET /readyz": OPEN,
    "GET /api/v1/access": READ,
    "GET /api/v1/admins": READ,
    "POST /api/v1/admins": WRITE,
    "GET /api/v1/admins/{admin_id}": READ,
    "PATCH /api/v1/admins/{admin_id}": WRITE,
    "DELETE /api/v1/admins/{admin_id}": WRITE,
    "GET /api/v1/alerts": READ,
    "POST /api/v1/alerts/{alert_id}/acknowledge": WRITE,
    "GET /api/v1/audit": READ,
    "GET /api/v1/audit/{entry_id}": READ,
    "GET /api/v1/audit/verify": READ,
    "GET /api/v1/batches": READ,
    "POST /api/v1/auth/login": PUBLIC,
    "POST /api/v1/auth/logout": SELF,
    "GET /api/v1/auth/me": SELF,
    "POST /api/v1/auth/mfa/confirm": SELF,
    "POST /api/v1/auth/mfa/enroll": SELF,
    "POST /api/v1/auth/password": OWN,
    "POST /api/v1/auth/refresh": PUBLIC,
    "GET /api/v1/budgets": READ,
    "POST /api/v1/budgets": WRITE,
    "GET /api/v1/budgets/{budget_id}": READ,
    "PUT /api/v1/budgets/{budget_id}": WRITE,
    "PATCH /api/v1/budgets/{budget_id}": WRITE,
    "DELETE /api/v1/budgets/{budget_id}": WRITE,
    "GET /api/v1/catalog": READ,
    "POST /api/v1/catalog/{provider}/install": WRITE,
    "GET /api/v1/feature-assignments": READ,
    "POST /api/v1/feature-assignments": WRITE,
    "GET /api/v1/feature-assignments/{assignment_id}": READ,
    "PUT /api/v1/feature-assignments/{assignment_id}": WRITE,
    "PATCH /api/v1/feature-assignments/{assignment_id}": WRITE,
    "DELETE /api/v1/feature-assignments/{assignment_id}": WRITE,
    "POST /api/v1/feature-assignments/{assignment_id}/explain": READ,
    "POST /api/v1/feature-assignments/{assignment_id}/rollback": WRITE,
    "GET /api/v1/feature-assignments/{assignment_id}/versions": READ,
    "POST /api/v1/erasures": WRITE,
    "GET /api/v1/features": READ,
    "POST /api/v1/features": WRITE,
    "GET /api/v1/features/{name}": READ,
    "PUT /api/v1/features/{name}": WRITE,
    "PATCH /api/v1/features/{name}": WRITE,
    "DELETE /api/v1/features/{name}": WRITE,
    "GET /api/v1/forecast": READ,
    "GET /api/v1/groups": READ,
    "GET /api/v1/groups/{group_id}": READ,
    "GET /api/v1/integrations": READ,
    "POST /api/v1/integrations": WRITE,
    "GET /api/v1/integrations/{integration_id}": READ,
    "PUT /api/v1/integrations/{integration_id}": WRITE,
    "PATCH /api/v1/integrations/{integration_id}": WRITE,
    "DELETE /api/v1/integrations/{integration_id}": WRITE,
    "GET /api/v1/integrations/{integration_id}/health": READ,
    "POST /api/v1/integrations/{integration_id}/test": WRITE,
    "GET /api/v1/jobs": WATCH,
    "POST /api/v1/jobs": ENQUEUE,
    "POST /api/v1/jobs/bulk": ENQUEUE,
    "POST /api/v1/jobs/cancel": ENQUEUE,
    "POST /api/v1/jobs/retry": ENQUEUE,
    "GET /api/v1/jobs/{job_id}": WATCH,
    "GET /api/v1/jobs/{job_id}/artifact": WATCH,
    "GET /api/v1/jobs/{job_id}/events": WATCH,
    "POST /api/v1/jobs/{job_id}/cancel": ENQUEUE,
    "POST /api/v1/jobs/{job_id}/retry": ENQUEUE,
    "GET /api/v1/models": READ,
    "POST /api/v1/models": WRITE,
    "GET /api/v1/models/{model_id}": READ,
    "PUT /api/v1/models/{model_id}": WRITE,
    "PATCH /api/v1/models/{model_id}": WRITE,
    "DELETE /api/v1/models/{model_id}": WRITE,
    "GET /api/v1/models/{model_id}/prices": READ,
    "POST /api/v1/models/{model_id}/prices": WRITE,
    "DELETE /api/v1/models/{model_id}/prices/{price_id}": WRITE,
    "GET /api/v1/personal-keys": READ,
    "GET /api/v1/personal-keys/{provider_id}": READ,
    "PUT /api/v1/personal-keys/{provider_id}": OWN,
    "DELETE /api/v1/personal-keys/{provider_id}": OWN,
    "GET /api/v1/providers": READ,
    "POST /api/v1/providers": WRITE,
    "POST /api/v1/providers/test": WRITE,
    "GET /api/v1/providers/{provider_id}": READ,
    "PUT /api/v1/providers/{provider_id}": WRITE,
    "PATCH /api/v1/providers/{provider_id}": WRITE,
    "DELETE /api/v1/providers/{provider_id}": WRITE,
    "GET /api/v1/providers/{provider_id}/health": READ,
    "POST /api/v1/providers/{provider_id}/rotate-key": WRITE,
    "POST /api/v1/providers/{provider_id}/test": WRITE,
    "GET /api/v1/queues": READ,
    "POST /api/v1/queues/{lane}/pause": WRITE,
    "POST /api/v1/queues/{lane}/resume": WRITE,
    "GET /api/v1/retention": READ,
    "GET /api/v1/retention/{table_name}": READ,
    "PATCH /api/v1/retention/{table_name}": WRITE,
    "GET /api/v1/schedules": READ,
    "POST /api/v1/schedules": WRITE,
    "POST /api/v1/schedules/preview": READ,
    "GET /api/v1/schedules/{schedule_id}": READ,
    "PUT /api/v1/schedules/{schedule_id}": WRITE,
    "PATCH /api/v1/schedules/{schedule_id}": WRITE,
    "DELETE /api/v1/schedules/{schedule_id}": WRITE,
    "POST /api/v1/schedules/{schedule_id}/run-now": WRITE,
    "GET /api/v1/schedules/{schedule_id}/fires": READ,
    "GET /api/v1/sessions": READ,
    "DELETE /api/v1/sessions": OWN,
    "DELETE /api/v1/sessions/{session_id}": OWN,
    "GET /api/v1/tokens": READ,
    "POST /api/v1/tokens": WRITE,
    "DELETE /api/v1/tokens/{token_id}": WRITE,
    "GET /api/v1/usage/attempts": READ,
    "GET /api/v1/usage/export.csv": READ,
    "GET /api/v1/usage/stats": READ,
    "GET /api/v1/workers": READ,
}

_ENDING = ("/auth/logout", "/auth/password", "/sessions", "/sessions/{session_id}")
"""Routes that may end their caller's session: each is called by somebody new."""

Callers = Mapping[str, Callable[[], Api]]


@pytest.fixture
def operations(http: httpx.Client) -> dict[str, Json]:
    """Every operation of the OpenAPI document."""
    paths = http.get("/openapi.json").json()["paths"]
    return {
        f"{method.upper()} {path}": operation
        for path, methods in paths.items()
        for method, operation in methods.items()
    }


def test_the_table_knows_every_route_and_every_route_says_its_rule(operations: dict[str, Json]) -> None:
    assert sorted(operations) == sorted(ROUTES), "a route is missing in the table, or one in it is gone"
    differing = {
        name: (said, None if rule is None else rule.openapi)
        for name, rule in ROUTES.items()
        if (said := _said(operations[name])) != ({} if rule is None else rule.openapi)
    }
    assert differing == {}


def test_every_route_lets_in_whom_the_table_names(
    http: httpx.Client, people: People, settings: Settings, operations: dict[str, Json]
) -> None:
    strangers, callers = _strangers(people), _callers(people, settings)
    wrong: list[str] = []
    known: dict[str, str | None] = {}
    for name in operations:
        rule = ROUTES[name]
        method, path = _filled(name)
        for caller, header in strangers.items():
            refusal = None if _is_open(rule) else 401
            wrong += _unlike(name, caller, _status(http, method, path, header), refusal)
        for caller, made in callers.items():
            refusal = None if _is_open(rule) or _may(rule, caller) else 403
            if caller not in known:
                known[caller] = made().token
            token = made().token if name.endswith(_ENDING) else known[caller]
            header = {"Authorization": f"Bearer {token}"}
            wrong += _unlike(name, caller, _status(http, method, path, header), refusal)
    assert wrong == []


def _said(operation: Json) -> Json:
    return {name: value for name, value in operation.items() if name.startswith("x-orrery-")}


def _filled(name: str) -> tuple[str, str]:
    method, _, path = name.partition(" ")
    return method, "/".join(SOMETHING if part.startswith("{") else part for part in path.split("/"))


def _status(http: httpx.Client, method: str, path: str, headers: Mapping[str, str]) -> int:
    """What the route answers to a body that nobody can read: the guard must come before it. Through a proxy:
    to callers on this machine the metrics are open."""
    content = None if method == "GET" else b"{not json"
    forwarded = {"X-Forwarded-For": "203.0.113.7"}
    return http.request(method, path, headers={**forwarded, **headers}, content=content).status_code


def _unlike(name: str, caller: str, status: int, refusal: int | None) -> Iterator[str]:
    """A line where `status` is not the refusal; or is one, or an error of ours, and there should be none."""
    if status != refusal if refusal else status in (401, 403) or status >= 500:
        yield f"{name} by {caller}: {status}, expected {refusal or 'to be let in'}"


def _is_open(rule: Rule | None) -> bool:
    return rule is None or rule.is_public


def _may(rule: Rule | None, caller: str) -> bool:
    role, _, detail = caller.partition(", ")
    if rule is None or role not in rule.roles:
        return False
    if role == "application":
        return rule.scope in (None, detail)
    if role == "super_admin" and detail == "logged in without a second factor":
        return rule.enrolling
    return not (role == "super_admin" and detail == "no second factor" and rule.mfa)


def _strangers(people: People) -> dict[str, Mapping[str, str]]:
    past = datetime.now(UTC) - timedelta(seconds=1)
    revoked = people.application()
    people.run("UPDATE app_tokens SET revoked_at = now()")
    tokens = {
        "an expired admin": people.admin(minutes=-1).token,
        "an expired application": people.application(expires_at=past).token,
        "a revoked application": revoked.token,
        "somebody invented": "orr_" + "x" * 43,
        "garbage": "a.b.c",
    }
    strangers: dict[str, Mapping[str, str]] = {"nobody": {}, "basic": {"Authorization": "Basic eDp5"}}
    for name, token in tokens.items():
        strangers[name] = {"Authorization": f"Bearer {token}"}
    return strangers


def _callers(people: People, settings: Settings) -> Callers:
    callers: dict[str, Callable[[], Api]] = {
        "super_admin": lambda: people.admin(),
        "super_admin, no second factor": lambda: people.admin(mfa=False),
        "super_admin, logged in without a second factor": lambda: _logged_in(people, settings, "super_admin"),
        "admin": lambda: people.admin("admin"),
        "admin, no second factor": lambda: people.admin("admin", mfa=False),
        "admin, logged in without a second factor": lambda: _logged_in(people, settings, "admin"),
    }
    return callers | {f"application, {scope}": _application(people, scope) for scope in Scope}


def _logged_in(people: People, settings: Settings, role: str) -> Api:
    """Somebody's token that belongs to a login without a second factor."""
    row = Admin(id=new_id(), email=f"{new_id()}@example.com", role=role)
    session_id = new_id()
    people.run(
        "INSERT INTO admins (id, email, role, password_hash) VALUES (%s, %s, %s, 'x')",
        [row.id, row.email, role],
    )
    people.run(
        "INSERT INTO admin_sessions (id, admin_id, expires_at) VALUES (%s, %s, now() + interval '1 hour')",
        [session_id, row.id],
    )
    return people.nobody(mint_admin_jwt(Keyring.load(settings), row, mfa=False, session_id=session_id))


def _application(people: People, scope: str) -> Callable[[], Api]:
    return lambda: people.application(scope)


def test_a_rule_that_is_forgotten_is_noticed(operations: dict[str, Json]) -> None:
    """The table's own test: what it compares is there."""
    assert sum(bool(_said(operation)) for operation in operations.values()) >= 40
    assert not _may(WRITE, "super_admin, no second factor")
    assert list(_unlike("GET /", "nobody", 200, 401))
    assert list(_unlike("GET /", "admin", 500, None))
    assert not list(_unlike("GET /", "admin", 404, None))
    assert not list(_unlike("GET /", "nobody", 401, 401))


def test_what_the_api_would_let_through_the_database_does_not(
    people: People, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the first enforcement gone, the second one still holds."""
    made: dict[str, Any] = {"name": "left", "capability": "text", "lane": "batch"}
    monkeypatch.setattr("admin_api.security.Rule.check", lambda *_: None)
    for intruder in (people.admin("admin"), people.application(), people.admin(mfa=False)):
        assert intruder.post("/features", made).status_code == 500
        assert intruder.post("/queues/batch/pause", {}).status_code in (200, 500)
        assert people.run("SELECT is_paused FROM lanes WHERE name = 'batch'") == [(False,)]
    assert people.application().get("/providers").status_code == 500
    assert people.run("SELECT count(*) FROM features WHERE name = 'left'") == [(0,)]
    assert api.post("/features", made).status_code == 201
