"""The seam for batch APIs: what a protocol says to have many calls answered later, at a lower price.

    lines ─▶ upload ─▶ create ─▶ created ─▶ poll ─▶ state ─▶ results ─▶ read ─▶ the live codec's decode

Pure, as codecs are. A line's body is the one that the live codec would send.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Protocol, TypeAlias

from routing.errors import ProviderError
from routing.providers.wire import HttpRequest, HttpResponse
from routing.values import Call, Capability, Provider


class BatchStatus(StrEnum):
    """How far a batch is. Whatever is not `RUNNING` is final."""

    RUNNING = "running"
    ENDED = "ended"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class BatchState:
    """What a provider says of a batch. Counts are of lines, None where it does not say; `failed` are those
    answered with an error. Expired and cancelled batches may hold answers, too.

    `message`: why it failed. `files` are the provider's names of what holds the results, `inline` are the
    results themselves.
    """

    batch_id: str
    status: BatchStatus
    total: int | None = None
    completed: int | None = None
    failed: int | None = None
    message: str | None = None
    files: tuple[str, ...] = ()
    inline: tuple[Any, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class BatchLine:
    """One call of a batch: `request` is what the live codec would send for it."""

    custom_id: str
    call: Call
    request: HttpRequest


@dataclass(frozen=True, slots=True)
class Listed:
    """A batch as a provider's list has it. `mark` is "" for a batch that has none, None where lists do not
    tell it: then the results do, once the batch `is_over`."""

    batch_id: str
    mark: str | None
    created_at: datetime | None
    is_over: bool


@dataclass(frozen=True, slots=True)
class Listing:
    """A page of batches, the newest first. `cursor` leads to the next one, None = it is the last."""

    batches: tuple[Listed, ...]
    cursor: str | None


Result: TypeAlias = tuple[str, HttpResponse | ProviderError]
"""A line's custom id, and the answer as a live call would have got it, or why there is none."""


class BatchCodec(Protocol):
    """Speaks the batch API of one wire protocol. What reads an answer raises the error that it stands for."""

    @property
    def capabilities(self) -> Set[Capability]:
        """What may be asked in batches."""

    @property
    def most_lines(self) -> int:
        """Lines of one batch."""

    @property
    def most_bytes(self) -> int:
        """Bytes of one batch, as it is sent."""

    def upload(self, provider: Provider, key: str | None, lines: Sequence[BatchLine]) -> HttpRequest | None:
        """What is sent before the batch is created. None = nothing."""

    def create(
        self,
        provider: Provider,
        key: str | None,
        lines: Sequence[BatchLine],
        label: str,
        uploaded: HttpResponse | None,
    ) -> HttpRequest:
        """The request that creates the batch, under our `label`; `uploaded` answered `upload`."""

    def created(self, response: HttpResponse) -> str:
        """The id of the batch that was created."""

    def mark(self, label: str) -> str:
        """`label` as the protocol carries it."""

    def recent(self, provider: Provider, key: str | None, cursor: str | None) -> HttpRequest:
        """A request for a page of the newest batches."""

    def listed(self, response: HttpResponse) -> Listing:
        """The page."""

    def poll(self, provider: Provider, key: str | None, batch_id: str) -> HttpRequest:
        """A request for the state of a batch."""

    def state(self, response: HttpResponse, batch_id: str) -> BatchState:
        """The state."""

    def cancel(self, provider: Provider, key: str | None, batch_id: str) -> HttpRequest:
        """The request that cancels a batch."""

    def results(self, provider: Provider, key: str | None, state: BatchState) -> tuple[HttpRequest, ...]:
        """Requests for the files of lines that hold the results, where they are not inline."""

    def read(self, documents: Iterable[Any], ids: Collection[str]) -> Iterator[Result]:
        """The results among `documents`, parsed lines of the files or the inline ones; whatever is none is
        left out. `ids` are those of all lines of the batch."""

    def marked(self, documents: Iterable[Any]) -> str | None:
        """The mark in a batch's results. None = there is none."""


def text(value: object) -> bytes:
    """`value` as JSON."""
    return json.dumps(value).encode()


def answer(status: int, body: object, request_id: str | None = None) -> HttpResponse:
    """A line's answer as if it had come alone."""
    headers = {"content-type": "application/json"} | ({"x-request-id": request_id} if request_id else {})
    try:
        return HttpResponse(status, headers, text(body))
    except RecursionError:
        return HttpResponse(status, headers, b"")


def instant(value: object) -> datetime | None:
    """A Unix time in seconds or an RFC 3339 text; None for anything else."""
    try:
        if isinstance(value, str):
            found = datetime.fromisoformat(value)
            return found if found.tzinfo else found.replace(tzinfo=UTC)
        if isinstance(value, int | float):
            return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return None


def mappings(value: object) -> list[Mapping[str, Any]]:
    """The objects in a list; [] where it is none."""
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []
