"""Batches as the vendors run them: taken at once, answered line by line in the background.

Each line is answered by the live handler of its endpoint, spread evenly over the time that the batch takes.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from standalone.sandbox.calls import CallLog
from standalone.sandbox.faults import BatchFaults, Fault, FaultBoard
from standalone.sandbox.values import Answer, AnswerLost

WINDOW_SECONDS = 86_400
_USUAL_SECONDS = 0.3


@dataclass(frozen=True)
class Line:
    """One request of a batch, under the client's own id."""

    custom_id: str
    body: Mapping[str, Any] = field(repr=False)


Answering = Callable[[Line, Fault | None], Awaitable[Answer]]
"""Answers a line as a live call would be, or with the failure that the fault asks for."""


@dataclass(eq=False)
class Batch:
    """A batch and how far it is. ``answers`` go by the line's place; times are Unix times.

    ``facts`` are what its protocol keeps with it and shows again.
    """

    id: str
    lines: Sequence[Line]
    facts: Mapping[str, Any]
    state: Literal["validating", "running", "cancelling", "finalizing", "ended"] = "validating"
    ending: Literal["completed", "expired", "cancelled", "failed"] = "completed"
    answers: dict[int, Answer] = field(default_factory=dict)
    created_at: float = field(default_factory=time.time)
    cancelled_at: float | None = None
    ended_at: float | None = None
    cancelling: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_over(self) -> bool:
        return self.state == "ended"

    @property
    def succeeded(self) -> int:
        """How many lines were answered well."""
        return sum(answer.status < 400 for answer in self.answers.values())

    @property
    def errored(self) -> int:
        """How many lines were answered with an error."""
        return len(self.answers) - self.succeeded

    def end(self, ending: Literal["completed", "expired", "cancelled", "failed"]) -> None:
        self.state, self.ending, self.ended_at = "ended", ending, time.time()


class BatchDesk:
    """The batches of one protocol. Used by one event loop."""

    def __init__(self, protocol: str, faults: FaultBoard, calls: CallLog) -> None:
        self._protocol = protocol
        self._faults = faults
        self._calls = calls
        self._batches: dict[str, Batch] = {}
        self._work: set[asyncio.Task[None]] = set()

    def open(self, batch: Batch, answer: Answering) -> None:
        """Take the batch and begin with it. Raises AnswerLost where its client is not to hear of it."""
        faults = self._faults.draw_batch(self._protocol)
        self._batches[batch.id] = batch
        if not batch.is_over:
            task = asyncio.get_running_loop().create_task(self._run(batch, answer, faults))
            self._work.add(task)
            task.add_done_callback(self._work.discard)
        if faults.lost:
            raise AnswerLost(faults.lost.mode)

    def get(self, batch_id: str) -> Batch | None:
        return self._batches.get(batch_id)

    def page(self, limit: int, after: str | None = None) -> tuple[list[Batch], bool]:
        """The newest ``limit`` batches before the one named ``after``, and whether there are more."""
        newest = list(reversed(self._batches.values()))
        ids = [batch.id for batch in newest]
        rest = newest[ids.index(after) + 1 :] if after in ids else newest
        return rest[:limit], len(rest) > limit

    def cancel(self, batch: Batch) -> None:
        """Have a running batch end soon, with the lines that are answered by now."""
        if batch.cancelled_at is None:
            batch.cancelled_at = time.time()
        batch.state = "cancelling"
        batch.cancelling.set()

    async def _run(self, batch: Batch, answer: Answering, faults: BatchFaults) -> None:
        seconds = faults.delay.seconds if faults.delay else _USUAL_SECONDS
        never_done = bool(faults.expire or faults.never)
        chosen = batch.lines[: len(batch.lines) // 2] if never_done else batch.lines
        started = time.monotonic()
        await asyncio.sleep(0)
        if not batch.cancelling.is_set():
            batch.state = "running"
        for place, line in enumerate(chosen):
            if await _is_cancelled(batch, started + seconds * place / len(chosen)):
                break
            batch.answers[place] = await answer(line, _befalling(faults.line_errors))
            self._calls.answer_line()
        await _is_cancelled(batch, started + (WINDOW_SECONDS if faults.never else seconds))
        if not batch.cancelling.is_set():
            batch.state = "finalizing"
            await asyncio.sleep(0)
        batch.end("cancelled" if batch.cancelling.is_set() else "expired" if never_done else "completed")


async def _is_cancelled(batch: Batch, due: float) -> bool:
    """Wait until ``due``, or until the batch is being cancelled; whether it is."""
    left = due - time.monotonic()
    if left <= 0:
        await asyncio.sleep(0)
        return batch.cancelling.is_set()
    try:
        async with asyncio.timeout(left):
            return await batch.cancelling.wait()
    except TimeoutError:
        return False


def _befalling(fault: Fault | None) -> Fault | None:
    """The fault, if it befalls this line."""
    return fault if fault and random.random() < fault.rate else None  # noqa: S311 - dice, not secrets
