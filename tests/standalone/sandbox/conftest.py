"""One sandbox, in a process of its own, for this folder; each test begins without faults and calls."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

KEY = "sk-sandbox-1234"
VERSION = "2026-10-21"

Ask = Callable[..., httpx.Response]


@contextmanager
def _served() -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """The URL and the process of a sandbox, which must end cleanly and silently."""
    command = [sys.executable, "-W", "error", "-m", "standalone.sandbox"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stderr is not None
        url = server.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:"), server.stderr.read()
        try:
            yield url, server
        finally:
            server.send_signal(signal.SIGTERM)
            status = server.wait(10)
        assert (status, server.stderr.read()) == (0, "")


@pytest.fixture(scope="session")
def sandbox_url() -> Iterator[str]:
    with _served() as (url, _):
        yield url


@pytest.fixture
def own_sandbox() -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """A sandbox that the test may end itself."""
    with _served() as served:
        yield served


@pytest.fixture(scope="session")
def connection(sandbox_url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=sandbox_url, timeout=10, trust_env=False) as client:
        yield client


@pytest.fixture
def client(connection: httpx.Client) -> httpx.Client:
    connection.delete("/_sandbox/faults")
    connection.delete("/_sandbox/calls")
    return connection


@pytest.fixture
def openai(client: httpx.Client) -> Ask:
    """POST to a route of OpenAI's protocol: ``openai("chat/completions", model=..., messages=...)``."""

    def ask(path: str, /, key: str | None = KEY, **body: Any) -> httpx.Response:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return client.post(f"/openai/v1/{path}", json=body, headers=headers)

    return ask


@pytest.fixture
def anthropic(client: httpx.Client) -> Ask:
    """POST to a route of Anthropic's protocol: ``anthropic("messages", model=..., max_tokens=..., ...)``."""

    def ask(
        path: str, /, key: str | None = KEY, version: str | None = VERSION, **body: Any
    ) -> httpx.Response:
        headers = {} if key is None else {"x-api-key": key}
        if version is not None:
            headers["anthropic-version"] = version
        return client.post(f"/anthropic/v1/{path}", json=body, headers=headers)

    return ask


@pytest.fixture
def chat(openai: Ask) -> Ask:
    """A chat completion for one user message; keyword arguments are added to the body."""

    def ask(text: str = "What makes a good morning?", **body: Any) -> httpx.Response:
        return openai(
            "chat/completions", **{"model": "gpt-4o", "messages": [{"role": "user", "content": text}], **body}
        )

    return ask


@pytest.fixture
def message(anthropic: Ask) -> Ask:
    """A message answered by Anthropic's protocol; keyword arguments are added to the body."""

    def ask(text: str = "What makes a good morning?", **body: Any) -> httpx.Response:
        usual = {
            "model": "claude-haiku-4-5",
            "max_tokens": 1000,
            "messages": [{"role": "user", "content": text}],
        }
        return anthropic("messages", **{**usual, **body})

    return ask


@pytest.fixture
def fault(client: httpx.Client) -> Callable[..., None]:
    def switch_on(mode: str, protocol: str = "*", **options: Any) -> None:
        answer = client.post("/_sandbox/faults", json={"protocol": protocol, "mode": mode, **options})
        assert answer.status_code == 201, answer.text

    return switch_on


@pytest.fixture
def events() -> Callable[[httpx.Response], list[tuple[str | None, Any]]]:
    """Server-sent events of an answer: (event name or None, data); ``[DONE]`` stays a string."""

    def parse(answer: httpx.Response) -> list[tuple[str | None, Any]]:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.text.endswith("\n\n")
        parsed = []
        for block in answer.text.strip().split("\n\n"):
            fields = dict(line.split(": ", 1) for line in block.split("\n"))
            data = fields["data"]
            parsed.append((fields.get("event"), data if data == "[DONE]" else json.loads(data)))
        return parsed

    return parse
