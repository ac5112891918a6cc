"""OpenAI's ``/v1/files`` and ``/v1/batches``."""

import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from standalone.sandbox.batches import WINDOW_SECONDS, Batch, BatchDesk, Line
from standalone.sandbox.faults import Fault
from standalone.sandbox.forms import read_form
from standalone.sandbox.protocols import openai_fields as fields
from standalone.sandbox.values import Answer, Call, Refusal, encode_json, fresh_id, json_answer

ENDPOINTS = ("/v1/responses", "/v1/chat/completions", "/v1/embeddings", "/v1/moderations")
_MOST_LINES = 50_000
_KNOWN = frozenset(("input_file_id", "endpoint", "completion_window", "metadata", "output_expires_after"))
_PURPOSES = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals")
_STATES = {"validating": "validating", "running": "in_progress", "finalizing": "finalizing"}
_UNDONE = {
    "expired": ("batch_expired", "This request could not be executed before the completion window expired."),
    "cancelled": ("batch_cancelled", "This request was cancelled with its batch."),
}

AnswerLine = Callable[[Call, str, Mapping[str, Any], Fault | None], Awaitable[Answer]]
"""Answers the body of a line that names an endpoint."""


@dataclass(frozen=True)
class _File:
    id: str
    name: str
    purpose: str
    body: bytes = field(repr=False)
    created_at: int = field(default_factory=lambda: int(time.time()))


class OpenAIBatches:
    """Files, and the batches made of them."""

    def __init__(self, desk: BatchDesk, answer: AnswerLine) -> None:
        self._desk = desk
        self._answer = answer
        self._files: dict[str, _File] = {}
        self._results: dict[str, tuple[str | None, str | None]] = {}

    def serves(self, call: Call) -> bool:
        return call.path.split("/")[2:3] in (["files"], ["batches"])

    async def answer(self, call: Call) -> Answer:
        match (call.method, call.path.split("/")[2:]):
            case ("POST", ["files"]):
                return self._upload(call)
            case ("GET", ["files", file_id]):
                return json_answer(_file(self._found_file(file_id)))
            case ("GET", ["files", file_id, "content"]):
                return Answer(200, b"application/octet-stream", (self._found_file(file_id).body,))
            case ("DELETE", ["files", file_id]):
                del self._files[self._found_file(file_id).id]
                return json_answer({"id": file_id, "object": "file", "deleted": True})
            case ("POST", ["batches"]):
                return self._create(call)
            case ("GET", ["batches"]):
                return self._list(call)
            case ("GET", ["batches", batch_id]):
                return json_answer(self._document(self._found(batch_id)))
            case ("POST", ["batches", batch_id, "cancel"]):
                return self._cancel(self._found(batch_id))
        raise Refusal(404, f"Invalid URL ({call.method} {call.path})", "invalid_request_error")

    def _upload(self, call: Call) -> Answer:
        form = read_form(call)
        if form is None or form.filename is None:
            raise fields.refuse("file", "missing_required_parameter", "Missing required parameter: 'file'.")
        purpose = fields.choice(form.fields, "purpose", _PURPOSES)
        fields.required({"purpose": purpose}, "purpose")
        if purpose == "batch" and not form.filename.endswith(".jsonl"):
            raise fields.refuse("file", None, "Invalid file format for Batch API. Must be .jsonl")
        file = self._keep(form.filename, str(purpose), form.file)
        return json_answer(_file(file))

    def _create(self, call: Call) -> Answer:
        body = call.document
        if not isinstance(body, dict):
            raise fields.refuse(None, None, "We could not parse the JSON body of your request.")
        fields.reject_unknown(body, _KNOWN)
        file = self._files.get(fields.required(body, "input_file_id"))
        if file is None or file.purpose != "batch":
            message = f"Invalid 'input_file_id': no such file with purpose 'batch': {body['input_file_id']}."
            raise fields.refuse("input_file_id", "invalid_value", message)
        fields.required({"endpoint": fields.choice(body, "endpoint", ENDPOINTS)}, "endpoint")
        fields.required({"window": fields.choice(body, "completion_window", ("24h",))}, "window")
        lines, problems = _read(file.body, body["endpoint"])
        batch = Batch(fresh_id("batch_"), lines, {**body, "problems": problems})
        if problems:
            batch.end("failed")

        async def answer(line: Line, fault: Fault | None) -> Answer:
            return await self._answer(call, body["endpoint"], line.body, fault)

        self._desk.open(batch, answer)
        return json_answer(self._document(batch))

    def _list(self, call: Call) -> Answer:
        query = parse_qs(call.query)
        limit, after = query.get("limit", ["20"])[-1], query.get("after", [None])[-1]
        if not limit.isascii() or not limit.isdigit() or not 1 <= int(limit) <= 100:
            raise fields.refuse("limit", "invalid_value", "Invalid 'limit': expected 1 to 100.")
        batches, has_more = self._desk.page(int(limit), after)
        document = {
            "object": "list",
            "data": [self._document(batch) for batch in batches],
            "first_id": batches[0].id if batches else None,
            "last_id": batches[-1].id if batches else None,
            "has_more": has_more,
        }
        return json_answer(document)

    def _cancel(self, batch: Batch) -> Answer:
        if batch.is_over:
            message = f"Cannot cancel a batch with status '{batch.ending}'."
            raise Refusal(409, message, "invalid_request_error")
        self._desk.cancel(batch)
        return json_answer(self._document(batch))

    def _document(self, batch: Batch) -> dict[str, Any]:
        output, errors = self._written(batch)
        state = "cancelling" if batch.state == "cancelling" else batch.ending if batch.is_over else None
        problems = batch.facts["problems"]
        ended = {
            f"{ending}_at": _seconds(batch.ended_at) if batch.is_over and batch.ending == ending else None
            for ending in ("completed", "failed", "expired", "cancelled")
        }
        return {
            "id": batch.id,
            "object": "batch",
            "endpoint": batch.facts["endpoint"],
            "errors": {"object": "list", "data": problems} if problems else None,
            "input_file_id": batch.facts["input_file_id"],
            "completion_window": "24h",
            "status": state or _STATES[batch.state],
            "output_file_id": output,
            "error_file_id": errors,
            "created_at": int(batch.created_at),
            "expires_at": int(batch.created_at) + WINDOW_SECONDS,
            **ended,
            "cancelling_at": _seconds(batch.cancelled_at),
            "request_counts": {
                "total": 0 if problems else len(batch.lines),
                "completed": batch.succeeded,
                "failed": batch.errored,
            },
            "metadata": batch.facts.get("metadata"),
        }

    def _written(self, batch: Batch) -> tuple[str | None, str | None]:
        """The ids of the files of an ended batch's answers and errors, the last line's first."""
        if not batch.is_over or batch.ending == "failed":
            return None, None
        if batch.id not in self._results:
            good: list[bytes] = []
            bad: list[bytes] = []
            for place, line in reversed(list(enumerate(batch.lines))):
                answer = batch.answers.get(place)
                written = encode_json(_result(line, answer, batch.ending)) + b"\n"
                (good if answer and answer.status < 400 else bad).append(written)
            self._results[batch.id] = (
                self._kept(f"{batch.id}_output.jsonl", good),
                self._kept(f"{batch.id}_error.jsonl", bad),
            )
        return self._results[batch.id]

    def _kept(self, name: str, lines: Sequence[bytes]) -> str | None:
        return self._keep(name, "batch_output", b"".join(lines)).id if lines else None

    def _keep(self, name: str, purpose: str, body: bytes) -> _File:
        file = _File(fresh_id("file-"), name, purpose, body)
        self._files[file.id] = file
        return file

    def _found_file(self, file_id: str) -> _File:
        if file_id not in self._files:
            raise Refusal(404, f"No such File object: {file_id}", "invalid_request_error", param="id")
        return self._files[file_id]

    def _found(self, batch_id: str) -> Batch:
        batch = self._desk.get(batch_id)
        if batch is None:
            message = f"No batch found with id '{batch_id}'."
            raise Refusal(404, message, "invalid_request_error")
        return batch


def _seconds(at: float | None) -> int | None:
    return None if at is None else int(at)


def _file(file: _File) -> dict[str, Any]:
    return {
        "id": file.id,
        "object": "file",
        "bytes": len(file.body),
        "created_at": file.created_at,
        "expires_at": None,
        "filename": file.name,
        "purpose": file.purpose,
        "status": "processed",
    }


def _result(line: Line, answer: Answer | None, ending: str) -> dict[str, Any]:
    head = {"id": fresh_id("batch_req_"), "custom_id": line.custom_id}
    if answer is None:
        code, message = _UNDONE[ending]
        return {**head, "response": None, "error": {"code": code, "message": message}}
    response = {
        "status_code": answer.status,
        "request_id": fresh_id(""),
        "body": json.loads(answer.body),
    }
    return {**head, "response": response, "error": None}


def _read(body: bytes, endpoint: str) -> tuple[list[Line], list[dict[str, Any]]]:
    """The lines of a file, and what is wrong with it."""
    lines: list[Line] = []
    problems: list[dict[str, Any]] = []
    for number, text in enumerate(body.splitlines(), 1):
        try:
            request = json.loads(text)
        except (ValueError, RecursionError):
            request = None
        code, message = _flaw(request, endpoint)
        if code:
            problems.append({"code": code, "message": message, "param": None, "line": number})
        else:
            lines.append(Line(request["custom_id"], request["body"]))
    twice = [custom_id for custom_id, count in Counter(line.custom_id for line in lines).items() if count > 1]
    models = {line.body.get("model") for line in lines}
    if twice:
        problems.append(_of_all("duplicate_custom_id", f"The custom_id '{twice[0]}' is used twice."))
    if len(models) > 1:
        problems.append(_of_all("mismatched_model", "All requests of a batch must name the same model."))
    if not lines and not problems:
        problems.append(_of_all("empty_file", "The input file is empty."))
    if len(lines) > _MOST_LINES:
        problems.append(_of_all("too_many_tasks", f"At most {_MOST_LINES} requests can be in one batch."))
    return lines, problems


def _of_all(code: str, message: str) -> dict[str, Any]:
    return {"code": code, "message": message, "param": None, "line": None}


def _flaw(request: Any, endpoint: str) -> tuple[str, str]:
    """Code and message of what is wrong with a line; empty where nothing is."""
    if not isinstance(request, dict):
        return "invalid_json_line", "This line is not parseable as valid JSON."
    if not isinstance(request.get("custom_id"), str):
        return "missing_required_parameter", "Missing required parameter: 'custom_id'."
    if request.get("method") != "POST":
        return "invalid_method", "The 'method' must be 'POST'."
    if request.get("url") != endpoint:
        return "invalid_url", "The URL provided for this request does not match the batch endpoint."
    if not isinstance(request.get("body"), dict):
        return "invalid_request", "The 'body' must be an object."
    if request["body"].get("stream"):
        return "invalid_request", "Streaming is not supported in a batch."
    return "", ""
