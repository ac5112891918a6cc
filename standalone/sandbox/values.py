"""What a wire protocol receives and gives back: no transport, no faults, no bookkeeping in it."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


@dataclass(frozen=True)
class Call:
    """One request to a provider. ``path`` starts below the protocol's prefix (``/v1/messages``)."""

    method: str
    path: str
    query: str
    headers: Mapping[bytes, bytes] = field(repr=False)
    body: bytes = field(repr=False)
    too_large: bool
    started: float
    """``time.perf_counter()`` when the request line arrived."""

    def header(self, name: bytes) -> str | None:
        value = self.headers.get(name)
        return value.decode("latin-1") if value is not None else None

    def bearer(self) -> str | None:
        scheme, _, token = (self.header(b"authorization") or "").partition(" ")
        return token.strip() or None if scheme.lower() == "bearer" else None

    @cached_property
    def document(self) -> object:
        """The parsed JSON body; None when it is not JSON (a body of ``null`` is as useless)."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None

    @property
    def model(self) -> str | None:
        """The model that a JSON body names."""
        model = self.document.get("model") if isinstance(self.document, dict) else None
        return model if isinstance(model, str) else None


@dataclass(frozen=True)
class Answer:
    """A reply. With ``streamed`` the chunks go out one by one, chunked; else as one body with its length."""

    status: int
    media_type: bytes
    chunks: tuple[bytes, ...]
    headers: tuple[tuple[bytes, bytes], ...] = ()
    streamed: bool = False

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)


@dataclass(eq=False)
class Refusal(Exception):
    """A call that the provider turns down; the protocol renders it in its own error shape.

    ``kind`` is the provider's error type; None leaves it to the protocol, which knows its usual one per
    status.
    """

    status: int
    message: str
    kind: str | None = None
    param: str | None = None
    code: str | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()


class AnswerLost(Exception):
    """The call was carried out, but the connection breaks in place of an answer. It says by which fault."""


class WireProtocol(Protocol):
    """One vendor's protocol. A new one is a module in ``protocols/`` and a line in its table."""

    def key(self, call: Call) -> str | None:
        """The credential of the call, wherever this vendor keeps it."""

    def model(self, call: Call) -> str | None:
        """The model that the call names, for the call log."""

    async def answer(self, call: Call) -> Answer:
        """Serve the call. Raises Refusal for what the vendor would refuse, AnswerLost as a fault asks."""

    def refuse(self, refusal: Refusal, call: Call) -> Answer:
        """The vendor's error answer."""

    def failure(self, status: int, code: str | None, retry_after: float | None) -> Refusal:
        """What this vendor says with that status when nothing is wrong with the call."""


def encode_json(document: Any) -> bytes:
    """UTF-8 JSON. A lone surrogate, which a client may send in a model's name, becomes ``?``."""
    return _encode(document).encode("utf-8", "replace")


def json_answer(document: Any, headers: tuple[tuple[bytes, bytes], ...] = (), status: int = 200) -> Answer:
    return Answer(status, b"application/json", (encode_json(document),), headers)


def fresh_id(prefix: str) -> str:
    """An id as the vendors make them: a prefix and random hexadecimal digits."""
    return prefix + os.urandom(12).hex()
