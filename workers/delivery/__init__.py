"""Sends events out of the platform: to webhooks, Slack, mailboxes and buckets.

    Integration + Event ── sender of its type ──▶ Delivered (detail) | DeliveryError

Endpoints are set by people, so every connection goes through the guard of `routing/address.py`: resolved
once, checked, and made to the checked address. No redirect is followed, and the whole has one deadline.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from routing.errors import RoutingError
from routing.transport import Transport
from workers.delivery import bucket, mail, slack, webhook
from workers.delivery.values import Delivered, DeliveryError, Event, Integration

__all__ = ["LONGEST_SECONDS", "Delivered", "DeliveryError", "Event", "Integration", "deliver"]

LONGEST_SECONDS = 10.0

_Sender = Callable[[Transport, Integration, Event, float], str]

_SENDERS: Mapping[str, _Sender] = {
    "webhook": webhook.send,
    "slack": slack.send,
    "email": mail.send,
    "s3": bucket.send,
}


def deliver(
    transport: Transport, integration: Integration, event: Event, *, timeout: float = LONGEST_SECONDS
) -> Delivered:
    """Send `event` by `integration`, within `timeout` seconds in all. Blocks.

    Raises:
        DeliveryError: it was not taken; the message says why and never holds a credential.
    """
    began = time.monotonic()
    try:
        detail = _SENDERS[integration.type](transport, integration, event, began + timeout)
    except RoutingError as error:
        raise DeliveryError(error.message) from None
    return Delivered(round((time.monotonic() - began) * 1000), detail)
