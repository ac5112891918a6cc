"""The pages' own files: read once, compressed, and cached for ever under an address that has their hash."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

from fastapi import APIRouter, Request, Response, status

from admin_api.refusals import NotFound

router = APIRouter(include_in_schema=False)

_TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_FOR_EVER = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class _File:
    body: bytes
    compressed: bytes
    media_type: str
    version: str  # changes with the body

    @classmethod
    def of(cls, name: str, body: bytes) -> _File:
        media_type = _TYPES[name.rpartition(".")[2]]
        version = hashlib.sha256(body).hexdigest()[:12]
        return cls(body, gzip.compress(body, mtime=0), media_type, version)


_FILES: Mapping[str, _File] = {
    found.name: _File.of(found.name, found.read_bytes())
    for found in (files("admin_api.pages") / "static").iterdir()
    if found.name.rpartition(".")[2] in _TYPES
}


def address(name: str) -> str:
    """Where the file of this name is. Raises KeyError where there is none."""
    return f"/static/{name}?v={_FILES[name].version}"


@router.get("/static/{name}")
async def static(name: str, request: Request) -> Response:
    """One of the pages' files."""
    file = _FILES.get(name)
    if file is None:
        raise NotFound(f"There is no file {name!r}.")
    is_current = request.query_params.get("v") == file.version
    headers = {
        "ETag": f'"{file.version}"',
        "Cache-Control": _FOR_EVER if is_current else "no-cache",
        "Vary": "Accept-Encoding",
    }
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=status.HTTP_304_NOT_MODIFIED, headers=headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"] = "gzip"
        return Response(file.compressed, headers=headers, media_type=file.media_type)
    return Response(file.body, headers=headers, media_type=file.media_type)
