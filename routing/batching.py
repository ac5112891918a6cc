"""Batches: many calls of one route, sent together, answered within a day, at a lower price.

    submit ─▶ poll … ─▶ results
       └ SubmitUnknown ─▶ find ─▶ the id that it would have returned, or None: submit again

The bodies are those of live calls, and so is the reading of their answers. A request that creates a batch is
never sent twice. Whatever is no answer to a line is raised as the error that it stands for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from tempfile import SpooledTemporaryFile
from typing import Any

from routing.errors import (
    BadRequest,
    ConfigurationError,
    ProviderError,
    RoutingError,
    ServerError,
    SubmitUnknown,
    TimedOut,
    TooLarge,
)
from routing.providers import batch_codec, classify, codec
from routing.providers.batches import BatchCodec, BatchLine, BatchState, BatchStatus, Listed
from routing.providers.replies import parse
from routing.providers.wire import HttpRequest, HttpResponse, scrubbed
from routing.transport import MAX_BODY, Transport
from routing.values import Call, Capability, Provider, Reply, Route

__all__ = [
    "BatchState",
    "BatchStatus",
    "can_batch",
    "cancel",
    "find",
    "limits",
    "poll",
    "results",
    "submit",
]

MOST_RESULTS = 1024**3  # bytes of a file of results, which is kept on disk
_MOST_STATE = 200 * 1024**2  # bytes of an answer that is kept in memory
_IN_MEMORY = 8 * 1024**2
_TIMEOUT = 60.0  # seconds
_LONG_TIMEOUT = 600.0  # of what carries lines
_PAGES = 5  # of a list, that are searched for a batch
_SKEW = timedelta(minutes=10)  # between a provider's clock and ours
_BULKY = frozenset({Capability.SPEECH, Capability.IMAGE})
_MOST_BULKY_LINES = 50  # of which answers come inline, at up to 4 MB each


def can_batch(route: Route, capability: Capability) -> bool:
    """Whether the route takes calls of `capability` in batches."""
    try:
        return capability in batch_codec(route.provider).capabilities
    except ConfigurationError:
        return False


def limits(route: Route) -> tuple[int, int]:
    """Lines and bytes that one batch may have. Raises ConfigurationError where there is no batch API."""
    batches = batch_codec(route.provider)
    is_bulky = bool(_BULKY & route.model.capabilities & batches.capabilities)
    return min(_MOST_BULKY_LINES, batches.most_lines) if is_bulky else batches.most_lines, batches.most_bytes


def submit(
    transport: Transport,
    provider: Provider,
    key: str | None,
    lines: Sequence[tuple[str, Call]],
    *,
    label: str,
) -> str:
    """Send `lines`, custom ids (each its own, of up to 37 characters `[A-Za-z0-9-]`) with calls of one route;
    the provider's id of the batch. `label`, of our own making, is what `find` goes by.

    Raises:
        SubmitUnknown: nobody knows whether the batch exists.
        TooLarge: the lines are more than one batch may have; nothing was sent.
        RoutingError: there is no batch.
    """
    batches = batch_codec(provider)
    encoded = [BatchLine(custom_id, call, _request(call, key)) for custom_id, call in lines]
    upload = batches.upload(provider, key, encoded)
    _check_size(batches, len(encoded), 0 if upload is None else len(upload.body))
    uploaded = None if upload is None else _sent(transport, provider, key, upload)
    create = batches.create(provider, key, encoded, label, uploaded)
    _check_size(batches, len(encoded), len(create.body))
    try:
        return batches.created(_sent(transport, provider, key, create, once=True))
    except ProviderError as error:
        if not _is_unknown(error):
            raise
        raise SubmitUnknown(error.message, status=error.status, request_id=error.request_id) from error


def find(
    transport: Transport,
    provider: Provider,
    key: str | None,
    *,
    label: str,
    since: datetime | None = None,
    known: Collection[str] = (),
) -> str | None:
    """The id of the batch that a submit of unknown outcome made; None = surely none among the recent ones.

    Where lists tell nothing of ours (Anthropic), only the results of batches that have ended do: the more
    batches are `known` as others, or are older than the instant `since` of the submit, the fewer are in the
    way. A provider may take a moment to list a batch: ask no sooner than a minute after the submit.

    Raises:
        SubmitUnknown: a batch that is still running may be it.
    """
    batches = batch_codec(provider)
    mark = batches.mark(label)
    is_told = True
    for entry in _recent(transport, provider, key, since):
        if entry.batch_id in known:
            continue
        if entry.mark is None and not entry.is_over:
            is_told = False
        elif mark == (_mark(transport, provider, key, entry) if entry.mark is None else entry.mark):
            return entry.batch_id
    if not is_told:
        raise SubmitUnknown("A batch that is still running may be the one; its end will tell.")
    return None


def poll(transport: Transport, provider: Provider, key: str | None, batch_id: str) -> BatchState:
    """How far the batch is, and what `results` needs."""
    batches = batch_codec(provider)
    return batches.state(_got(transport, provider, key, batches.poll(provider, key, batch_id)), batch_id)


def results(
    transport: Transport,
    provider: Provider,
    key: str | None,
    state: BatchState,
    calls: Mapping[str, Call],
) -> Iterator[tuple[str, Reply | RoutingError]]:
    """One outcome for each of `calls`, those of a batch that is over by custom id, in any order. One that
    expired or was cancelled has answers, too. Usage is marked as served at a batch's rate.

    Errors are those of live calls. TimedOut: the batch ended before the call was made. ServerError: what
    should be the answer is unreadable or missing, or the batch failed. The lines of others are left out.
    """
    waiting = dict(calls)
    documents = _documents(transport, provider, key, state)
    for custom_id, answer in batch_codec(provider).read(documents, calls.keys()):
        call = waiting.pop(custom_id, None)
        if call is not None:
            yield custom_id, _outcome(answer, call)
    for custom_id in waiting:
        yield custom_id, _unanswered(state)


def cancel(transport: Transport, provider: Provider, key: str | None, batch_id: str) -> None:
    """Have the batch end. One that has ended is left as it is."""
    request = batch_codec(provider).cancel(provider, key, batch_id)
    response = _sent(transport, provider, key, request)
    if response.status < 400:
        return
    error = classify(provider, response)
    if not isinstance(error, BadRequest):
        raise error
    if poll(transport, provider, key, batch_id).status is BatchStatus.RUNNING:
        raise error


# --- requests -----------------------------------------------------------------------------------------


def _request(call: Call, key: str | None) -> HttpRequest:
    return codec(call.route, call.capability).encode(call, key)


def _check_size(batches: BatchCodec, lines: int, size: int) -> None:
    if lines > batches.most_lines or size > batches.most_bytes:
        raise TooLarge(
            f"{lines:,} lines of {size:,} bytes are too many for one batch: it may have "
            f"{batches.most_lines:,} lines and {batches.most_bytes:,} bytes.",
            sent=False,
        )


def _is_unknown(error: ProviderError) -> bool:
    """Whether the request that `error` ended may have been carried out."""
    refused = error.status is not None and 400 <= error.status < 500 and error.status != 408
    return error.sent and not refused


def _sent(
    transport: Transport, provider: Provider, key: str | None, request: HttpRequest, *, once: bool = False
) -> HttpResponse:
    response = transport.send(request, timeout=_LONG_TIMEOUT, provider=provider, once=once)
    return scrubbed(response, key)


def _got(transport: Transport, provider: Provider, key: str | None, request: HttpRequest) -> HttpResponse:
    """The answer to a GET, which may be larger than a live call's."""
    with SpooledTemporaryFile(_IN_MEMORY) as file:
        response = transport.download(
            request, timeout=_TIMEOUT, provider=provider, file=file, most=_MOST_STATE
        )
        file.seek(0)
        return scrubbed(replace(response, body=response.body or file.read()), key)


