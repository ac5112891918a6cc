"""What is refused when an integration is saved. Where its address leads is checked at every connection."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import SecretStr

from admin_api.addresses import flaw
from admin_api.refusals import Invalid, pointer

Type = Literal["webhook", "email", "slack", "s3"]

_FLAGS = frozenset({"allow_private_network", "verify_tls", "require_tls", "virtual_hosted"})
_TEXTS = frozenset({"from", "channel", "bucket", "region", "prefix"})
_MOST_RECIPIENTS = 50
_SECRETIVE = re.compile(
    r"(^|_)(password|passwd|secret|token|credentials?|api_?key|access_key)(_|$)", re.IGNORECASE
)


def checked_endpoint(kind: Type, endpoint: str | None, credential_names: set[str]) -> str | None:
    """The endpoint, complete. Raises Invalid."""
    if endpoint is None:
        if kind == "s3" or (kind == "slack" and "webhook_url" in credential_names):
            return None
        raise Invalid(f"A {kind} integration needs an endpoint.", field="endpoint")
    if kind != "email":
        return _address(endpoint, ("http", "https"), field="endpoint")
    if "://" not in endpoint:
        endpoint = f"{'smtps' if endpoint.endswith(':465') else 'smtp'}://{endpoint}"
    address = _address(endpoint, ("smtp", "smtps"), field="endpoint")
    if urlsplit(address).path:
        raise Invalid("This must be smtp://host[:port] or smtps://host[:port].", field="endpoint")
    return address


def _address(text: str, schemes: tuple[str, ...], *, field: str) -> str:
    found = flaw(text, schemes)
    if found is not None:
        raise Invalid(found, field=field)
    return text


def check_addresses(credentials: Mapping[str, SecretStr]) -> None:
    """Check what among the credentials is an address. Raises Invalid."""
    url = credentials.get("webhook_url")
    if url is not None:
        _address(url.get_secret_value(), ("http", "https"), field="credentials/webhook_url")


def check_settings(settings: Mapping[str, Any]) -> None:
    """Check the settings that senders read; others may be kept, but no secrets. Raises Invalid."""
    for name, value in settings.items():
        field = pointer(["settings", name])
        if _SECRETIVE.search(name.replace("-", "_")):
            raise Invalid(
                "This looks like a secret, but settings are kept and shown in the clear. Give it "
                "among the credentials, which are sealed.",
                field=field,
            )
        if name in _FLAGS and not isinstance(value, bool):
            raise Invalid("This must be true or false.", field=field)
        if name in _TEXTS and not (
            isinstance(value, str) and 1 <= len(value) <= 1000 and value.isprintable()
        ):
            raise Invalid("This must be a text of 1 to 1000 printable characters.", field=field)
    if "to" in settings:
        _check_recipients(settings["to"])


def _check_recipients(to: Any) -> None:
    recipients = to if isinstance(to, list) else [to]
    if not 1 <= len(recipients) <= _MOST_RECIPIENTS or not all(
        isinstance(one, str) and len(one) <= 320 and re.fullmatch(r"[^\s@,<>]+@[^\s@,<>]+", one)
        for one in recipients
    ):
        raise Invalid(
            f"This must be a mail address, or a list of 1 to {_MOST_RECIPIENTS}.", field="settings/to"
        )
