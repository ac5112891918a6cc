"""What a job says while it runs, as server-sent events."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any
from uuid import UUID

import redis
from fastapi import APIRouter, Header, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from psycopg import OperationalError
from redis.asyncio import Redis

from admin_api.jobs import allow_watching, found
from admin_api.refusals import Invalid
from admin_api.security import Current, GuardedRoute
from admin_api.services import Services, Using
from workers import events, records

router = APIRouter(prefix="/jobs", tags=["jobs"], route_class=GuardedRoute)

_LOOK_SECONDS = 1.0  # between two looks whether the job has ended, where its stream says nothing
_ALIVE_SECONDS = 15.0  # between two comments that keep proxies from closing the connection
_PLACE = re.compile(r"\d{1,20}(-\d{1,20})?")
_BEGINNING = "0"

_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "`text`: the answer goes on. `restarted`: what was said so far does not count. "
        "`done`: the job has its record; the stream ends.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}


@router.get("/{job_id}/events", response_class=StreamingResponse, responses=_ANSWER)
@allow_watching
def follow_job(
    job_id: UUID,
    request: Request,
    caller: Current,
    using: Using,
    last_event_id: Annotated[str | None, Header(max_length=50)] = None,
) -> Response:
    """Follow a job: its text as the provider writes it, where it was enqueued with `stream`, and its end.

    Events are kept for an hour. Who comes back with `Last-Event-ID` gets what followed that event, nothing
    twice. The durable result is the job's own: what is lost of a stream is in there.
    """
    if last_event_id is not None and not _PLACE.fullmatch(last_event_id):
        raise Invalid("This must be the id of an event that was received.", field="Last-Event-ID")
    found(using, job_id, caller.token_id)
    return StreamingResponse(
        _followed(job_id, last_event_id or _BEGINNING, request, caller.token_id, using),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _followed(
    job_id: UUID, place: str, request: Request, token_id: UUID | None, using: Services
) -> AsyncIterator[str]:
    stream, spoke = events.key(job_id), time.monotonic()
    listener = Redis.from_url(
        using.settings.redis(), socket_timeout=_LOOK_SECONDS + 5, socket_connect_timeout=0.5
    )
    try:
        while not await request.is_disconnected():
            said = await _said(listener, stream, place)
            for place, event, data in said:
                yield f"id: {place}\nevent: {event}\ndata: {data}\n\n"
                if event == "done":
                    return
            if not said:
                ended = await run_in_threadpool(_ended, using, job_id, token_id)
                if ended is not None:
                    # Once more: it may have said its last words between the two looks.
                    for event_id, event, data in await _said(listener, stream, place, waits=False):
                        yield f"id: {event_id}\nevent: {event}\ndata: {data}\n\n"
                        if event == "done":
                            return
                    for text in _told(ended, is_fresh=place == _BEGINNING):
                        yield text
                    return
            if said or time.monotonic() - spoke > _ALIVE_SECONDS:
                spoke = time.monotonic()
                if not said:
                    yield ": keep-alive\n\n"
    finally:
        await listener.aclose()


async def _said(
    listener: Redis, stream: str, place: str, *, waits: bool = True
) -> list[tuple[str, str, str]]:
    """What was said after `place`, as (id, event, data); waits for it a second. Without Redis: nothing."""
    try:
        block = round(_LOOK_SECONDS * 1000) if waits else None
        answer: Any = await listener.xread({stream: place}, count=500, block=block)
    except redis.RedisError:
        await asyncio.sleep(_LOOK_SECONDS if waits else 0)
        return []
    return [
        (entry_id.decode(), fields[b"event"].decode(), fields[b"data"].decode())
        for _, entries in answer
        for entry_id, fields in entries
    ]


def _ended(using: Services, job_id: UUID, token_id: UUID | None) -> records.Job | None:
    """The job once it has ended. A database that does not answer is asked again."""
    try:
        if using.client.is_finished(job_id):
            job = using.client.job(job_id, token_id=token_id)
            return job if job is not None and job.is_finished else None
    except OperationalError:
        pass
    return None


def _told(job: records.Job, *, is_fresh: bool) -> list[str]:
    """The end of a job whose stream does not tell it: it does not stream, or Redis lost it, and some of the
    text with it."""
    text = (job.result or {}).get("text")
    told: list[tuple[str, dict[str, Any]]] = [("done", {"state": job.state})]
    if text:
        told.insert(0, ("text", {"text": text}))
        if not is_fresh:
            told.insert(0, ("restarted", {"reason": "The stream was lost; this is the whole answer."}))
    return [f"event: {event}\ndata: {json.dumps(data)}\n\n" for event, data in told]
