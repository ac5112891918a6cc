"""The pages' own files: read once, compressed, and cached for ever under an address that has their hash.

What only people need in them, comments and most blanks, is left out on the way: a sixth of the bytes.
"""

from __future__ import annotations

import gzip
import hashlib
import re
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
    def of(cls, name: str, source: str) -> _File:
        body = _tightened(name, source).encode()
        media_type = _TYPES[name.rpartition(".")[2]]
        version = hashlib.sha256(body).hexdigest()[:12]
        return cls(body, gzip.compress(body, mtime=0), media_type, version)


def _tightened(name: str, source: str) -> str:
    if name.endswith(".css"):
        bare = re.sub(r"/\*.*?\*/", "", source, flags=re.DOTALL)
        return "".join(part if part.startswith('"') else _squeezed(part) for part in _STRINGS.split(bare))
    if name.endswith(".js"):
        lines = map(str.strip, source.splitlines())
        return "\n".join(line for line in lines if line and not line.startswith("//"))
    return source


def _squeezed(css: str) -> str:
    blanks = re.sub(r"\s+", " ", css)
    return re.sub(r" ?([{};,>]) ?", r"\1", blanks).replace(": ", ":").replace(";}", "}")


_STRINGS = re.compile(r'("[^"]*")')

_FILES: Mapping[str, _File] = {
    found.name: _File.of(found.name, found.read_text())
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
