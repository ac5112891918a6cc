"""Anthropic's Message Batches (`/v1/messages/batches`).

A batch carries nothing of ours but the ids of its lines, which are told with the results alone. So the label
stands in each of them: `{digest of the label}_{custom id}`, of at most 64 characters. A batch that a lost
answer left behind is known by it once it has ended, not before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from routing.errors import ProviderError, TimedOut
from routing.providers import endpoint, problems, replies
from routing.providers.anthropic import AUTH, STATUS_OF, classify, get, headers_of, host
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
from routing.providers.parameters import member
from routing.providers.wire import HttpRequest, HttpResponse
from routing.values import Capability, Provider

_PATH = "v1/messages/batches"
_PAGE = 100
_MARK_BYTES = 13  # 26 characters, which leave 37 for an id
_VERSION = "anthropic-version"
_COUNTS = ("processing", "succeeded", "errored", "canceled", "expired")


class Batches:
    """Messages, all in one request."""

    capabilities = frozenset({Capability.TEXT, Capability.VISION})
    most_lines = 100_000
    most_bytes = 256_000_000

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
        mark = self.mark(label)
        body = b'{"requests": [' + b",".join(_written(line, mark) for line in lines) + b"]}"
        # The oldest that a line asks for: it takes what the others do, and sampling parameters besides.
        headers = {_VERSION: min(line.request.headers[_VERSION] for line in lines)}
        return endpoint.post_written(host(provider), key, _PATH, body, auth=AUTH, headers=headers)

    def created(self, response: HttpResponse) -> str:
        found = replies.word(_body(response).get("id"))
        if found is None:
            raise problems.unreadable(response, "it holds no id")
        return found

    def mark(self, label: str) -> str:
        return hashlib.blake2b(label.encode(), digest_size=_MARK_BYTES).hexdigest()

    def recent(self, provider: Provider, key: str | None, cursor: str | None) -> HttpRequest:
        query = urlencode({"limit": _PAGE} | ({"after_id": cursor} if cursor else {}))
        return get(provider, key, f"{_PATH}?{query}")

    def listed(self, response: HttpResponse) -> Listing:
        body = _body(response)
        batches = tuple(
            Listed(
                batch_id=entry["id"],
                mark=None if entry.get("archived_at") is None else "",  # its results are gone
                created_at=instant(entry.get("created_at")),
                is_over=entry.get("processing_status") == "ended",
            )
            for entry in mappings(body.get("data"))
            if replies.word(entry.get("id"))
        )
        return Listing(batches, batches[-1].batch_id if batches and body.get("has_more") is True else None)

    def poll(self, provider: Provider, key: str | None, batch_id: str) -> HttpRequest:
        return get(provider, key, _path(batch_id))

    def state(self, response: HttpResponse, batch_id: str) -> BatchState:
        body = _body(response)
        found = {name: replies.count(body, "request_counts", name) for name in _COUNTS}
        known = [count for count in found.values() if count is not None]
        return BatchState(
            batch_id,
            _status(body, found),
            total=sum(known) if known else None,
            completed=found["succeeded"],
            failed=found["errored"],
        )

    def cancel(self, provider: Provider, key: str | None, batch_id: str) -> HttpRequest:
        path, headers = f"{_path(batch_id)}/cancel", headers_of(provider)
        return endpoint.post_written(host(provider), key, path, b"", auth=AUTH, headers=headers)

    def results(self, provider: Provider, key: str | None, state: BatchState) -> tuple[HttpRequest, ...]:
        """The path is known: `results_url` might lead the key elsewhere."""
        return (get(provider, key, f"{_path(state.batch_id)}/results"),)

    def read(self, documents: Iterable[Any], ids: Collection[str]) -> Iterator[Result]:
        for document in documents:
            found = _answer(document.get("result")) if isinstance(document, Mapping) else None
            if found is not None and isinstance(document.get("custom_id"), str):
                yield document["custom_id"].partition("_")[2], found

    def marked(self, documents: Iterable[Any]) -> str | None:
        ids = (document.get("custom_id") for document in documents if isinstance(document, Mapping))
        return next((custom_id.partition("_")[0] for custom_id in ids if isinstance(custom_id, str)), None)


def _written(line: BatchLine, mark: str) -> bytes:
    """A request of the batch; its params as the live call has them, byte for byte."""
    return text({"custom_id": f"{mark}_{line.custom_id}"})[:-1] + b', "params": ' + line.request.body + b"}"


def _path(batch_id: str) -> str:
    return f"{_PATH}/{quote(batch_id, safe='')}"


def _body(response: HttpResponse) -> Mapping[str, Any]:
    if response.status >= 400:
        raise classify(response)
    body = replies.json_object(response)
    if body.get("type") == "error":
        raise classify(response)
    return body


def _status(body: Mapping[str, Any], counts: Mapping[str, int | None]) -> BatchStatus:
    if body.get("processing_status") != "ended":
        return BatchStatus.RUNNING
    if counts["canceled"]:
        return BatchStatus.CANCELLED
    return BatchStatus.EXPIRED if counts["expired"] else BatchStatus.ENDED


def _answer(result: Any) -> HttpResponse | ProviderError | None:
    match result:
        case {"type": "succeeded", "message": message}:
            return answer(200, message)
        case {"type": "errored", "error": Mapping() as error}:
            return answer(_line_status(member(error, "error", "type") or error.get("type")), error)
        case {"type": "expired" | "canceled" as kind}:
            return TimedOut(f"The batch ended before this call was made ({kind}).", sent=False)
    return None


def _line_status(kind: Any) -> int:
    """The status of a line's error. A 429 stays inside a 200: without a retry-after, which no line has, it
    would pass for that of a monthly cap."""
    status = STATUS_OF.get(str(kind), 500)
    return 200 if status == 429 else status
