"""Failures on demand, seen from the client's socket, and the log of calls."""

import json
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

Ask = Callable[..., httpx.Response]
Fault = Callable[..., None]


def _raw_chat(url: str, timeout: float = 5) -> socket.socket:
    """A connection on which a chat completion was just requested."""
    address = urlsplit(url)
    assert address.hostname is not None
    body = json.dumps({"model": "raw", "messages": [{"role": "user", "content": "hi"}]})
    connection = socket.create_connection((address.hostname, address.port or 80), timeout)
    connection.sendall(
        f"POST /openai/v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer raw-key-9999\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
    )
    return connection


def _read_to_end(connection: socket.socket) -> bytes:
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


def _calls(client: httpx.Client) -> dict[str, Any]:
    body: dict[str, Any] = client.get("/_sandbox/calls").json()
    return body


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


_STATUSES = [
    ({"status": 503}, "service_unavailable_error", "overloaded_error"),
    ({"status": 529}, "server_error", "overloaded_error"),
    ({"status": 500}, "server_error", "api_error"),
    ({"status": 429, "retry_after": 7}, "requests", "rate_limit_error"),
    ({"status": 429, "code": "insufficient_quota"}, "insufficient_quota", "rate_limit_error"),
    ({"status": 401}, "invalid_request_error", "authentication_error"),
    ({"status": 402}, "insufficient_quota", "billing_error"),
    ({"status": 404}, "invalid_request_error", "not_found_error"),
    ({"status": 418}, "invalid_request_error", "invalid_request_error"),
]


@pytest.mark.parametrize(("options", "openai_type", "anthropic_type"), _STATUSES)
def test_status_speaks_as_the_provider_would(
    fault: Fault, chat: Ask, message: Ask, options: dict[str, Any], openai_type: str, anthropic_type: str
) -> None:
    fault("status", **options)
    for answer, kind in ((chat(), openai_type), (message(), anthropic_type)):
        assert answer.status_code == options["status"]
        assert answer.json()["error"]["type"] == kind
        expected = str(options["retry_after"]) if "retry_after" in options else None
        assert answer.headers.get("retry-after") == expected


def test_codes_of_billing_and_overload(fault: Fault, chat: Ask, message: Ask) -> None:
    fault("status", status=429, code="insufficient_quota")
    assert chat().json()["error"]["code"] == "insufficient_quota"
    assert message().json()["error"]["details"] == {"error_code": "enforced_spend_limit_reached"}
    fault("status", status=503)
    assert chat().json()["error"]["code"] == "server_is_overloaded"


def test_reset_breaks_the_connection_before_any_byte(
    fault: Fault, sandbox_url: str, client: httpx.Client
) -> None:
    fault("reset")
    with _raw_chat(sandbox_url) as connection, pytest.raises(ConnectionResetError):
        connection.recv(1)
    [call] = _calls(client)["calls"]
    assert (call["status"], call["fault"], call["model"]) == (None, "reset", "raw")


@pytest.mark.parametrize("stream", [False, True])
def test_truncate_promises_more_than_it_sends(fault: Fault, chat: Ask, stream: bool) -> None:
    fault("truncate")
    with pytest.raises(httpx.RemoteProtocolError):
        chat(stream=stream)


def test_truncated_bytes_are_half_of_the_announced(fault: Fault, sandbox_url: str) -> None:
    fault("truncate")
    with _raw_chat(sandbox_url) as connection:
        head, _, body = _read_to_end(connection).partition(b"\r\n\r\n")
    announced = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    assert head.startswith(b"HTTP/1.1 200")
    assert len(body) == announced // 2


def test_garbage_is_a_success_without_json(fault: Fault, chat: Ask) -> None:
    fault("garbage")
    answer = chat()
    assert answer.status_code == 200
    with pytest.raises(ValueError, match=r"codec|Expecting"):
        answer.json()


