"""Buckets that speak S3.

obstore signs the requests, our transport sends them: obstore's own client would resolve the endpoint itself,
after any check, follow redirects, and ask the machine's metadata service for credentials.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from routing.providers.wire import HttpRequest, HttpResponse
from routing.transport import Transport
from workers.delivery.values import DeliveryError, Event, Integration, seconds_left

if TYPE_CHECKING:
    from obstore.store import S3Credential  # exists for type checkers alone

_VALID = timedelta(minutes=1)  # how long a signed request may be used


def send(transport: Transport, integration: Integration, event: Event, deadline: float) -> str:
    """Write the event as a small object, read it back and remove it."""
    body = event.as_json()
    path = f"orrery-{event.type}-{event.id}.json"
    signed = _signer(integration, path)

    def call(method: Literal["PUT", "GET", "DELETE"], content: bytes = b"") -> HttpResponse:
        request = HttpRequest(method, signed(method), {}, content)
        answer = transport.exchange(request, timeout=seconds_left(deadline), peer=integration.peer)
        if not 200 <= answer.status < 300:
            said = integration.quoted(answer.body)
            raise DeliveryError(
                f"{method} of {path} was answered {answer.status}{f': {said}' if said else '.'}"
            )
        return answer

    call("PUT", body)
    try:
        came_back = call("GET").body == body
    finally:
        call("DELETE")
    if not came_back:
        raise DeliveryError(f"{path} was written, but something else was read.")
    return "An object was written, read and removed."


def _signer(integration: Integration, path: str) -> Callable[[Literal["PUT", "GET", "DELETE"]], str]:
    """Signs requests for an object. All that obstore might take from the environment is given."""
    bucket = integration.settings.get("bucket")
    key_id = integration.credentials.get("access_key_id")
    secret = integration.credentials.get("secret_access_key")
    if not isinstance(bucket, str) or key_id is None or secret is None:
        raise DeliveryError(
            "An s3 integration needs settings.bucket, credentials.access_key_id and "
            "credentials.secret_access_key. Set them."
        )
    region = str(integration.settings.get("region") or "us-east-1")
    credential: S3Credential = {
        "access_key_id": key_id,
        "secret_access_key": secret,
        "token": integration.credentials.get("session_token"),
        "expires_at": None,
    }
    try:
        store = S3Store(
            bucket,
            prefix=str(integration.settings.get("prefix") or "") or None,
            endpoint=integration.endpoint or f"https://s3.{region}.amazonaws.com",
            region=region,
            virtual_hosted_style_request=integration.settings.get("virtual_hosted") is True,
            credential_provider=lambda: credential,
        )
    except (BaseError, ValueError) as error:
        raise DeliveryError(
            f"The bucket's address cannot be used: {integration.quoted(str(error))}"
        ) from None

    def signed(method: Literal["PUT", "GET", "DELETE"]) -> str:
        try:
            return obstore.sign(store, method, path, _VALID)
        except (BaseError, ValueError) as error:
            raise DeliveryError(f"The request cannot be signed: {integration.quoted(str(error))}") from None

    return signed