def _recent(
    transport: Transport, provider: Provider, key: str | None, since: datetime | None
) -> Iterator[Listed]:
    """Batches of the first pages of the list, the newest first, down to those made before `since`."""
    batches = batch_codec(provider)
    cursor: str | None = None
    for _ in range(_PAGES):
        page = batches.listed(_got(transport, provider, key, batches.recent(provider, key, cursor)))
        for entry in page.batches:
            if since is not None and entry.created_at is not None and entry.created_at < since - _SKEW:
                return
            yield entry
        cursor = page.cursor
        if cursor is None:
            return


# --- results ------------------------------------------------------------------------------------------


def _mark(transport: Transport, provider: Provider, key: str | None, entry: Listed) -> str | None:
    state = BatchState(entry.batch_id, BatchStatus.ENDED)
    return batch_codec(provider).marked(_documents(transport, provider, key, state))


def _documents(transport: Transport, provider: Provider, key: str | None, state: BatchState) -> Iterator[Any]:
    """The results as parsed JSON, None for what is none. All of them are here before the first is given."""
    yield from state.inline
    with SpooledTemporaryFile(_IN_MEMORY) as file:
        for request in batch_codec(provider).results(provider, key, state):
            response = transport.download(
                request, timeout=_LONG_TIMEOUT, provider=provider, file=file, most=MOST_RESULTS
            )
            if response.status >= 400:
                raise classify(provider, scrubbed(response, key))
            file.write(b"\n")
        file.seek(0)
        while line := file.readline(MAX_BODY):  # what is longer falls into pieces, which are unreadable
            if line.strip():
                yield parse(scrubbed(HttpResponse(200, {}, line), key).body.decode("utf-8", "replace"))


def _outcome(answer: HttpResponse | ProviderError, call: Call) -> Reply | RoutingError:
    if isinstance(answer, ProviderError):
        return answer
    try:
        reply = codec(call.route, call.capability).decode(answer, call)
    except ProviderError as error:
        error.usage = error.usage and replace(error.usage, batch_rate=True)
        return error
    return replace(reply, usage=replace(reply.usage, batch_rate=True))


def _unanswered(state: BatchState) -> RoutingError:
    """The error of a line that the results do not hold."""
    match state.status:
        case BatchStatus.EXPIRED | BatchStatus.CANCELLED:
            return TimedOut(f"The batch is {state.status}; it ended before this call was made.", sent=False)
        case BatchStatus.FAILED:
            return ServerError(f"The batch failed: {state.message or 'the provider does not say why'}")
        case _:
            return ServerError("The batch's results hold no readable answer to this call.")
