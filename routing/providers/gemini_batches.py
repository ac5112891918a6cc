"""Gemini's batch API (`:batchGenerateContent`, `/batches`), with the calls in the request itself.

Answers are told with their keys, but some come without any; then they come in the order of the requests,
which is the order of their ids here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from routing.errors import TimedOut
from routing.providers import endpoint, problems, replies
from routing.providers.batches import (
    BatchLine,
    BatchState,
    BatchStatus,
    Listed,
    Listing,
    Result,
    answer,
    instant,
    mappings,
    text,
)
from routing.providers.gemini import AUTH, body_of, classify, host, model_name, version_of
from routing.providers.parameters import member
from routing.providers.wire import HttpRequest, HttpResponse
from routing.values import Capability, Provider

_PAGE = 20  # a list holds the answers, too
_STATUS = {
    "SUCCEEDED": BatchStatus.ENDED,
    "PARTIALLY_SUCCEEDED": BatchStatus.ENDED,
    "FAILED": BatchStatus.FAILED,
    "EXPIRED": BatchStatus.EXPIRED,
    "CANCELLED": BatchStatus.CANCELLED,
}
_CANCELLED = 1
# Lines fail with gRPC's codes: HTTP's status and word for each (google/rpc/code.proto).
_CODES: Mapping[int, tuple[int, str]] = {
    2: (500, "UNKNOWN"),
    3: (400, "INVALID_ARGUMENT"),
    4: (504, "DEADLINE_EXCEEDED"),
    5: (404, "NOT_FOUND"),
    6: (409, "ALREADY_EXISTS"),
    7: (403, "PERMISSION_DENIED"),
    8: (429, "RESOURCE_EXHAUSTED"),
    9: (400, "FAILED_PRECONDITION"),
    10: (409, "ABORTED"),
    11: (400, "OUT_OF_RANGE"),
    12: (501, "UNIMPLEMENTED"),
    13: (500, "INTERNAL"),
    14: (503, "UNAVAILABLE"),
    15: (500, "DATA_LOSS"),
    16: (401, "UNAUTHENTICATED"),
}


class Batches:
    """Whatever `generateContent` serves; embedding has a batch call of its own, which is not spoken here."""

    capabilities = frozenset(
        {
            *(Capability.TEXT, Capability.VISION, Capability.SPEECH, Capability.TRANSCRIPTION),
            Capability.IMAGE,
        }
    )
    most_lines = 10_000
    most_bytes = 19_000_000  # the limit is 20 MB

    def upload(self, provider: Provider, key: str | None, lines: Sequence[BatchLine]) -> HttpRequest | None:
        return None

    def create(
        self,
        provider: Provider,
        key: str | None,
        lines: Sequence[BatchLine],
        label: str,
        uploaded: HttpResponse | None,
    ) -> HttpRequest:
        ordered = sorted(lines, key=lambda line: line.custom_id)
        written = b",".join(_written(line) for line in ordered)
        head = b'{"batch": {"displayName": ' + text(label) + b', "inputConfig": {"requests": {"requests": ['
        path = f"{model_name(lines[0].call)}:batchGenerateContent"
        return _post(provider, key, path, head + written + b"]}}}}")

    def created(self, response: HttpResponse) -> str:
        found = replies.word(body_of(response).get("name"))
        if found is None:
            raise problems.unreadable(response, "it holds no name")
        return found

    def mark(self, label: str) -> str:
        return label

    def recent(self, provider: Provider, key: str | None, cursor: str | None) -> HttpRequest:
        query = urlencode({"pageSize": _PAGE} | ({"pageToken": cursor} if cursor else {}))
        return _get(provider, key, f"{version_of(provider)}/batches?{query}")

    def listed(self, response: HttpResponse) -> Listing:
        body = body_of(response)
        batches = tuple(
            Listed(
                batch_id=entry["name"],
                mark=replies.word(member(entry, "metadata", "displayName")) or "",
                created_at=instant(member(entry, "metadata", "createTime")),
                is_over=_status(entry) is not BatchStatus.RUNNING,
            )
            for entry in mappings(body.get("operations"))
            if replies.word(entry.get("name"))
        )
        return Listing(batches, replies.word(body.get("nextPageToken")))

    def poll(self, provider: Provider, key: str | None, batch_id: str) -> HttpRequest:
        return _get(provider, key, f"{version_of(provider)}/{quote(batch_id)}")

    def state(self, response: HttpResponse, batch_id: str) -> BatchState:
        if response.status >= 400:
            raise classify(response)
        body = replies.json_object(response)
        said = member(body, "error", "message")
        return BatchState(
            batch_id,
            _status(body),
            total=_count(body, "requestCount"),
            completed=_count(body, "successfulRequestCount"),
            failed=_count(body, "failedRequestCount"),
            message=problems.brief(said) if isinstance(said, str) else None,
            inline=_inline(body),
        )

    def cancel(self, provider: Provider, key: str | None, batch_id: str) -> HttpRequest:
        return _post(provider, key, f"{quote(batch_id)}:cancel", b"{}")

    def results(self, provider: Provider, key: str | None, state: BatchState) -> tuple[HttpRequest, ...]:
        return ()

    def read(self, documents: Iterable[Any], ids: Collection[str]) -> Iterator[Result]:
        found = list(documents)
        in_order = sorted(ids) if len(found) == len(ids) else []
        for place, document in enumerate(found):
            result = _answer(document) if isinstance(document, Mapping) else None
            if result is None:
                continue
            key = member(document, "metadata", "key")
            if isinstance(key, str):
                yield key, result
            elif in_order:
                yield in_order[place], result

    def marked(self, documents: Iterable[Any]) -> str | None:
        return None


def _written(line: BatchLine) -> bytes:
    """A request of the batch; its body as the live call has it, byte for byte."""
    key = text({"key": line.custom_id})
    return b'{"metadata": ' + key + b', "request": ' + line.request.body + b"}"


def _get(provider: Provider, key: str | None, path: str) -> HttpRequest:
    return endpoint.get(host(provider), key, path, auth=AUTH)


def _post(provider: Provider, key: str | None, path: str, body: bytes) -> HttpRequest:
    return endpoint.post_written(host(provider), key, f"{version_of(provider)}/{path}", body, auth=AUTH)


def _status(body: Mapping[str, Any]) -> BatchStatus:
    word = str(member(body, "metadata", "state")).removeprefix("BATCH_STATE_").removeprefix("JOB_STATE_")
    if word in _STATUS or body.get("done") is not True:
        return _STATUS.get(word, BatchStatus.RUNNING)
    return BatchStatus.FAILED if body.get("error") else BatchStatus.ENDED


def _count(body: Mapping[str, Any], name: str) -> int | None:
    """A whole number of 64 bits, which is written as a text; one of 0 is left out."""
    stats = member(body, "metadata", "batchStats")
    if not isinstance(stats, Mapping):
        return None
    found = replies.number(stats, name)
    return 0 if found is None else int(found)


def _inline(body: Mapping[str, Any]) -> tuple[Any, ...]:
    """The results, which stand in two places."""
    for output in (body.get("response"), member(body, "metadata", "output")):
        found = (
            member(output, "inlinedResponses", "inlinedResponses") if isinstance(output, Mapping) else None
        )
        if isinstance(found, list):
            return tuple(found)
    return ()


def _answer(document: Mapping[str, Any]) -> HttpResponse | TimedOut | None:
    error = document.get("error")
    if not isinstance(error, Mapping):
        return answer(200, document["response"]) if "response" in document else None
    code = error.get("code")
    if code == _CANCELLED:
        return TimedOut("The batch ended before this call was made.", sent=False)
    status, word = _CODES.get(code, (500, "INTERNAL")) if isinstance(code, int) else (500, "INTERNAL")
    if isinstance(code, int) and 400 <= code < 600:
        status, word = code, replies.word(error.get("status")) or ""
    return answer(status, {"error": {"status": word, **error, "code": status}})
