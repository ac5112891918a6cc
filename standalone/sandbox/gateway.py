"""Every provider call passes here: read, log, spoil if a fault says so, else let the protocol answer."""

import time
from collections.abc import Mapping
from dataclasses import replace

from starlette.types import Receive, Scope, Send

from standalone.sandbox.calls import CallLog
from standalone.sandbox.exchange import MAX_BATCH_BYTES, MAX_BODY_BYTES, ClientGone, Exchange
from standalone.sandbox.faults import Fault, FaultBoard, Faults
from standalone.sandbox.values import Answer, AnswerLost, Call, Refusal, WireProtocol, json_answer

_GARBAGE = Answer(200, b"application/json", (b'\x00\xff<html><body>upstream gave up \xfe\x80 {"id": ',))

_OF_BATCHES = ("/v1/files", "/v1/messages/batches")


class Gateway:
    """ASGI application for ``/{protocol}/…``.

    Plain ASGI rather than Starlette routes: this path is also the provider of the benchmarks, and what it
    costs is subtracted from nobody's measurement.
    """

    def __init__(self, protocols: Mapping[str, WireProtocol], calls: CallLog, faults: FaultBoard) -> None:
        self._protocols = protocols
        self._calls = calls
        self._faults = faults

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        exchange = Exchange(scope, receive, send)
        name, _, rest = scope["path"].removeprefix("/").partition("/")
        protocol = self._protocols.get(name)
        if protocol is None:
            await exchange.send(
                json_answer({"detail": f"no provider speaks here; try {self._prefixes()}"}, status=404)
            )
            return
        faults = self._faults.draw(name)
        entry = self._calls.enter(name, scope["path"], faults.label)
        try:
            takes_batches = scope["path"].endswith(_OF_BATCHES)
            body, too_large = await exchange.body(MAX_BATCH_BYTES if takes_batches else MAX_BODY_BYTES)
            query = scope["query_string"].decode("latin-1")
            call = Call(scope["method"], f"/{rest}", query, dict(scope["headers"]), body, too_large, started)
            entry.model, entry.key = protocol.model(call), protocol.key(call)
            entry.status = await _respond(exchange, protocol, call, faults)
        except ClientGone:
            entry.status = None
        except AnswerLost as lost:
            entry.status, entry.fault = None, str(lost)
            await exchange.reset()
        finally:
            self._calls.leave(entry, milliseconds=(time.perf_counter() - started) * 1000)

    def _prefixes(self) -> str:
        return ", ".join(f"/{name}" for name in self._protocols)


async def _respond(exchange: Exchange, protocol: WireProtocol, call: Call, faults: Faults) -> int | None:
    """Answer, and return the status that was sent; None if the connection was broken before any."""
    if faults.latency:
        await exchange.pause(faults.latency.seconds)
    if faults.reset:
        await exchange.reset()
        return None
    if faults.huge:
        await exchange.flood(faults.huge.bytes)
        return 200
    answer = await _answer(protocol, call, faults)
    if faults.truncate:
        await exchange.truncate(answer)
    elif faults.length:
        await exchange.mislabel(answer, faults.length.bytes)
    elif faults.drip:
        await exchange.drip(answer, faults.drip.seconds)
    else:
        await exchange.send(answer)
    return answer.status


async def _answer(protocol: WireProtocol, call: Call, faults: Faults) -> Answer:
    if faults.garbage:
        return _GARBAGE
    if faults.status:
        return _failure(protocol, call, faults.status)
    if faults.error_body:
        return replace(_failure(protocol, call, faults.error_body), status=200)
    try:
        return await protocol.answer(call)
    except Refusal as refusal:
        return protocol.refuse(refusal, call)


def _failure(protocol: WireProtocol, call: Call, fault: Fault) -> Answer:
    return protocol.refuse(protocol.failure(fault.status, fault.code, fault.retry_after), call)
