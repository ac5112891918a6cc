"""The OpenAPI document against the server, by schemathesis with all of its checks, as each kind of caller.

`make test` draws a good thousand requests at random (always the same ones); `make test-full` adds every
boundary of every parameter, and sequences of calls that follow each other's ids. Whatever the document calls
a password is a canary, which afterwards stands nowhere: in no answer, log, or dump.
"""

from __future__ import annotations

import logging
import re
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import strategies as st
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema
from schemathesis.hooks import HookContext

from store.settings import Settings
from tests.admin_api.conftest import Api, Json, People
from tests.admin_api.nouns import assigned, feature_body, provider_body
from tests.canaries import stored, told

SOMETHING = "01a20014-64af-763e-823e-5bdedc96b077"

# What a schema cannot say is refused as 409 (clashes), 412 (If-Match), 422 (references, keys that do not
# work, texts that are no e-mail address) and 429 (throttles).
_ACCEPTABLE = ["2xx", "304", "401", "403", "404", "409", "412", "422", "429"]
_REFUSALS = ["400", "401", "403", "404", "405", "409", "412", "413", "415", "422", "429"]

Caller = Callable[[People], Api]
CALLERS: Mapping[str, Caller] = {
    "super_admin": lambda people: people.admin(),
    "super_admin without second factor": lambda people: people.admin(mfa=False),
    "admin": lambda people: people.admin("admin"),
    "application": lambda people: people.application(),
    "nobody": lambda people: people.nobody(),
}


@dataclass
class Findings:
    """What a run came to."""

    statuses: Counter[int] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    sent: Counter[str] = field(default_factory=Counter)
    issued: set[str] = field(default_factory=set)

    @property
    def requests(self) -> int:
        return self.statuses.total()


@schemathesis.serializer("application/x-ndjson")
def ndjson(_context: Any, value: Any) -> bytes:
    """Jobs, one a line, as a client sends them."""
    return value.encode() if isinstance(value, str) else repr(value).encode()


CANARIES = ("sk-canary-41d7", "whsec-canary-90ab4417", "canary words like these 5512")
schemathesis.openapi.format("password", st.sampled_from(CANARIES))

# What answers show once: tokens, secrets of second factors, recovery codes.
_ISSUED = re.compile(rb'"(?:token|access_token|refresh_token|secret)":"([^"]+)"|"(\w{5}(?:-\w{5})+)"')

_needed: set[str] = set()


@schemathesis.hook
def before_call(_context: HookContext, case: schemathesis.Case[Any], _kwargs: dict[str, Any]) -> None:
    """Keep the run short and its callers alive."""
    query: dict[str, Any] = case.query or {}
    parameters: dict[str, Any] = case.path_parameters or {}
    if isinstance(query.get("wait"), int | float) and query["wait"] > 0.1:
        query["wait"] = 0.1
    if str(parameters.get("admin_id")) in _needed:
        parameters["admin_id"] = SOMETHING


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """No name leads anywhere: routes that try a provider must not try a real one."""
    resolve = socket.getaddrinfo

    def only_here(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host not in (None, "127.0.0.1", "localhost"):
            raise socket.gaierror(socket.EAI_NONAME, "There are no names in this test.")
        return resolve(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", only_here)


@pytest.fixture(autouse=True)
def log(tmp_path: Path) -> Iterator[Path]:
    """Everything that the server logs at any level, and not what its caller does."""
    path = tmp_path / "log"
    logging.getLogger("urllib3").setLevel(logging.WARNING)
    root, handler = logging.getLogger(), logging.FileHandler(path)
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield path
    root.setLevel(level)
    root.removeHandler(handler)
    handler.close()


@pytest.fixture(autouse=True)
def rows(log: Path, people: People) -> None:
    """What the routes can work on, and secrets that they might tell."""
    assigned(people.admin())
    people.admin().made("/providers", provider_body("spare", api_key=CANARIES[0]))
    hook = {
        "name": "hook",
        "type": "webhook",
        "endpoint": "https://example.com/",
        "credentials": {"secret": CANARIES[1]},
    }
    people.admin().made("/integrations", hook)
    people.admin().made("/admins", {"email": "ada@example.com", "role": "admin", "password": CANARIES[2]})
    people.admin().made("/features", feature_body())


@pytest.mark.parametrize(
    ("caller", "examples", "least"),
    [
        ("super_admin", 10, 700),
        ("super_admin without second factor", 2, 120),
        ("admin", 2, 120),
        ("application", 2, 120),
        ("nobody", 1, 60),
    ],
)
def test_no_request_finds_an_error_or_a_secret(
    http: httpx.Client,
    people: People,
    settings: Settings,
    log: Path,
    caller: str,
    examples: int,
    least: int,
) -> None:
    found = Findings()
    _run(http, people, CALLERS[caller], ["examples", "fuzzing"], examples, found)
    _look_around(settings, log, found)
    assert not found.failures, "\n".join(found.failures)
    assert found.requests >= least
    if caller == "super_admin":
        assert len(found.sent) == len(CANARIES), "the canaries did not fly"
        assert found.issued, "nothing was shown that is shown once"


@pytest.mark.full
@pytest.mark.parametrize("caller", CALLERS)
def test_no_boundary_and_no_sequence_finds_an_error_or_a_secret(
    http: httpx.Client, people: People, settings: Settings, log: Path, caller: str
) -> None:
    found = Findings()
    for phases in (["examples", "fuzzing"], ["coverage", "stateful"]):
        _run(http, people, CALLERS[caller], phases, 25, found)
    _look_around(settings, log, found)
    print(f"{caller}: {found.requests} requests, {dict(found.statuses)}")
    assert not found.failures, "\n".join(found.failures)
    assert found.requests >= 5000


def _run(
    http: httpx.Client,
    people: People,
    caller: Caller,
    phases: Sequence[str],
    examples: int,
    found: Findings,
) -> None:
    """Send every request that the phases think of."""
    api = caller(people)
    if api.token is not None:
        found.issued.add(api.token)
    address = str(http.base_url).rstrip("/")
    config = SchemathesisConfig.from_dict(
        {
            "base-url": address,
            "headers": {} if api.token is None else {"Authorization": f"Bearer {api.token}"},
            "seed": 1,
            "continue-on-failure": True,
            "request-timeout": 60,
            "generation": {
                "max-examples": examples,
                "deterministic": True,
                "no-shrink": True,
                "database": "none",
            },
            "phases": {
                name: {"enabled": name in phases} for name in ("examples", "coverage", "fuzzing", "stateful")
            },
            "checks": {
                "positive_data_acceptance": {"expected-statuses": _ACCEPTABLE},
                "negative_data_rejection": {"expected-statuses": _REFUSALS},
            },
        }
    )
    document = http.get("/openapi.json").json()
    if "coverage" in phases:
        _take_out(document, {"If-Match", "Idempotency-Key"})
    schema = schemathesis.openapi.from_dict(document, config=config)
    _needed.update(str(id_) for (id_,) in people.run("SELECT id FROM admins"))
    for event in from_schema(schema).execute():
        _note(event, found)
    if api.token is not None:
        assert api.get("/jobs").status_code in (200, 403), "the caller was lost on the way"


def _take_out(document: Json, headers: set[str]) -> None:
    """Leave headers out of the document: the phase `coverage` sends `0` for each, time and again, and a key
    that was used, or an ETag that is none, keeps all else from being tried."""
    for operations in document["paths"].values():
        for operation in operations.values():
            taken = operation.get("parameters", [])
            operation["parameters"] = [one for one in taken if one.get("name") not in headers]


def _note(event: Any, found: Findings) -> None:
    if isinstance(event, events.FatalError):
        raise event.exception
    if isinstance(event, events.NonFatalError):
        found.failures.append(f"{event.label}: {event.info}")
    if not isinstance(event, events.ScenarioFinished):
        return
    sent = event.recorder.interactions
    found.statuses.update(one.response.status_code for one in sent.values() if one.response is not None)
    for one in sent.values():
        _note_secrets(one.request, one.response, found)
    for case_id, checks in event.recorder.checks.items():
        for check in checks:
            answer = sent[case_id].response if case_id in sent else None
            if check.failure_info is not None and not _is_the_servers(answer):
                failure = check.failure_info.failure
                asked = sent[case_id].request if case_id in sent else None
                found.failures.append(
                    f"{event.label}: {check.name}: {failure.title}: {failure.message}\n"
                    f"  {asked.method if asked else ''} {asked.uri if asked else ''} "
                    f"{(asked.body or b'')[:300] if asked else b''!r}\n"
                    f"  {answer.status_code if answer else ''} {answer.content[:300] if answer else b''!r}"
                )


def _note_secrets(request: Any, answer: Any, found: Findings) -> None:
    body = request.body or b""
    found.sent.update(canary for canary in CANARIES if canary.encode() in body)
    if answer is None:
        return
    found.issued.update(b"".join(groups).decode() for groups in _ISSUED.findall(answer.content))
    shown = answer.content.decode(errors="replace")
    found.failures += told(f"answer to {request.method} {request.uri}", shown, CANARIES)


def _look_around(settings: Settings, log: Path, found: Findings) -> None:
    """What was sent, and what was shown once, stands in no log and no dump."""
    for place, content in {"log": log.read_text(errors="replace"), **stored(settings)}.items():
        assert content or place == "Valkey dump", f"the {place} is empty: nothing was looked at"
        found.failures += told(place, content, {*CANARIES, *found.issued})


def _is_the_servers(answer: Any) -> bool:
    """Whether the HTTP server refused a request that is none, before the application saw it."""
    return answer is not None and answer.content == b"Invalid HTTP request received."