def test_drip_sends_the_whole_body_byte_by_byte(fault: Fault, sandbox_url: str, chat: Ask) -> None:
    fault("drip", seconds=0.0005)
    with _raw_chat(sandbox_url) as connection:
        received = connection.recv(65536).partition(b"\r\n\r\n")[2]
        sizes = [len(received)]
        while not received.endswith(b"}}}"):
            part = connection.recv(65536)
            received += part
            sizes.append(len(part))
    assert json.loads(received)["model"] == "raw"
    assert len(sizes) > 20  # the kernel may join a few bytes, never all of them


def test_length_announces_half_and_sends_all(fault: Fault, sandbox_url: str) -> None:
    fault("length")
    with _raw_chat(sandbox_url) as connection:
        head, _, body = connection.recv(65536).partition(b"\r\n\r\n")
        announced = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        while len(body) < 2 * announced:
            body += connection.recv(65536)
        assert json.loads(body)["model"] == "raw"


def test_length_that_was_never_sent_leaves_the_client_waiting(fault: Fault, sandbox_url: str) -> None:
    fault("length", bytes=100_000)
    with _raw_chat(sandbox_url, timeout=0.3) as connection, pytest.raises(TimeoutError):
        _read_to_end(connection)


def test_an_error_body_is_a_success_that_holds_an_error(fault: Fault, chat: Ask, message: Ask) -> None:
    fault("error_body", status=500)
    for answer, kind in ((chat(), "server_error"), (message(), "api_error")):
        assert (answer.status_code, answer.json()["error"]["type"]) == (200, kind)


def test_huge_has_its_size_and_no_end(fault: Fault, sandbox_url: str) -> None:
    fault("huge", bytes=1_000_000)
    with _raw_chat(sandbox_url) as connection:
        head, _, body = _read_to_end(connection).partition(b"\r\n\r\n")
    assert b"content-length" not in head.lower()
    assert body.count(b" ") == 1_000_000
    assert not body.endswith(b"0\r\n\r\n")


