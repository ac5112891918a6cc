"""The sandbox as one ASGI application."""

from starlette.types import ASGIApp, Receive, Scope, Send

from standalone.sandbox.calls import CallLog
from standalone.sandbox.control import create_control
from standalone.sandbox.faults import FaultBoard
from standalone.sandbox.gateway import Gateway
from standalone.sandbox.protocols import PROTOCOLS


def create_app() -> ASGIApp:
    """A sandbox with its own call log and its own faults, both empty."""
    calls = CallLog()
    faults = FaultBoard(tuple(PROTOCOLS))
    control = create_control(calls, faults)
    providers = Gateway(PROTOCOLS, calls, faults)

    async def sandbox(scope: Scope, receive: Receive, send: Send) -> None:
        to_provider = scope["type"] == "http" and not scope["path"].startswith("/_sandbox")
        await (providers if to_provider else control)(scope, receive, send)

    return sandbox
