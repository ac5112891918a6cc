"""Webhooks: a signed POST.

The header `Orrery-Signature` is `t=<Unix seconds>,v1=<hex>`, where v1 is HMAC-SHA256 by the secret over
`<t>.<body>`, as Stripe does it. A receiver computes it over the raw body, compares in constant time, and
refuses what is older than a few minutes; `id` in the body tells repeated deliveries.
"""

from __future__ import annotations

import hashlib
import hmac
import time

from routing.providers.wire import HttpRequest
from routing.transport import Transport
from workers.delivery.values import DeliveryError, Event, Integration, seconds_left

SIGNATURE = "Orrery-Signature"


def signature(secret: str, body: bytes, *, at: int) -> str:
    """The header's value for a body that is sent `at` (Unix seconds)."""
    signed = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256)
    return f"t={at},v1={signed.hexdigest()}"


def send(transport: Transport, integration: Integration, event: Event, deadline: float) -> str:
    """POST the event as JSON; any 2xx takes it."""
    body = event.as_json()
    headers = {"content-type": "application/json"}
    secret = integration.credentials.get("secret")
    if secret is not None:
        headers[SIGNATURE.lower()] = signature(secret, body, at=int(time.time()))
    request = HttpRequest("POST", integration.address(), headers, body)
    answer = transport.exchange(request, timeout=seconds_left(deadline), peer=integration.peer)
    if not 200 <= answer.status < 300:
        said = integration.quoted(answer.body)
        raise DeliveryError(f"The endpoint answered {answer.status}{f': {said}' if said else '.'}")
    signed = "signed" if secret else "unsigned, for the credentials hold no secret"
    return f"The endpoint answered {answer.status} to a POST ({signed})."
