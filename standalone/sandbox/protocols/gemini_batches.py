"""Google's ``models/{model}:batchGenerateContent`` and ``batches``, with their requests inline."""

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

from standalone.sandbox.batches import Batch, BatchDesk, Line
from standalone.sandbox.faults import Fault
from standalone.sandbox.protocols.gemini_fields import invalid, mapping, reject_unknown
from standalone.sandbox.values import Answer, Call, Refusal, fresh_id, json_answer

CREATE = "batchGenerateContent"
_PATH = re.compile(r"/(?:v1beta|v1alpha|v1)/batches(?:/([^/:]+))?(?::(\w+))?")
_MOST_BYTES = 20 * 1024 * 1024
_TYPE = "type.googleapis.com/google.ai.generativelanguage.v1main."
_CODES = {400: 3, 401: 16, 403: 7, 404: 5, 409: 10, 429: 8, 499: 1, 501: 12, 503: 14, 504: 4}  # as gRPC's
_INTERNAL = 13
_ENDINGS = {"completed": "SUCCEEDED", "expired": "EXPIRED", "cancelled": "CANCELLED"}

AnswerLine = Callable[[Call, str, Mapping[str, Any], Fault | None], Awaitable[Answer]]
"""Answers the body of a ``generateContent`` to a model."""


class GeminiBatches:
    """Batches of ``generateContent``."""

    def __init__(self, desk: BatchDesk, answer: AnswerLine) -> None:
        self._desk = desk
        self._answer = answer

    def serves(self, call: Call) -> bool:
        return _PATH.fullmatch(call.path) is not None

    async def answer(self, call: Call) -> Answer:
        found = _PATH.fullmatch(call.path)
        match (call.method, found and found[1], found and found[2]):
            case ("GET", None, None):
                return self._list(call)
            case ("GET", str() as batch_id, None):
                return json_answer(_operation(self._found(batch_id)))
            case ("POST", str() as batch_id, "cancel"):
                batch = self._found(batch_id)
                if not batch.is_over:
                    self._desk.cancel(batch)
                return json_answer({})
        raise Refusal(404, "Requested entity was not found.")

    async def create(self, call: Call, model: str, body: Mapping[str, Any]) -> Answer:
        if len(call.body) > _MOST_BYTES:
            raise invalid(f"Request payload size exceeds the limit: {_MOST_BYTES} bytes.")
        wanted = mapping(body, "batch")
        reject_unknown(wanted, frozenset(("displayName", "inputConfig", "priority", "model")), "batch")
        if not isinstance(wanted.get("displayName"), str):
            raise invalid("* BatchGenerateContentRequest.batch.display_name: must be specified")
        lines = _lines(mapping(mapping(wanted, "inputConfig"), "requests").get("requests"))
        batch = Batch(fresh_id(""), lines, {"model": model, "displayName": wanted["displayName"]})

        async def answer(line: Line, fault: Fault | None) -> Answer:
            return await self._answer(call, model, line.body, fault)

        self._desk.open(batch, answer)
        return json_answer(_operation(batch))

    def _list(self, call: Call) -> Answer:
        query = parse_qs(call.query)
        size, token = query.get("pageSize", ["50"])[-1], query.get("pageToken", [None])[-1]
        if not size.isascii() or not size.isdigit():
            raise invalid(f"Invalid value at 'page_size' (TYPE_INT32), \"{size}\"")
        batches, has_more = self._desk.page(min(max(int(size), 1), 1000), token)
        document: dict[str, Any] = {"operations": [_operation(batch) for batch in batches]}
        if has_more:
            document["nextPageToken"] = batches[-1].id
        return json_answer(document)

    def _found(self, batch_id: str) -> Batch:
        batch = self._desk.get(batch_id)
        if batch is None:
            raise Refusal(404, "Requested entity was not found.")
        return batch


def _lines(requests: object) -> list[Line]:
    if not isinstance(requests, list) or not requests:
        raise invalid("* BatchGenerateContentRequest.batch.input_config.requests: must not be empty.")
    lines = []
    for place, one in enumerate(requests):
        request = one.get("request") if isinstance(one, dict) else None
        if not isinstance(request, dict):
            raise invalid(f"Invalid value at 'batch.input_config.requests.requests[{place}].request'.")
        key = mapping(one, "metadata").get("key")
        lines.append(Line(key if isinstance(key, str) else "", request))
    return lines


def _operation(batch: Batch) -> dict[str, Any]:
    """The batch as an operation; whole numbers of 64 bits are texts."""
    name = f"batches/{batch.id}"
    counts = {
        "requestCount": len(batch.lines),
        "successfulRequestCount": batch.succeeded,
        "failedRequestCount": batch.errored,
        "pendingRequestCount": len(batch.lines) - len(batch.answers),
    }
    metadata: dict[str, Any] = {
        "@type": f"{_TYPE}GenerateContentBatch",
        "model": f"models/{batch.facts['model']}",
        "displayName": batch.facts["displayName"],
        "createTime": _time(batch.created_at),
        "updateTime": _time(batch.ended_at or batch.created_at),
        "batchStats": {count: str(number) for count, number in counts.items() if number},
        "state": f"BATCH_STATE_{_state(batch)}",
        "name": name,
    }
    if not batch.is_over:
        return {"name": name, "metadata": metadata}
    metadata["endTime"] = metadata["updateTime"]
    if not batch.answers:
        return {"name": name, "metadata": metadata, "done": True}
    responses = [_inlined(line, batch.answers.get(place)) for place, line in enumerate(batch.lines)]
    output = {"inlinedResponses": {"inlinedResponses": responses}}
    metadata["output"] = output
    response = {"@type": f"{_TYPE}GenerateContentBatchOutput", **output}
    return {"name": name, "metadata": metadata, "done": True, "response": response}


def _state(batch: Batch) -> str:
    if batch.is_over:
        return _ENDINGS[batch.ending]
    return "PENDING" if batch.state == "validating" else "RUNNING"


def _inlined(line: Line, answer: Answer | None) -> dict[str, Any]:
    metadata = {"metadata": {"key": line.custom_id}} if line.custom_id else {}
    if answer is None:
        return {"error": {"code": _CODES[499], "message": "The request was not processed."}, **metadata}
    document = json.loads(answer.body)
    if answer.status >= 400:
        code = _CODES.get(answer.status, _INTERNAL)
        return {"error": {"code": code, "message": document["error"]["message"]}, **metadata}
    return {"response": document, **metadata}


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")
