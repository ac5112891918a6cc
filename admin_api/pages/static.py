"""The pages' own files: read once, compressed, and cached for ever under an address that has their hash.

Those of a page are sent as one. What only people need in them, comments and most blanks, is left out on the
way: a sixth of the bytes.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
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

_SOURCES: Mapping[str, str] = {
    found.name: _tightened(found.name, found.read_text())
    for found in (files("admin_api.pages") / "static").iterdir()
    if found.name.rpartition(".")[2] in _TYPES
}


def address(*names: str) -> str:
    """Where the files of these names, all of one kind, are as one. Raises LookupError where there is none."""
    name = "+".join(names)
    return f"/static/{name}?v={_file(name).version}"


@lru_cache(maxsize=64)
def _file(name: str) -> _File:
    """Raises LookupError."""
    names = name.split("+")
    kinds = {each.rpartition(".")[2] for each in names}
    if len(kinds) > 1 or len(set(names)) < len(names):
        raise LookupError(name)
    body = "\n".join(_SOURCES[each] for each in names).encode()
    version = hashlib.sha256(body).hexdigest()[:12]
    return _File(body, gzip.compress(body, mtime=0), _TYPES[kinds.pop()], version)


@router.get("/static/{name}")
async def static(name: str, request: Request) -> Response:
    """One of the pages' files, or several with "+" between."""
    try:
        file = _file(name)
    except LookupError:
        raise NotFound(f"There is no file {name!r}.") from None
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
