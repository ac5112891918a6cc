"""Failures on demand: what is switched on, and which of it befalls the next call."""

import random
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

Mode = Literal["latency", "status", "error_body", "reset", "truncate", "length", "garbage", "drip", "huge"]
BatchMode = Literal["batch_delay", "batch_never", "batch_expire", "batch_line_errors", "batch_lost"]
ANY_PROTOCOL = "*"
_BY_LINE = "batch_line_errors"


class Fault(BaseModel):
    """One failure. ``seconds`` is the delay of ``latency`` and the gap between two bytes of ``drip``.

    ``rate`` is the probability per call; ``count`` switches the fault off after so many calls it befell.
    ``code`` is the provider's own error code beside ``status`` (429 with ``insufficient_quota`` is a
    billing error); ``error_body`` says with a 200 what ``status`` would have said. ``bytes`` is what
    ``length`` announces, half of what it sends by default, and how much ``huge`` sends, 1 GB by default.

    The modes ``batch_…`` befall batches, when they are created: ``batch_delay`` makes one take ``seconds``;
    ``batch_never`` answers half of its lines and has it run until it is cancelled, or expires after a day;
    ``batch_expire`` has it expire with half of its lines answered; ``batch_line_errors`` fails lines with
    ``status`` and ``code``, each with the probability ``rate``; ``batch_lost`` creates the batch and breaks
    the connection in place of an answer.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    protocol: str
    mode: Literal[Mode, BatchMode]
    status: int = Field(default=503, ge=400, le=599)
    seconds: float = Field(default=1.0, ge=0, le=3600)
    rate: float = Field(default=1.0, ge=0, le=1)
    bytes: int | None = Field(default=None, ge=0)
    retry_after: float | None = Field(default=None, ge=0)
    code: str | None = None
    count: int | None = Field(default=None, ge=1)

    @field_validator("protocol")
    @classmethod
    def _known(cls, value: str, info: ValidationInfo) -> str:
        known: Collection[str] = (info.context or {}).get("protocols", ())
        if value != ANY_PROTOCOL and value not in known:
            raise ValueError(f"is one of {', '.join((*known, ANY_PROTOCOL))}")
        return value


@dataclass(frozen=True, slots=True)
class Faults:
    """Those that befall one call."""

    latency: Fault | None = None
    status: Fault | None = None
    error_body: Fault | None = None
    reset: Fault | None = None
    truncate: Fault | None = None
    length: Fault | None = None
    garbage: Fault | None = None
    drip: Fault | None = None
    huge: Fault | None = None

    @property
    def label(self) -> str | None:
        """The mode that shaped the answer most, for the call log."""
        by_weight = (
            *(self.reset, self.huge, self.garbage, self.status, self.error_body),
            *(self.truncate, self.length, self.drip, self.latency),
        )
        return next((fault.mode for fault in by_weight if fault), None)


@dataclass(frozen=True, slots=True)
class BatchFaults:
    """Those that befall one batch; ``line_errors`` throws its dice for each line."""

    delay: Fault | None = None
    never: Fault | None = None
    expire: Fault | None = None
    line_errors: Fault | None = None
    lost: Fault | None = None


_NONE = Faults()


class FaultBoard:
    """At most one fault per protocol and mode; a protocol's own one goes before the one for all."""

    def __init__(self, protocols: Collection[str]) -> None:
        self._protocols = protocols
        self._faults: dict[tuple[str, str], Fault] = {}
        self._remaining: dict[tuple[str, str], int] = {}

    def put(self, document: bytes) -> Fault:
        """Add or replace. Raises pydantic.ValidationError."""
        fault = Fault.model_validate_json(document, context={"protocols": self._protocols})
        slot = (fault.protocol, fault.mode)
        self._faults[slot] = fault
        self._remaining.pop(slot, None)
        if fault.count is not None:
            self._remaining[slot] = fault.count
        return fault

    def clear(self, protocol: str | None = None) -> None:
        for slot in [slot for slot in self._faults if protocol in (None, slot[0])]:
            self._drop(slot)

    def draw(self, protocol: str) -> Faults:
        """Roll the dice for one call to this protocol; counted faults are used up by it."""
        return Faults(**self._drawn(protocol, get_args(Mode))) if self._faults else _NONE

    def draw_batch(self, protocol: str) -> BatchFaults:
        """The same for a batch that is created."""
        drawn = self._drawn(protocol, get_args(BatchMode))
        return BatchFaults(**{mode.removeprefix("batch_"): fault for mode, fault in drawn.items()})

    def as_json(self) -> list[dict[str, Any]]:
        """The active faults; ``count`` is what is left of it."""
        return [
            {**fault.model_dump(), "count": self._remaining.get(slot)} for slot, fault in self._faults.items()
        ]

    def _drawn(self, protocol: str, modes: Collection[str]) -> dict[str, Fault]:
        drawn: dict[str, Fault] = {}
        for mode in modes:
            slot = (protocol, mode) if (protocol, mode) in self._faults else (ANY_PROTOCOL, mode)
            fault = self._faults.get(slot)
            if fault and (mode == _BY_LINE or random.random() < fault.rate):  # noqa: S311 - dice, not secrets
                drawn[mode] = fault
                self._use(slot)
        return drawn

    def _use(self, slot: tuple[str, str]) -> None:
        if slot not in self._remaining:
            return
        self._remaining[slot] -= 1
        if self._remaining[slot] == 0:
            self._drop(slot)

    def _drop(self, slot: tuple[str, str]) -> None:
        del self._faults[slot]
        self._remaining.pop(slot, None)
