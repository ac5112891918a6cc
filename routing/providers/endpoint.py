"""From a provider row to URL and headers: base URL, authentication and the settings vendors deviate in.

Settings read here: `auth_header` (`Authorization: Bearer`, `api-key`, `none`, or any `Header` or
`Header: Scheme`), `extra_headers`, `extra_query`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import urlencode, urlsplit, urlunsplit

from routing.errors import ConfigurationError
from routing.media import extension
from routing.providers.wire import HttpRequest
from routing.values import Media, Provider

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e]*")


def post(
    provider: Provider,
    key: str | None,
    path: str,
    payload: Mapping[str, Any],
    *,
    auth: str,
    headers: Mapping[str, str] | None = None,
) -> HttpRequest:
    """A JSON POST to `path` below the base URL; `auth` is the protocol's own `auth_header`."""
    try:
        text = json.dumps(payload, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise ConfigurationError(
            f"The call to provider {provider.slug!r} cannot be written as JSON ({error}). Correct the "
            f"parameters."
        ) from None
    body = text.encode(errors="replace")  # lone surrogates, which no provider reads
    return post_written(provider, key, path, body, auth=auth, headers=headers)


def post_written(
    provider: Provider,
    key: str | None,
    path: str,
    body: bytes,
    *,
    auth: str,
    headers: Mapping[str, str] | None = None,
) -> HttpRequest:
    """A POST of JSON that is written already."""
    sent = {"content-type": "application/json", **(headers or {})}
    return HttpRequest("POST", _url(provider, path), _headers(provider, key, auth, sent), body)


def upload(
    provider: Provider,
    key: str | None,
    path: str,
    fields: Mapping[str, Any],
    file: Media,
    *,
    auth: str,
    headers: Mapping[str, str] | None = None,
) -> HttpRequest:
    """A form POST (multipart/form-data) of `fields` and a `file`. Lists become a field for each entry; the
    file's name tells its type, which some vendors go by."""
    boundary = hashlib.blake2b(file.body, digest_size=16).hexdigest()
    name = f'name="file"; filename="file.{extension(file.media_type)}"'
    parts = [
        (f'name="{field}"', "", _written(entry).encode(errors="replace"))
        for field, value in fields.items()
        for entry in (value if isinstance(value, list | tuple) else [value])
    ]
    parts.append((name, f"Content-Type: {file.media_type}\r\n", file.body))
    body = b"".join(
        f"--{boundary}\r\nContent-Disposition: form-data; {head}\r\n{more}\r\n".encode() + content + b"\r\n"
        for head, more, content in parts
    )
    sent = {"content-type": f"multipart/form-data; boundary={boundary}", **(headers or {})}
    whole = body + f"--{boundary}--\r\n".encode()
    return HttpRequest("POST", _url(provider, path), _headers(provider, key, auth, sent), whole)


def get(
    provider: Provider, key: str | None, path: str, *, auth: str, headers: Mapping[str, str] | None = None
) -> HttpRequest:
    """A GET of `path` below the base URL."""
    return HttpRequest("GET", _url(provider, path), _headers(provider, key, auth, headers or {}))


def hostname(provider: Provider) -> str:
    """Host of the base URL, lower case; "" where there is none."""
    try:
        return urlsplit(provider.base_url).hostname or ""
    except ValueError:
        return ""


def setting(provider: Provider, name: str, default: str) -> str:
    """A text among the provider's settings."""
    value = provider.settings.get(name, default)
    if not isinstance(value, str):
        raise ConfigurationError(f"Setting {name!r} of provider {provider.slug!r} must be a text.")
    return value


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _url(provider: Provider, path: str) -> str:
    return _address(provider.slug, provider.base_url, path, urlencode(texts(provider, "extra_query")))


@lru_cache(maxsize=1024)
def _address(slug: str, base_url: str, path: str, extra: str) -> str:
    try:
        base = urlsplit(base_url.strip())
        usable = (
            base.scheme in ("http", "https") and bool(base.hostname) and (base.port is None or base.port > 0)
        )
    except ValueError:
        usable = False
    if not usable:
        raise ConfigurationError(
            f"base_url of provider {slug!r} must be an http:// or https:// address with a host."
        )
    if base.username is not None or base.password is not None:
        raise ConfigurationError(
            f"base_url of provider {slug!r} must not hold a user or password; store the key as api_key."
        )
    below = urlsplit(path)
    query = "&".join(part for part in (below.query, base.query, extra) if part)
    full_path = f"{base.path.rstrip('/')}/{below.path.lstrip('/')}"
    return urlunsplit((base.scheme, base.netloc, full_path, query, ""))


def _headers(provider: Provider, key: str | None, auth: str, protocol: Mapping[str, str]) -> dict[str, str]:
    headers = {name.lower(): value for name, value in protocol.items()}
    headers |= {name.lower(): value for name, value in texts(provider, "extra_headers").items()}
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
            raise ConfigurationError(
                f"Header {name!r} of provider {provider.slug!r} is none that HTTP can carry. Correct its "
                f"`extra_headers`, organization or api_version."
            )
    return {**headers, **_authentication(provider, key, setting(provider, "auth_header", auth))}


def _authentication(provider: Provider, key: str | None, style: str) -> dict[str, str]:
    name, _, scheme = (part.strip() for part in style.partition(":"))
    if key is None or name.lower() == "none":
        return {}
    if not _HEADER_NAME.fullmatch(name):
        raise ConfigurationError(
            f"Setting 'auth_header' of provider {provider.slug!r} must be `Header`, `Header: Scheme` "
            f"or `none`."
        )
    value = f"{scheme} {key.strip()}".strip()
    if not _HEADER_VALUE.fullmatch(value):
        raise ConfigurationError(
            f"The API key of provider {provider.slug!r} holds characters that no header can carry. "
            f"Store it anew."
        )
    return {name.lower(): value}


def texts(provider: Provider, name: str) -> dict[str, str]:
    """A setting that maps names to texts; numbers and booleans are written out."""
    value = provider.settings.get(name) or {}
    if not isinstance(value, Mapping) or not all(
        isinstance(entry, str | int | float) for entry in value.values()
    ):
        raise ConfigurationError(f"Setting {name!r} of provider {provider.slug!r} must map names to texts.")
    return {str(key): _written(entry) for key, entry in value.items()}
