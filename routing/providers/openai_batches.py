"""OpenAI's batch API, which Groq and Together copy: a file of lines (`/files`), a batch of it (`/batches`),
files of answers and of errors."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

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
from routing.providers.openai_compatible import AUTH, body_of, headers_of, is_openai, post
from routing.providers.parameters import member
from routing.providers.wire import HttpRequest, HttpResponse
from routing.values import Capability, Media, Provider

_LABEL = "orrery"
_PAGE = 100
_KEPT_SECONDS = 30 * 86_400
_STATUS = {
    "completed": BatchStatus.ENDED,
    "failed": BatchStatus.FAILED,
    "expired": BatchStatus.EXPIRED,
    "cancelled": BatchStatus.CANCELLED,
}
_UNDONE = ("batch_expired", "batch_cancelled")


class Batches:
    """Lines for any endpoint that answers with JSON; all of a batch name the same one."""

    capabilities = frozenset(
        {Capability.TEXT, Capability.VISION, Capability.EMBEDDING, Capability.MODERATION}
    )
    most_lines = 50_000
    most_bytes = 200_000_000

    def upload(self, provider: Provider, key: str | None, lines: Sequence[BatchLine]) -> HttpRequest | None:
        file = Media(b"\n".join(_written(provider, line) for line in lines), "application/jsonl")
        fields = {"purpose": "batch"}
        return endpoint.upload(provider, key, "files", fields, file, auth=AUTH, headers=headers_of(provider))

    def create(
        self,
        provider: Provider,
        key: str | None,
        lines: Sequence[BatchLine],
        label: str,
        uploaded: HttpResponse | None,
    ) -> HttpRequest:
        payload: dict[str, Any] = {
            "input_file_id": _id(uploaded) if uploaded else None,
            "endpoint": _endpoint(provider, lines[0].request),
            "completion_window": "24h",
            "metadata": {_LABEL: label},
        }
        if is_openai(provider):
            payload["output_expires_after"] = {"anchor": "created_at", "seconds": _KEPT_SECONDS}
        return post(provider, key, "batches", payload)

    def created(self, response: HttpResponse) -> str:
        return _id(response)

    def mark(self, label: str) -> str:
        return label

    def recent(self, provider: Provider, key: str | None, cursor: str | None) -> HttpRequest:
        query = urlencode({"limit": _PAGE} | ({"after": cursor} if cursor else {}))
        return _get(provider, key, f"batches?{query}")

    def listed(self, response: HttpResponse) -> Listing:
        body = body_of(response)
        entries = [entry for entry in mappings(body.get("data")) if replies.word(entry.get("id"))]
        batches = tuple(
            Listed(
                batch_id=entry["id"],
                mark=replies.word(member(entry, "metadata", _LABEL)) or "",
                created_at=instant(entry.get("created_at")),
                is_over=_status(entry) is not BatchStatus.RUNNING,
            )
            for entry in entries
        )
        return Listing(batches, batches[-1].batch_id if batches and body.get("has_more") is True else None)

    def poll(self, provider: Provider, key: str | None, batch_id: str) -> HttpRequest:
        return _get(provider, key, f"batches/{quote(batch_id, safe='')}")

    def state(self, response: HttpResponse, batch_id: str) -> BatchState:
        body = body_of(response)
        counts = body.get("request_counts")
        files = (replies.word(body.get(name)) for name in ("output_file_id", "error_file_id"))
        return BatchState(
            batch_id,
            _status(body),
            total=replies.count(counts, "total"),
            completed=replies.count(counts, "completed"),
            failed=replies.count(counts, "failed"),
            message=_message(body),
            files=tuple(file for file in files if file),
        )

    def cancel(self, provider: Provider, key: str | None, batch_id: str) -> HttpRequest:
        return post(provider, key, f"batches/{quote(batch_id, safe='')}/cancel", {})

    def results(self, provider: Provider, key: str | None, state: BatchState) -> tuple[HttpRequest, ...]:
        return tuple(_get(provider, key, f"files/{quote(file, safe='')}/content") for file in state.files)

    def read(self, documents: Iterable[Any], ids: Collection[str]) -> Iterator[Result]:
        for document in documents:
            found = _answer(document) if isinstance(document, Mapping) else None
            if found is not None and isinstance(document.get("custom_id"), str):
                yield document["custom_id"], found

    def marked(self, documents: Iterable[Any]) -> str | None:
        return None


def _written(provider: Provider, line: BatchLine) -> bytes:
    """A line of the file; its body as the live call has it, byte for byte."""
    head = text({"custom_id": line.custom_id, "method": "POST", "url": _endpoint(provider, line.request)})
    return head[:-1] + b', "body": ' + line.request.body + b"}"


def _endpoint(provider: Provider, request: HttpRequest) -> str:
    """The endpoint of a live call, as lines name it whatever the base URL."""
    base = urlsplit(provider.base_url.strip()).path.rstrip("/")
    return f"/v1{urlsplit(request.url).path.removeprefix(base)}"


def _get(provider: Provider, key: str | None, path: str) -> HttpRequest:
    return endpoint.get(provider, key, path, auth=AUTH, headers=headers_of(provider))


def _id(response: HttpResponse) -> str:
    found = replies.word(body_of(response).get("id"))
    if found is None:
        raise problems.unreadable(response, "it holds no id")
    return found


def _status(body: Mapping[str, Any]) -> BatchStatus:
    return _STATUS.get(str(body.get("status")), BatchStatus.RUNNING)


def _message(body: Mapping[str, Any]) -> str | None:
    """What is wrong with a batch, and in which line of its file."""
    said = [
        f"{entry.get('message')}" + (f" (line {entry['line']})" if entry.get("line") else "")
        for entry in mappings(member(body, "errors", "data"))
    ]
    return problems.brief(" ".join(said)) or None


def _answer(document: Mapping[str, Any]) -> HttpResponse | TimedOut | None:
    response, error = document.get("response"), document.get("error")
    if isinstance(response, Mapping) and isinstance(response.get("status_code"), int):
        request_id = replies.word(response.get("request_id"))
        return answer(response["status_code"], response.get("body"), request_id)
    if not isinstance(error, Mapping):
        return None
    if error.get("code") in _UNDONE:
        return TimedOut(problems.brief(f"{error.get('code')}: {error.get('message')}"), sent=False)
    return answer(200, {"error": error})
