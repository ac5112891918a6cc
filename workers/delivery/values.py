"""What is sent, and by what."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from routing.transport import Peer
from store.ids import new_id

_QUOTED = 200  # characters of a stranger's answer that a message may hold


class DeliveryError(Exception):
    """The other side did not take it, or could not be reached."""


@dataclass(frozen=True, slots=True)
class Integration:
    """An active row of `system_integrations`, its credentials opened. They are in no repr."""

    name: str
    type: str
    endpoint: str | None
    credentials: Mapping[str, str] = field(repr=False)
    settings: Mapping[str, Any]

    @property
    def allows_private(self) -> bool:
        """Whether it may lead to a loopback or private address."""
        return self.settings.get("allow_private_network") is True

    @property
    def peer(self) -> Peer:
        """The other side, for the transport."""
        verify = self.settings.get("verify_tls") is not False
        return Peer(f"Integration {self.name!r}", "endpoint", self.allows_private, verify)

    def address(self) -> str:
        """The endpoint. Raises DeliveryError where there is none."""
        if self.endpoint is None:
            raise DeliveryError(f"Integration {self.name!r} has no endpoint. Set one.")
        return self.endpoint

    def quoted(self, answer: bytes | str) -> str:
        """The beginning of what the other side said, fit to be shown and stored."""
        text = answer.decode(errors="replace") if isinstance(answer, bytes) else answer
        for secret in self.credentials.values():
            if len(secret) >= 4:
                text = text.replace(secret, "[secret]")
        return re.sub(r"[^\x20-\x7e\xa0-\ud7ff]+", " ", text[: 4 * _QUOTED])[:_QUOTED].strip()


@dataclass(frozen=True, slots=True)
class Event:
    """What happened. `type` is dotted, such as `integration.test`; `text` is for people; `data` is JSON."""

    type: str
    text: str
    data: Mapping[str, Any] = field(default_factory=dict)
    id: UUID = field(default_factory=new_id)
    at: datetime = field(default_factory=lambda: datetime.now(UTC))

    def as_json(self) -> bytes:
        """The event as programs read it."""
        return json.dumps(
            {
                "id": str(self.id),
                "type": self.type,
                "created_at": self.at.isoformat().replace("+00:00", "Z"),
                "text": self.text,
                "data": self.data,
            }
        ).encode()


@dataclass(frozen=True, slots=True)
class Delivered:
    """It was taken. `latency_ms` of the whole exchange."""

    latency_ms: int
    detail: str


def seconds_left(deadline: float) -> float:
    """Until `deadline`, on the monotonic clock. Raises DeliveryError where nothing is left."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise DeliveryError("There was no time left to send.")
    return left
