"""``/_sandbox/*``: the switches and the sight of whoever drives the sandbox. Faults never apply here."""

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from standalone.sandbox.calls import CallLog
from standalone.sandbox.faults import FaultBoard


def create_control(calls: CallLog, faults: FaultBoard) -> Starlette:
    async def health(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def list_calls(request: Request) -> Response:
        try:
            chosen = {
                name: int(request.query_params[name])
                for name in ("since", "limit")
                if name in request.query_params
            }
        except ValueError:
            return _unprocessable([{"loc": ["query"], "msg": "since and limit are whole numbers"}])
        return JSONResponse(calls.as_json(**chosen))

    async def reset_calls(_: Request) -> Response:
        calls.reset()
        return Response(status_code=204)

    async def list_faults(_: Request) -> Response:
        return JSONResponse({"faults": faults.as_json()})

    async def put_fault(request: Request) -> Response:
        try:
            faults.put(await request.body())
        except ValidationError as error:
            return _unprocessable([{"loc": list(e["loc"]), "msg": e["msg"]} for e in error.errors()])
        return JSONResponse({"faults": faults.as_json()}, 201)

    async def clear_faults(request: Request) -> Response:
        faults.clear(request.query_params.get("protocol"))
        return Response(status_code=204)

    return Starlette(
        routes=[
            Route("/_sandbox/health", health),
            Route("/_sandbox/calls", list_calls),
            Route("/_sandbox/calls", reset_calls, methods=["DELETE"]),
            Route("/_sandbox/faults", list_faults),
            Route("/_sandbox/faults", put_fault, methods=["POST"]),
            Route("/_sandbox/faults", clear_faults, methods=["DELETE"]),
        ]
    )


def _unprocessable(problems: list[dict[str, object]]) -> Response:
    return JSONResponse({"detail": problems}, 422)
