"""Slack, and what speaks its incoming webhooks (Mattermost, Rocket.Chat, Discord's `/slack`)."""

from __future__ import annotations

import json

from routing.providers.wire import HttpRequest
from routing.transport import Transport
from workers.delivery.values import DeliveryError, Event, Integration, seconds_left

_ESCAPED = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})  # Slack's control characters


def send(transport: Transport, integration: Integration, event: Event, deadline: float) -> str:
    """POST a message to the incoming webhook."""
    url = integration.credentials.get("webhook_url") or integration.address()
    message = {"text": event.text.translate(_ESCAPED)}
    channel = integration.settings.get("channel")
    if isinstance(channel, str):
        message["channel"] = channel
    request = HttpRequest("POST", url, {"content-type": "application/json"}, json.dumps(message).encode())
    answer = transport.exchange(request, timeout=seconds_left(deadline), peer=integration.peer)
    if not 200 <= answer.status < 300:
        said = integration.quoted(answer.body)
        raise DeliveryError(f"Slack answered {answer.status}{f': {said}' if said else '.'}")
    return f"Slack answered {answer.status}."
