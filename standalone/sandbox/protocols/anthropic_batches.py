"""Anthropic's ``/v1/messages/batches``."""

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

from standalone.sandbox.batches import WINDOW_SECONDS, Batch, BatchDesk, Line
from standalone.sandbox.faults import Fault
from standalone.sandbox.values import Answer, Call, Refusal, encode_json, fresh_id, json_answer

_PATH = "/v1/messages/batches"
_MOST_REQUESTS = 100_000
_CUSTOM_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_STATES = {"cancelling": "canceling", "ended": "ended"}

AnswerLine = Callable[[Call, Mapping[str, Any], str, Fault | None], Awaitable[Answer]]
"""Answers the body of a message in a version of the protocol."""


class AnthropicBatches:
    """Batches of messages."""

    def __init__(self, desk: BatchDesk, answer: AnswerLine) -> None:
        self._desk = desk
        self._answer = answer

    def serves(self, call: Call) -> bool:
        return call.path == _PATH or call.path.startswith(f"{_PATH}/")

    async def answer(self, call: Call, version: str) -> Answer:
        match (call.method, call.path.removeprefix(_PATH).split("/")[1:]):
            case ("POST", []):
                return self._create(call, version)
            case ("GET", []):
                return self._list(call)
            case ("GET", [batch_id]):
                return json_answer(_document(self._found(batch_id), call))
            case ("GET", [batch_id, "results"]):
                return _results(self._found(batch_id))
            case ("POST", [batch_id, "cancel"]):
                return self._cancel(self._found(batch_id), call)
        raise Refusal(404, "Not Found")

    def _create(self, call: Call, version: str) -> Answer:
        lines = _lines(call.document)
        batch = Batch(fresh_id("msgbatch_"), lines, {})

        async def answer(line: Line, fault: Fault | None) -> Answer:
            return _at_batch_rate(await self._answer(call, line.body, version, fault))

        self._desk.open(batch, answer)
        return json_answer(_document(batch, call))

    def _list(self, call: Call) -> Answer:
        query = parse_qs(call.query)
        limit, after = query.get("limit", ["20"])[-1], query.get("after_id", [None])[-1]
        if not limit.isascii() or not limit.isdigit() or not 1 <= int(limit) <= 1000:
            raise Refusal(400, "limit: Input should be between 1 and 1000")
        batches, has_more = self._desk.page(int(limit), after)
        document = {
            "data": [_document(batch, call) for batch in batches],
            "has_more": has_more,
            "first_id": batches[0].id if batches else None,
            "last_id": batches[-1].id if batches else None,
        }
        return json_answer(document)

    def _cancel(self, batch: Batch, call: Call) -> Answer:
        if batch.is_over:
            raise Refusal(400, "Message Batch cannot be canceled: its processing has ended.")
        self._desk.cancel(batch)
        return json_answer(_document(batch, call))

    def _found(self, batch_id: str) -> Batch:
        batch = self._desk.get(batch_id)
        if batch is None:
            raise Refusal(404, f"Message Batch {batch_id} not found.")
        return batch


def _lines(document: object) -> list[Line]:
    requests = document.get("requests") if isinstance(document, dict) else None
    if not isinstance(requests, list) or not 1 <= len(requests) <= _MOST_REQUESTS:
        raise Refusal(400, f"requests: List should have 1 to {_MOST_REQUESTS} items")
    lines = [_line(request, f"requests.{place}") for place, request in enumerate(requests)]
    if len({line.custom_id for line in lines}) < len(lines):
        raise Refusal(400, "requests: custom_id must be unique within a batch")
    return lines


def _line(request: object, where: str) -> Line:
    custom_id = request.get("custom_id") if isinstance(request, dict) else None
    if not isinstance(custom_id, str) or not _CUSTOM_ID.fullmatch(custom_id):
        raise Refusal(400, f"{where}.custom_id: String should match pattern '^[a-zA-Z0-9_-]{{1,64}}$'")
    params = request.get("params") if isinstance(request, dict) else None
    if not isinstance(params, dict):
        raise Refusal(400, f"{where}.params: Field required")
    if params.get("stream"):
        raise Refusal(400, f"{where}.params.stream: Streaming is not supported in a Message Batch")
    return Line(custom_id, params)


def _at_batch_rate(answer: Answer) -> Answer:
    document = json.loads(answer.body)
    if answer.status < 400:
        document["usage"]["service_tier"] = "batch"
    return json_answer(document, status=answer.status)


def _results(batch: Batch) -> Answer:
    """The outcome of each request, the last one's first."""
    if not batch.is_over:
        raise Refusal(404, "Message Batch has no available results: its processing has not ended.")
    undone = {"type": "expired" if batch.ending == "expired" else "canceled"}
    written = []
    for place, line in reversed(list(enumerate(batch.lines))):
        answer = batch.answers.get(place)
        outcome = undone if answer is None else _outcome(answer)
        written.append(encode_json({"custom_id": line.custom_id, "result": outcome}) + b"\n")
    return Answer(200, b"application/x-jsonl", (b"".join(written),))


def _outcome(answer: Answer) -> dict[str, Any]:
    document = json.loads(answer.body)
    if answer.status >= 400:
        return {"type": "errored", "error": document}
    return {"type": "succeeded", "message": document}


def _document(batch: Batch, call: Call) -> dict[str, Any]:
    """The counts move only when the batch ends."""
    undone = len(batch.lines) - len(batch.answers)
    counts = dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 0)
    counts["processing"] = len(batch.lines)
    results_url = None
    if batch.is_over:
        ended = "canceled" if batch.ending == "cancelled" else "expired"
        done = {"processing": 0, "succeeded": batch.succeeded, "errored": batch.errored}
        counts |= {**done, ended: undone}
        results_url = f"http://{call.header(b'host')}/anthropic{_PATH}/{batch.id}/results"
    return {
        "id": batch.id,
        "type": "message_batch",
        "processing_status": _STATES.get(batch.state, "in_progress"),
        "request_counts": counts,
        "created_at": _time(batch.created_at),
        "expires_at": _time(batch.created_at + WINDOW_SECONDS),
        "ended_at": _time(batch.ended_at),
        "cancel_initiated_at": _time(batch.cancelled_at),
        "archived_at": None,
        "results_url": results_url,
    }


def _time(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat()
