"""When a job that did not succeed runs again. Pure: a policy, a count and a wish in, a delay or None out."""

from __future__ import annotations

import random
from dataclasses import dataclass

LONGEST_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Policy:
    """`max_retries`: how often a job goes back to the queue. `delay_seconds`: the first pause, at most."""

    max_retries: int = 3
    delay_seconds: float = 2.0


def delay(
    policy: Policy, *, retries: int, retry_after: float | None, seconds_left: float | None
) -> float | None:
    """Seconds until the next run, or None where there is to be none.

    Exponential backoff with full jitter: between 0 and `delay_seconds * 2**retries`, ten minutes at most, but
    never before the provider's own `retry_after`.

    Args:
        retries: how often the job went back already.
        seconds_left: until the job's deadline; None = no deadline.
    """
    if retries >= policy.max_retries:
        return None
    ceiling = min(policy.delay_seconds * 2.0 ** min(retries, 32), LONGEST_SECONDS)
    pause = max(random.uniform(0, ceiling), retry_after or 0.0)  # noqa: S311 - jitter is no secret
    return None if seconds_left is not None and pause >= seconds_left else pause


def wait(retry_after: float | None, *, seconds_left: float | None) -> float | None:
    """Seconds until a job whose turn is later runs again; None where its deadline comes first.

    A little more than it was told, at random, lest all that wait for one instant come at once.
    """
    told = retry_after or 0.0
    pause = told + random.uniform(0, min(1.0 + told / 20, 60.0))  # noqa: S311 - jitter is no secret
    return None if seconds_left is not None and pause >= seconds_left else pause
