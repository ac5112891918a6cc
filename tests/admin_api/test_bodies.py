"""What is no body for us, whatever the route."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from http.client import HTTPConnection

import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send

from admin_api.bodies import MAX_DEPTH, BodyLimit, parse
from admin_api.refusals import Invalid, Malformed
from store.settings import Settings
from tests.admin_api.conftest import Api, Json, People
from tests.admin_api.nouns import assigned, provider_body


@pytest.mark.parametrize(
    "raw",
    [
        b"{",
        b"\xff\xfe{}",
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b"[" * 100_000,
        b'{"a": ' + b"9" * 5000 + b"}",
        b'"raw \x00 byte"',
        b"\xed\xa0\x80",
    ],
)
def test_malformed(raw: bytes) -> None:
    with pytest.raises(Malformed):
        parse(raw)


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        (b'{"a": {"b": ["x", "y\\u0000"]}}', "a/b/1"),
        (b'{"a": {"b\\u0000": 1}}', "a"),
        (b'{"a": "\\ud800"}', "a"),
        (b'{"a/b": {"~": "\\udfff"}}', "a~1b/~0"),
        (b'{"a": 1e400}', "a"),
        (b'{"a": 1, "b": 2, "a": 1}', "a"),
        (b'{"a": [{"b": {"c": 1}, "b": 2}]}', "a/0/b"),
        (b'{"a": ' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}", "a" + "/0" * (MAX_DEPTH - 1)),
    ],
)
def test_unstorable(raw: bytes, field: str) -> None:
    with pytest.raises(Invalid) as refused:
        parse(raw)
    assert refused.value.errors[0].field == field


def test_what_is_storable_passes() -> None:
    document: Json = {
        "text": "é \U0001f0cf \ufffd",
        "numbers": [0.1, -0.0, 10**30],
        "deep": [[[[{}]]]],
        "nothing": None,
    }
    assert parse(json.dumps(document).encode()) == document


def test_refusals_come_as_problems(api: Api) -> None:
    form = {"content-type": "application/x-www-form-urlencoded"}
    for status, answer in (
        (400, api.post("/providers", content=b"{", headers={"content-type": "application/json"})),
        (400, api.post("/providers", content=b"[" * 100_000, headers={"content-type": "application/json"})),
        (415, api.post("/providers", content=b"slug=x", headers=form)),
        (422, api.post("/providers", provider_body(name="a\0b"))),
        (422, api.post("/providers", [])),
        (422, api.post("/providers")),
        (422, api.get("/providers/not-an-id")),
        (422, api.get("/features/a%00b")),
        (404, api.get("/nowhere")),
        (404, api.get("/providers/")),
        (405, api.call("PATCH", "/providers", {})),
    ):
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        problem = answer.json()
        assert problem.keys() == {"type", "title", "status", "detail", "errors"}
        assert problem["status"] == status
        assert problem["detail"]


def test_a_body_has_a_limit(api: Api) -> None:
    large = json.dumps(provider_body(description="x" * 1024 * 1024)).encode()

    def streamed() -> Iterator[bytes]:  # chunked: nothing declares how long it is
        yield from (large[place : place + 65536] for place in range(0, len(large), 65536))

    for content in (large, streamed()):
        refused = api.post("/providers", content=content, headers={"content-type": "application/json"})
        assert refused.status_code == 413
        assert refused.headers["content-type"] == "application/problem+json"
    assert api.get("/providers").json()["items"] == []


@pytest.mark.parametrize("path", ["/providers", "/jobs", "/jobs/bulk"])
def test_a_body_that_stops_coming_is_given_up(
    settings: Settings, people: People, serve: Callable[..., httpx.Client], path: str
) -> None:
    token = people.admin().token
    http = serve(settings, pause_seconds=0.2)
    slow = HTTPConnection(http.base_url.host, http.base_url.port, timeout=20)
    slow.putrequest("POST", f"/api/v1{path}")
    slow.putheader("Authorization", f"Bearer {token}")
    slow.putheader("Content-Length", "100")
    slow.endheaders(b"[{")
    answer = slow.getresponse()
    problem = json.loads(answer.read())
    slow.close()
    assert answer.status == problem["status"] == 408
    assert "0.2 s" in problem["detail"]
    assert people.run("SELECT count(*) FROM jobs") == [(0,)]


def test_after_the_body_the_caller_may_wait_as_long_as_it_likes() -> None:
    """As under an answer that is streamed, which ends when the caller leaves."""
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.extend([(await receive())["type"], (await receive())["type"]])

    async def receive() -> Message:
        if not seen_body:
            seen_body.append(True)
            return {"type": "http.request", "body": b"{}"}
        await asyncio.sleep(0.2)
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        raise AssertionError(message)

    seen_body: list[bool] = []
    limited = BodyLimit(app, limit=10, larger={}, pause_seconds=0.01)
    asyncio.run(limited({"type": "http", "path": "/", "headers": []}, receive, send))
    assert seen == ["http.request", "http.disconnect"]


def test_a_job_may_be_larger(api: Api) -> None:
    api.made("/features", {"name": "echo", "capability": "text", "lane": "batch"})
    assigned(api, "echo")
    assert api.post("/jobs", {"feature": "echo", "input": {"text": "x" * 3_000_000}}).status_code == 202

    announced = HTTPConnection(api.host, api.port, timeout=10)
    announced.putrequest("POST", "/api/v1/jobs")
    announced.putheader("Authorization", f"Bearer {api.token}")
    announced.putheader("Content-Length", str(41 * 1024 * 1024))
    announced.endheaders()
    assert announced.getresponse().status == 413  # and not a byte was sent
    announced.close()
