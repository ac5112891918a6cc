"""What callers ask for: a job before it is one, and how two requests are told apart."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from routing.values import Caller


@dataclass(frozen=True, slots=True)
class JobRequest:
    """A job as its caller describes it.

    Args:
        user_id: the end user, for analytics and limits; never decides about keys.
        plan: `free` or `premium`, say; conditions of the routing may look at it.
        priority: -100 to 100; lower runs first inside the feature's lane.
        run_at: not before this time (aware); None = now.
        deadline_seconds: the job fails with class `deadline` if it has not ended by then.
        stream: its text can be followed while it is written.
        retry_of: the finished job that this one repeats.
        then: the steps that follow it, see `workers/chains.py`.
        callback_url: told when it has ended, and when each step has.
    """

    feature: str
    input: Mapping[str, Any]
    user_id: str | None = None
    plan: str | None = None
    priority: int = 0
    run_at: datetime | None = None
    deadline_seconds: float | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    stream: bool = False
    retry_of: UUID | None = None
    then: Sequence[Mapping[str, Any]] = ()
    callback_url: str | None = None

    def fingerprint(self) -> bytes:
        """SHA-256 over everything the caller sent, whatever the order of members and the time zone."""
        members = asdict(self)
        for name in ("stream", "then", "callback_url"):
            if not members[name]:
                del members[name]  # requests of before it was known stay what they were
        if self.run_at is not None:
            members["run_at"] = self.run_at.astimezone(UTC).isoformat()
        if self.retry_of is not None:
            members["retry_of"] = str(self.retry_of)
        return hashlib.sha256(json.dumps(members, sort_keys=True, separators=(",", ":")).encode()).digest()


@dataclass(frozen=True, slots=True)
class Sender:
    """Who enqueues: the admin whose keys count, if any, and the application token, if one was used."""

    caller: Caller = Caller()  # noqa: RUF009 - immutable
    token_id: UUID | None = None

    @property
    def scope(self) -> str:
        """Whose idempotency keys these are: the token's, else the admin's, else the applications'."""
        return str(self.token_id or self.caller.admin_id or "application")


@dataclass(frozen=True, slots=True)
class Accepted:
    """A job in the queue. `replayed`: an earlier request with the same idempotency key put it there."""

    job_id: UUID
    replayed: bool = False


class KeyReused(Exception):
    """The idempotency key belongs to another request."""

    def __init__(self, key: str) -> None:
        super().__init__(f"The idempotency key {key!r} was sent before, with another request.")


class KeyInvalid(ValueError):
    """The idempotency key is empty, too long, or holds what cannot be printed."""

    def __init__(self) -> None:
        super().__init__(f"An idempotency key has 1 to {_LONGEST_KEY} printable characters.")


_LONGEST_KEY = 255


def checked_key(key: str) -> str:
    """The key itself. Raises KeyInvalid."""
    if not 1 <= len(key) <= _LONGEST_KEY or not key.isprintable():
        raise KeyInvalid
    return key
