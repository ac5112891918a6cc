"""The sandbox as one ASGI application."""

from starlette.types import ASGIApp, Receive, Scope, Send

from standalone.sandbox.calls import CallLog
from standalone.sandbox.control import create_control
from standalone.sandbox.faults import FaultBoard
from standalone.sandbox.gateway import Gateway
from standalone.sandbox.protocols import NAMES, create_protocols


def create_app() -> ASGIApp:
    """A sandbox with its own call log, faults and batches, all empty."""
    calls = CallLog()
    faults = FaultBoard(NAMES)
    control = create_control(calls, faults)
    providers = Gateway(create_protocols(faults, calls), calls, faults)

    async def sandbox(scope: Scope, receive: Receive, send: Send) -> None:
        to_provider = scope["type"] == "http" and not scope["path"].startswith("/_sandbox")
        await (providers if to_provider else control)(scope, receive, send)

    return sandbox