def test_a_client_that_hangs_up_ends_what_is_huge(
    fault: Fault, sandbox_url: str, client: httpx.Client
) -> None:
    fault("huge")
    with _raw_chat(sandbox_url) as connection:
        connection.recv(65536)
    _wait_until(lambda: _calls(client)["in_flight"] == 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_sandbox_even_while_calls_hang(
    own_sandbox: tuple[str, "subprocess.Popen[str]"], number: signal.Signals
) -> None:
    url, server = own_sandbox
    httpx.post(f"{url}/_sandbox/faults", json={"protocol": "*", "mode": "latency", "seconds": 600})
    with _raw_chat(url) as connection:
        _wait_until(lambda: bool(httpx.get(f"{url}/_sandbox/calls").json()["in_flight"]))
        server.send_signal(number)
        assert server.wait(10) == 0
        assert connection.recv(1) == b""


def test_a_client_that_hangs_up_ends_its_drip(fault: Fault, sandbox_url: str, client: httpx.Client) -> None:
    fault("drip", seconds=60)
    connection = _raw_chat(sandbox_url)
    connection.recv(1)
    assert _calls(client)["in_flight"] == 1
    connection.close()
    _wait_until(lambda: _calls(client)["in_flight"] == 0)
    assert _calls(client)["calls"][-1]["fault"] == "drip"


def test_latency_delays_and_joins_other_faults(fault: Fault, chat: Ask, message: Ask) -> None:
    fault("latency", seconds=0.2)
    fault("status", protocol="openai", status=500)
    started = time.monotonic()
    assert chat().status_code == 500
    assert time.monotonic() - started >= 0.2
    assert message().status_code == 200


def test_calls_wait_side_by_side(fault: Fault, chat: Ask, client: httpx.Client) -> None:
    fault("latency", seconds=0.5)
    threads = [threading.Thread(target=chat) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    calls = _calls(client)
    assert (calls["in_flight"], calls["max_in_flight"], calls["count"]) == (0, 5, 5)


def test_a_counted_fault_uses_itself_up(fault: Fault, chat: Ask, client: httpx.Client) -> None:
    fault("status", protocol="openai", count=2)
    assert [chat().status_code for _ in range(3)] == [503, 503, 200]
    assert client.get("/_sandbox/faults").json() == {"faults": []}


def test_rate_is_a_probability(fault: Fault, chat: Ask) -> None:
    fault("status", rate=0.5)
    statuses = [chat(max_tokens=1).status_code for _ in range(100)]
    assert 15 < statuses.count(503) < 85
    fault("status", rate=0)
    assert chat().status_code == 200


def test_faults_are_replaced_listed_and_cleared_by_protocol(
    fault: Fault, chat: Ask, message: Ask, client: httpx.Client
) -> None:
    fault("status", status=500)
    fault("status", status=502)
    fault("status", protocol="openai", status=429)
    listed = client.get("/_sandbox/faults").json()["faults"]
    assert [(one["protocol"], one["status"]) for one in listed] == [("*", 502), ("openai", 429)]
    assert (chat().status_code, message().status_code) == (429, 502)
    client.delete("/_sandbox/faults?protocol=openai")
    assert chat().status_code == 502
    client.delete("/_sandbox/faults")
    assert chat().status_code == 200


def test_the_sandbox_itself_is_spared(fault: Fault, client: httpx.Client) -> None:
    fault("reset")
    assert client.get("/_sandbox/health").status_code == 200


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"mode": "explode"}, "mode"),
        ({"protocol": "smtp"}, "protocol"),
        ({"status": 200}, "status"),
        ({"status": "503"}, "status"),
        ({"seconds": -1}, "seconds"),
        ({"rate": 1.5}, "rate"),
        ({"count": 0}, "count"),
        ({"bytes": -1}, "bytes"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_wrong_fault_names_its_field(client: httpx.Client, change: dict[str, Any], field: str) -> None:
    answer = client.post("/_sandbox/faults", json={"protocol": "*", "mode": "status", **change})
    assert answer.status_code == 422
    assert [problem["loc"] for problem in answer.json()["detail"]] == [[field]]
    assert client.get("/_sandbox/faults").json() == {"faults": []}


def test_calls_are_logged_without_their_keys(
    chat: Ask, message: Ask, openai: Ask, client: httpx.Client
) -> None:
    chat(model="first")
    message(model="second")
    openai("chat/completions", key="bad-key", model="first")
    openai("audio/nonsense", key=None)
    body = client.get("/_sandbox/calls")
    assert "sk-sandbox" not in body.text
    calls = body.json()
    assert calls["count"] == 4
    assert calls["by_protocol"] == {"openai": 3, "anthropic": 1}
    assert calls["by_model"] == {"first": 2, "second": 1}
    assert [(call["status"], call["key"]) for call in calls["calls"]] == [
        (200, "…1234"),
        (200, "…1234"),
        (401, "…-key"),
        (401, None),
    ]
    assert {"id", "at", "protocol", "path", "model", "status", "key", "ms", "fault"} == set(calls["calls"][0])
    numbers = [call["id"] for call in calls["calls"]]
    assert numbers == sorted(numbers)
    later = client.get(f"/_sandbox/calls?since={numbers[1]}").json()["calls"]
    assert [call["id"] for call in later] == numbers[2:]
    assert [call["id"] for call in client.get("/_sandbox/calls?limit=1").json()["calls"]] == numbers[-1:]
    assert client.get("/_sandbox/calls?limit=many").status_code == 422
    client.delete("/_sandbox/calls")
    assert _calls(client)["count"] == 0


def test_only_the_last_thousand_calls_are_kept(client: httpx.Client) -> None:
    for _ in range(1005):
        client.get("/openai/v1/models")
    calls = _calls(client)
    assert (calls["count"], len(calls["calls"])) == (1005, 1000)
