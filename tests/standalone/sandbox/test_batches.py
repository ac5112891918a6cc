"""Batches as a vendor's client would use them: created, watched, fetched, cancelled."""

import json
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

Fault = Callable[..., None]

_OPENAI = {"Authorization": "Bearer sk-sandbox-1234"}
_ANTHROPIC = {"x-api-key": "sk-sandbox-1234", "anthropic-version": "2026-10-21"}
_GEMINI = {"x-goog-api-key": "sk-sandbox-1234"}
_MODEL = "/gemini/v1beta/models/gemini-3.8-flash"


def _until(look: Callable[[], Any]) -> Any:
    """What `look` finds, as soon as it finds anything."""
    deadline = time.monotonic() + 10
    while not (found := look()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


def _json_lines(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


class OpenAI:
    """A client of `/openai/v1`."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def ask(self, method: str, path: str, **sent: Any) -> httpx.Response:
        return self._client.request(method, f"/openai/v1/{path}", headers=_OPENAI, **sent)

    def upload(self, *lines: dict[str, Any] | str, name: str = "in.jsonl") -> str:
        text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
        answer = self.ask("POST", "files", data={"purpose": "batch"}, files={"file": (name, text.encode())})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])

    def create(self, file_id: str, **changes: Any) -> httpx.Response:
        usual = {"input_file_id": file_id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        return self.ask("POST", "batches", json={**usual, **changes})

    def batch(self, *lines: dict[str, Any] | str, **changes: Any) -> dict[str, Any]:
        answer = self.create(self.upload(*lines), **changes)
        assert answer.status_code == 200, answer.text
        created: dict[str, Any] = answer.json()
        return created

    def ended(self, batch_id: str) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            batch: dict[str, Any] = self.ask("GET", f"batches/{batch_id}").json()
            return batch if batch["status"] in ("completed", "failed", "expired", "cancelled") else None

        batch: dict[str, Any] = _until(look)
        return batch


def _line(custom_id: str, text: str = "What makes a good morning?", **changes: Any) -> dict[str, Any]:
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": text}]}
    return {
        "custom_id": custom_id,
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": body,
        **changes,
    }


@pytest.fixture
def vendor(client: httpx.Client) -> OpenAI:
    return OpenAI(client)


# --- OpenAI -------------------------------------------------------------------------------------------


def test_a_batch_of_openai_from_file_to_file(vendor: OpenAI) -> None:
    lines = [_line(f"job-{place}", f"Tell me of star {place}.") for place in range(4)]
    created = vendor.batch(*lines, metadata={"label": "mine"})
    assert (created["object"], created["status"]) == ("batch", "validating")
    assert created["output_file_id"] is None
    batch = vendor.ended(created["id"])
    assert (batch["status"], batch["error_file_id"]) == ("completed", None)
    assert batch["request_counts"] == {"total": 4, "completed": 4, "failed": 0}
    assert batch["metadata"] == {"label": "mine"}
    results = _json_lines(vendor.ask("GET", f"files/{batch['output_file_id']}/content"))
    order = [result["custom_id"] for result in results]
    assert order != [line["custom_id"] for line in lines]
    assert sorted(order) == [line["custom_id"] for line in lines]
    bodies = {result["custom_id"]: result["response"]["body"] for result in results}
    for line in lines:
        live = vendor.ask("POST", "chat/completions", json=line["body"]).json()
        assert bodies[line["custom_id"]]["choices"] == live["choices"]
        assert bodies[line["custom_id"]]["usage"] == live["usage"]


@pytest.mark.parametrize(
    ("endpoint", "body", "member"),
    [
        ("responses", {"model": "gpt-4o", "input": "Hi."}, "output"),
        ("embeddings", {"model": "text-embedding-3-small", "input": "Hi."}, "data"),
        ("moderations", {"input": "Hi."}, "results"),
    ],
)
def test_other_endpoints_of_openai(vendor: OpenAI, endpoint: str, body: dict[str, Any], member: str) -> None:
    line = _line("one", url=f"/v1/{endpoint}", body=body)
    batch = vendor.ended(vendor.batch(line, endpoint=f"/v1/{endpoint}")["id"])
    [result] = _json_lines(vendor.ask("GET", f"files/{batch['output_file_id']}/content"))
    assert result["response"]["status_code"] == 200
    assert result["response"]["body"][member]


def test_lines_that_openai_refuses_are_in_the_error_file(vendor: OpenAI) -> None:
    bad = _line("bad", body={"model": "gpt-4o", "messages": [], "nonsense": 1})
    batch = vendor.ended(vendor.batch(_line("good"), bad)["id"])
    assert batch["request_counts"] == {"total": 2, "completed": 1, "failed": 1}
    [result] = _json_lines(vendor.ask("GET", f"files/{batch['error_file_id']}/content"))
    live = vendor.ask("POST", "chat/completions", json=bad["body"])
    assert result["custom_id"] == "bad"
    assert result["response"]["status_code"] == live.status_code == 400
    assert result["response"]["body"] == live.json()


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        (['{"custom_id": '], "invalid_json_line"),
        ([_line("a"), _line("a")], "duplicate_custom_id"),
        ([_line("a", method="GET")], "invalid_method"),
        ([_line("a", url="/v1/embeddings")], "invalid_url"),
        ([_line("a", body={"model": "gpt-4o", "stream": True})], "invalid_request"),
        ([_line("a"), _line("b", body={"model": "gpt-5"})], "mismatched_model"),
        ([], "empty_file"),
    ],
)
def test_a_file_with_a_flaw_fails_the_batch(vendor: OpenAI, lines: list[Any], code: str) -> None:
    batch = vendor.ended(vendor.batch(*lines)["id"])
    assert batch["status"] == "failed"
    assert [error["code"] for error in batch["errors"]["data"]] == [code]
    assert (batch["output_file_id"], batch["error_file_id"]) == (None, None)


def test_files_of_openai(vendor: OpenAI) -> None:
    file_id = vendor.upload(_line("a"))
    assert vendor.ask("GET", f"files/{file_id}").json()["purpose"] == "batch"
    assert _json_lines(vendor.ask("GET", f"files/{file_id}/content")) == [_line("a")]
    assert vendor.ask("DELETE", f"files/{file_id}").json()["deleted"] is True
    assert vendor.ask("GET", f"files/{file_id}/content").status_code == 404
    assert vendor.create(file_id).json()["error"]["param"] == "input_file_id"


def test_a_file_may_be_larger_than_a_call(vendor: OpenAI) -> None:
    text = "x" * 40_000_000
    file_id = vendor.upload(text)
    assert vendor.ask("GET", f"files/{file_id}").json()["bytes"] == len(text)


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"endpoint": "/v1/audio/speech"}, "endpoint"),
        ({"completion_window": "1h"}, "completion_window"),
        ({"nonsense": 1}, "nonsense"),
        ({"input_file_id": None}, "input_file_id"),
    ],
)
def test_openai_refuses_a_wrong_batch(vendor: OpenAI, changes: dict[str, Any], param: str) -> None:
    answer = vendor.create(vendor.upload(_line("a")), **changes)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_openai_takes_no_file_of_another_kind(vendor: OpenAI) -> None:
    answer = vendor.ask("POST", "files", data={"purpose": "batch"}, files={"file": ("in.txt", b"{}")})
    assert answer.status_code == 400
    assert vendor.ask("POST", "files", data={"purpose": "batch"}).status_code == 400


def test_the_list_of_openai_begins_with_the_newest(vendor: OpenAI) -> None:
    ids = [vendor.batch(_line("a"))["id"] for _ in range(3)]
    first = vendor.ask("GET", "batches?limit=2").json()
    assert ([batch["id"] for batch in first["data"]], first["has_more"]) == ([ids[2], ids[1]], True)
    rest = vendor.ask("GET", f"batches?limit=1&after={first['last_id']}").json()
    assert [batch["id"] for batch in rest["data"]] == [ids[0]]
    assert vendor.ask("GET", "batches?limit=0").status_code == 400


def test_a_batch_is_cancelled_once(vendor: OpenAI, fault: Fault) -> None:
    fault("batch_never")
    batch_id = vendor.batch(_line("a"), _line("b"))["id"]
    assert vendor.ask("POST", f"batches/{batch_id}/cancel").json()["status"] in ("cancelling", "cancelled")
    batch = vendor.ended(batch_id)
    assert batch["status"] == "cancelled"
    again = vendor.ask("POST", f"batches/{batch_id}/cancel")
    assert (again.status_code, "Cannot cancel" in again.text) == (409, True)
    undone = _json_lines(vendor.ask("GET", f"files/{batch['error_file_id']}/content"))
    assert {result["error"]["code"] for result in undone} == {"batch_cancelled"}


# --- Anthropic ----------------------------------------------------------------------------------------


def _message(custom_id: str, text: str = "Hi.", **changes: Any) -> dict[str, Any]:
    usual = {"model": "claude-haiku-4-5", "max_tokens": 500, "messages": [{"role": "user", "content": text}]}
    return {"custom_id": custom_id, "params": {**usual, **changes}}


@pytest.fixture
def messages(client: httpx.Client) -> Callable[..., httpx.Response]:
    def ask(method: str, path: str = "", **sent: Any) -> httpx.Response:
        return client.request(method, f"/anthropic/v1/messages/batches{path}", headers=_ANTHROPIC, **sent)

    return ask


def _ended_messages(messages: Callable[..., httpx.Response], batch_id: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        batch: dict[str, Any] = messages("GET", f"/{batch_id}").json()
        return batch if batch["processing_status"] == "ended" else None

    batch: dict[str, Any] = _until(look)
    return batch


def test_a_batch_of_anthropic(client: httpx.Client, messages: Callable[..., httpx.Response]) -> None:
    requests = [_message("a", "One star."), _message("b", "Two stars."), _message("c", max_tokens=0)]
    created = messages("POST", json={"requests": requests}).json()
    assert (created["processing_status"], created["results_url"]) == ("in_progress", None)
    assert created["request_counts"]["processing"] == 3
    batch = _ended_messages(messages, created["id"])
    counts = {"processing": 0, "succeeded": 2, "errored": 1, "canceled": 0, "expired": 0}
    assert batch["request_counts"] == counts
    assert httpx.URL(batch["results_url"]).path == f"/anthropic/v1/messages/batches/{created['id']}/results"
    results = _json_lines(client.get(batch["results_url"], headers=_ANTHROPIC))
    assert [result["custom_id"] for result in results] == ["c", "b", "a"]
    outcomes = {result["custom_id"]: result["result"] for result in results}
    assert outcomes["c"]["error"]["error"]["type"] == "invalid_request_error"
    for request in requests[:2]:
        live = client.post("/anthropic/v1/messages", json=request["params"], headers=_ANTHROPIC).json()
        message = outcomes[request["custom_id"]]["message"]
        assert message["content"] == live["content"]
        assert message["usage"] == {**live["usage"], "service_tier": "batch"}


@pytest.mark.parametrize(
    ("requests", "said"),
    [
        ([], "requests"),
        ([_message("a b")], "custom_id"),
        ([_message("x" * 65)], "custom_id"),
        ([_message("a"), _message("a")], "unique"),
        ([_message("a", stream=True)], "stream"),
        ([{"custom_id": "a"}], "params"),
    ],
)
def test_anthropic_refuses_a_wrong_batch(
    messages: Callable[..., httpx.Response], requests: list[Any], said: str
) -> None:
    answer = messages("POST", json={"requests": requests})
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")
    assert said in answer.json()["error"]["message"]


def test_results_of_anthropic_are_there_at_the_end(
    messages: Callable[..., httpx.Response], fault: Fault
) -> None:
    fault("batch_never")
    batch_id = messages("POST", json={"requests": [_message("a")]}).json()["id"]
    assert messages("GET", f"/{batch_id}/results").status_code == 404
    assert messages("POST", f"/{batch_id}/cancel").json()["processing_status"] in ("canceling", "ended")
    assert _ended_messages(messages, batch_id)["request_counts"]["canceled"] == 1
    [result] = _json_lines(messages("GET", f"/{batch_id}/results"))
    assert result == {"custom_id": "a", "result": {"type": "canceled"}}
    assert messages("POST", f"/{batch_id}/cancel").status_code == 400


def test_the_list_of_anthropic_begins_with_the_newest(messages: Callable[..., httpx.Response]) -> None:
    ids = [messages("POST", json={"requests": [_message("a")]}).json()["id"] for _ in range(3)]
    first = messages("GET", "?limit=2").json()
    assert ([batch["id"] for batch in first["data"]], first["has_more"]) == ([ids[2], ids[1]], True)
    rest = messages("GET", f"?limit=1&after_id={first['last_id']}").json()
    assert [batch["id"] for batch in rest["data"]] == [ids[0]]


# --- Gemini -------------------------------------------------------------------------------------------


def _content(text: str, **config: Any) -> dict[str, Any]:
    return {"contents": [{"parts": [{"text": text}]}], **({"generationConfig": config} if config else {})}


def _batch(*requests: dict[str, Any], name: str = "mine") -> dict[str, Any]:
    keyed = [{"request": one, "metadata": {"key": f"k{place}"}} for place, one in enumerate(requests)]
    return {"batch": {"displayName": name, "inputConfig": {"requests": {"requests": keyed}}}}


def _ended_operation(client: httpx.Client, name: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        operation: dict[str, Any] = client.get(f"/gemini/v1beta/{name}", headers=_GEMINI).json()
        return operation if operation.get("done") else None

    operation: dict[str, Any] = _until(look)
    return operation


def test_a_batch_of_gemini(client: httpx.Client) -> None:
    requests = [_content("One star."), _content("Two.", temperature=9), _content("Hi.", nonsense=1)]
    answer = client.post(f"{_MODEL}:batchGenerateContent", json=_batch(*requests), headers=_GEMINI)
    created = answer.json()
    assert created["metadata"]["state"] in ("BATCH_STATE_PENDING", "BATCH_STATE_RUNNING")
    assert created["metadata"]["displayName"] == "mine"
    operation = _ended_operation(client, created["name"])
    assert operation["metadata"]["state"] == "BATCH_STATE_SUCCEEDED"
    stats = {"requestCount": "3", "successfulRequestCount": "1", "failedRequestCount": "2"}
    assert operation["metadata"]["batchStats"] == stats
    inlined = operation["response"]["inlinedResponses"]["inlinedResponses"]
    assert operation["metadata"]["output"]["inlinedResponses"]["inlinedResponses"] == inlined
    assert [one["metadata"]["key"] for one in inlined] == ["k0", "k1", "k2"]
    live = client.post(f"{_MODEL}:generateContent", json=requests[0], headers=_GEMINI).json()
    assert inlined[0]["response"]["candidates"] == live["candidates"]
    assert [one["error"]["code"] for one in inlined[1:]] == [3, 3]


def test_gemini_refuses_a_wrong_batch(client: httpx.Client) -> None:
    for body in ({}, _batch(), {"batch": {"displayName": "x", "nonsense": 1}}):
        answer = client.post(f"{_MODEL}:batchGenerateContent", json=body, headers=_GEMINI)
        assert (answer.status_code, answer.json()["error"]["status"]) == (400, "INVALID_ARGUMENT")


def test_batches_of_gemini_are_listed_and_cancelled(client: httpx.Client, fault: Fault) -> None:
    fault("batch_never")
    names = [
        client.post(
            f"{_MODEL}:batchGenerateContent", json=_batch(_content("Hi."), name=name), headers=_GEMINI
        ).json()["name"]
        for name in ("first", "second")
    ]
    page = client.get("/gemini/v1beta/batches?pageSize=1", headers=_GEMINI).json()
    assert [one["name"] for one in page["operations"]] == [names[1]]
    token = page["nextPageToken"]
    rest = client.get(f"/gemini/v1beta/batches?pageSize=1&pageToken={token}", headers=_GEMINI).json()
    assert [one["metadata"]["displayName"] for one in rest["operations"]] == ["first"]
    for name in names:
        assert client.post(f"/gemini/v1beta/{name}:cancel", headers=_GEMINI).json() == {}
        assert _ended_operation(client, name)["metadata"]["state"] == "BATCH_STATE_CANCELLED"
        assert client.post(f"/gemini/v1beta/{name}:cancel", headers=_GEMINI).status_code == 200


# --- all of them --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/openai/v1/batches", {"Authorization": "Bearer bad-key"}),
        ("/openai/v1/files/file-x/content", {"Authorization": "Bearer bad-key"}),
        ("/anthropic/v1/messages/batches", {**_ANTHROPIC, "x-api-key": "bad-key"}),
    ],
)
def test_a_bad_key_opens_no_batch(client: httpx.Client, path: str, headers: dict[str, str]) -> None:
    assert client.get(path, headers=headers).status_code == 401


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/openai/v1/batches/none", _OPENAI),
        ("/openai/v1/batches/none/nothing", _OPENAI),
        ("/openai/v1/files/none", _OPENAI),
        ("/anthropic/v1/messages/batches/none", _ANTHROPIC),
        ("/anthropic/v1/messages/batches/none/results", _ANTHROPIC),
        ("/anthropic/v1/messages/batches/none/nothing", _ANTHROPIC),
        ("/gemini/v1beta/batches/none", _GEMINI),
    ],
)
def test_what_is_not_there_is_not_found(client: httpx.Client, path: str, headers: dict[str, str]) -> None:
    assert client.get(path, headers=headers).status_code == 404


def test_a_delayed_batch_shows_how_far_it_is(vendor: OpenAI, fault: Fault) -> None:
    fault("batch_delay", protocol="openai", seconds=30)
    batch_id = vendor.batch(*(_line(f"job-{place}") for place in range(3)))["id"]

    def look() -> dict[str, int] | None:
        batch = vendor.ask("GET", f"batches/{batch_id}").json()
        return batch["request_counts"] if batch["status"] == "in_progress" else None

    counts = _until(lambda: (found := look()) and found["completed"] and found)
    assert counts == {"total": 3, "completed": 1, "failed": 0}
    vendor.ask("POST", f"batches/{batch_id}/cancel")
    assert vendor.ended(batch_id)["request_counts"] == counts


def test_an_expired_batch_holds_half_of_its_lines(vendor: OpenAI, fault: Fault) -> None:
    fault("batch_expire")
    batch = vendor.ended(vendor.batch(*(_line(f"job-{place}") for place in range(4)))["id"])
    assert batch["status"] == "expired"
    done = _json_lines(vendor.ask("GET", f"files/{batch['output_file_id']}/content"))
    late = _json_lines(vendor.ask("GET", f"files/{batch['error_file_id']}/content"))
    assert [len(done), len(late)] == [2, 2]
    assert {(result["response"], result["error"]["code"]) for result in late} == {(None, "batch_expired")}


def test_failing_lines_say_what_live_calls_would(vendor: OpenAI, client: httpx.Client, fault: Fault) -> None:
    fault("batch_line_errors", rate=0.5, status=500)
    batch = vendor.ended(vendor.batch(*(_line(f"job-{place}") for place in range(60)))["id"])
    counts = batch["request_counts"]
    assert 0 < counts["failed"] < 60
    assert counts["completed"] + counts["failed"] == 60
    failed = _json_lines(vendor.ask("GET", f"files/{batch['error_file_id']}/content"))
    assert len(failed) == counts["failed"]
    client.delete("/_sandbox/faults")
    fault("status", status=500)
    live = vendor.ask("POST", "chat/completions", json=_line("a")["body"])
    for result in failed:
        assert result["response"]["status_code"] == live.status_code
        assert result["response"]["body"] == live.json()


def test_a_lost_batch_exists_although_nobody_was_told(
    client: httpx.Client, vendor: OpenAI, fault: Fault
) -> None:
    file_id = vendor.upload(_line("a"))
    fault("batch_lost", count=1)
    with pytest.raises(httpx.ReadError):
        vendor.create(file_id, metadata={"label": "lost"})
    [newest] = vendor.ask("GET", "batches?limit=1").json()["data"]
    assert newest["metadata"] == {"label": "lost"}
    [call] = [one for one in client.get("/_sandbox/calls").json()["calls"] if one["fault"]]
    assert (call["path"], call["status"], call["fault"]) == ("/openai/v1/batches", None, "batch_lost")
    assert vendor.create(file_id).status_code == 200


def test_lines_are_counted_beside_calls(client: httpx.Client, vendor: OpenAI) -> None:
    vendor.ended(vendor.batch(*(_line(f"job-{place}") for place in range(5)))["id"])
    log = client.get("/_sandbox/calls").json()
    assert log["batch_lines"] == 5
    assert log["count"] == len(log["calls"])
    assert {call["path"].split("/")[3] for call in log["calls"]} == {"files", "batches"}
    client.delete("/_sandbox/calls")
    assert client.get("/_sandbox/calls").json()["batch_lines"] == 0


def test_faults_of_calls_befall_calls_about_batches(vendor: OpenAI, fault: Fault) -> None:
    fault("status", status=503)
    assert vendor.ask("GET", "batches").status_code == 503
