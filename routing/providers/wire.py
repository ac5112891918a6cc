"""The seam between codecs and transport: what goes out, what comes back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from routing.values import Call, Reply

_SHORTEST_KEY = 8  # anything shorter would turn up in innocent text


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One request, complete. Its repr shows neither headers (they hold the key) nor body (the input)."""

    method: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """One answer, complete and decompressed. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


class Codec(Protocol):
    """Speaks one capability of one wire protocol. Pure: no I/O, no clock, no state."""

    def encode(self, call: Call, key: str | None) -> HttpRequest:
        """The request for `call`. Raises ConfigurationError for rows that no request can be made of."""

    def decode(self, response: HttpResponse, call: Call) -> Reply:
        """The answer to `call`. Raises a ProviderError for every failure, a 200 that holds one included."""


def scrubbed(response: HttpResponse, key: str | None) -> HttpResponse:
    """The same answer without the key, should the provider have echoed it."""
    if key is None or len(key) < _SHORTEST_KEY:
        return response
    forms = [form for form in {key, json.dumps(key)[1:-1]} if _holds(response, form)]
    if not forms:
        return response
    body, headers = response.body, dict(response.headers)
    for form in forms:
        body = body.replace(form.encode(), b"[key]")
        headers = {name: value.replace(form, "[key]") for name, value in headers.items()}
    return replace(response, headers=headers, body=body)


def _holds(response: HttpResponse, form: str) -> bool:
    return form.encode() in response.body or any(form in value for value in response.headers.values())
