"""Many jobs in one request: a JSON array, or a stream with one job a line (NDJSON) of any length.

A thread checks and copies the rows; it fetches each piece of the body from the event loop when it is ready
for it. So the body is read as fast as it is worked off, and memory stays flat.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

from anyio import from_thread
from fastapi import APIRouter, Request, Response, status
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect

from admin_api.answers import REPLAYED, IdempotencyKey, keeps_itself
from admin_api.bodies import parse
from admin_api.errors import field_errors
from admin_api.job_actions import ids_response
from admin_api.job_bodies import JobBody
from admin_api.jobs import LARGEST_JOB, allow_enqueueing
from admin_api.refusals import FieldError, Invalid, Refused, RowsRefused, TooLarge, TooSlow, WrongMediaType
from admin_api.security import Current, GuardedRoute
from admin_api.services import Using
from routing.errors import RoutingError
from workers import jobs
from workers.bulk import Ids
from workers.client import Client
from workers.requests import Sender, checked_key

router = APIRouter(prefix="/jobs", tags=["jobs"], route_class=GuardedRoute)

MOST_ROWS = 10_000  # of an array; a stream has no limit
_MOST_ERRORS = 100
_NDJSON = "application/x-ndjson"
_LINES = frozenset({_NDJSON, "application/ndjson", "application/jsonl"})

_JOB = {"$ref": "#/components/schemas/JobBody"}
_EXAMPLE = [
    {"feature": "daily_zodiac_text", "input": {"sign": "aries"}},
    {"feature": "daily_zodiac_text", "input": {"sign": "leo"}, "priority": -5},
]
_BODY = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {"type": "array", "items": _JOB, "maxItems": MOST_ROWS},
            "example": _EXAMPLE,
        },
        _NDJSON: {
            "schema": {"type": "string", "description": "One JobBody a line."},
            "example": '{"feature": "daily_zodiac_text", "input": {"sign": "aries"}}\n'
            '{"feature": "daily_zodiac_text", "input": {"sign": "leo"}}\n',
        },
    },
}


class AcceptedJobs(BaseModel):
    """How many jobs were stored, and their ids in the order of the rows."""

    accepted: int
    ids: list[str]


@router.post(
    "/bulk",
    status_code=status.HTTP_202_ACCEPTED,
    response_model=AcceptedJobs,
    openapi_extra={"requestBody": _BODY},
)
@allow_enqueueing
@keeps_itself
async def enqueue_jobs(
    request: Request, caller: Current, using: Using, key: IdempotencyKey = None
) -> Response:
    """Put many jobs into the queue, all or none: an array of up to 10,000, or NDJSON without limit.

    Each row is checked as by `POST /jobs`. Errors name their row, counted from 0 without blank lines, as
    `rows/17/input/sign`; reading ends at the hundredth. Changes of the configuration while the rows come in
    are harmless, unless they change what a row was checked against: then the answer is 409, and nothing is
    stored. Ids are consecutive.
    """
    body = _Body(request.stream(), is_stream=_is_stream(request))
    ids = await run_in_threadpool(_stored, using.client, caller.sender, body, key)
    answer = ids_response(f'{{"accepted": {len(ids)}, "ids": [', ids, "]}")
    if ids.replayed:
        answer.headers[REPLAYED] = "true"
    return answer


def _is_stream(request: Request) -> bool:
    declared = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if declared in _LINES:
        return True
    if declared == "application/json" or declared.endswith("+json"):
        return False
    raise WrongMediaType(f"Send an array as application/json, or one job a line as {_NDJSON}.")


def _stored(client: Client, sender: Sender, body: _Body, key: str | None) -> Ids:
    if key is not None and client.is_known(sender, checked_key(key)):
        count = sum(1 for _ in body.rows())  # checked when it was stored, which it was if the hash fits
        return client.replayed(jobs.IdempotencyKey(sender.scope, key, body.hash()), count)
    errors: list[FieldError] = []
    with client.bulk(sender) as bulk:
        for number, row in enumerate(body.rows()):
            try:
                bulk.add(_checked(row).request())
            except (Refused, ValidationError, RoutingError) as error:
                errors += _named(number, error)
                if len(errors) >= _MOST_ERRORS:
                    break
        if errors:
            raise RowsRefused(
                "Nothing was stored: some rows are not valid. See errors.", errors[:_MOST_ERRORS]
            )
        once = None if key is None else jobs.IdempotencyKey(sender.scope, key, body.hash())
        return client.committed(bulk, once)


def _checked(row: object) -> JobBody:
    return JobBody.model_validate(parse(row) if isinstance(row, bytes) else row)


def _named(number: int, error: Refused | ValidationError | RoutingError) -> list[FieldError]:
    place = f"rows/{number}"
    return [
        replace(found, field=f"{place}/{found.field}" if found.field else place)
        for found in field_errors(error)
    ]


class _Body:
    """A body, read by a thread as far as it asks."""

    def __init__(self, stream: AsyncIterator[bytes], *, is_stream: bool) -> None:
        self._stream = stream
        self._is_stream = is_stream
        self._digest = hashlib.sha256(b"bulk\n")

    def rows(self) -> Iterator[Any]:
        """Lines as bytes, or the members of an array as they are."""
        return self._lines() if self._is_stream else iter(self._array())

    def hash(self) -> bytes:
        """SHA-256 of what was read."""
        return self._digest.digest()

    def _array(self) -> list[Any]:
        raw = bytearray()
        for piece in self._pieces():
            raw += piece
            if len(raw) > LARGEST_JOB:
                raise TooLarge(f"An array may have {LARGEST_JOB:,} bytes. Send NDJSON: it has no limit.")
        try:
            rows = parse(bytes(raw))
        except Invalid as error:
            raise RowsRefused(
                error.message, [replace(found, field=f"rows/{found.field}") for found in error.errors]
            ) from None
        if not isinstance(rows, list):
            raise Invalid("Send an array of jobs.", field="rows")
        if len(rows) > MOST_ROWS:
            raise Invalid(
                f"An array may have {MOST_ROWS:,} jobs. Send NDJSON: it has no limit.", field="rows"
            )
        return rows

    def _lines(self) -> Iterator[bytes]:
        """Lines that are not blank."""
        begun: list[
            bytes
        ] = []  # of a line that has not ended: joined once, or a long one would cost its square
        size = 0
        for piece in self._pieces():
            first, *others = piece.split(b"\n")
            begun.append(first)
            size += len(first)
            for line in others:
                yield from _line(begun)
                begun, size = [line], len(line)
            if size > LARGEST_JOB:
                raise TooLarge(f"A line exceeds {LARGEST_JOB:,} bytes, the most that one job may have.")
        yield from _line(begun)

    def _pieces(self) -> Iterator[bytes]:
        while (piece := from_thread.run(self._piece)) is not None:
            self._digest.update(piece)
            yield piece

    async def _piece(self) -> bytes | None:
        try:
            return await anext(self._stream, None)
        except ClientDisconnect:
            raise TooSlow("The caller left before the end of the body.") from None


def _line(parts: list[bytes]) -> Iterator[bytes]:
    line = b"".join(parts)
    if line.strip():
        yield line
