"""The retry decision."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from workers.retry import LONGEST_SECONDS, Policy, delay

POLICY = Policy(max_retries=3, delay_seconds=2)


@given(retries=st.integers(0, 2), retry_after=st.none() | st.floats(0, 1000))
def test_a_pause_has_full_jitter_and_never_comes_before_retry_after(
    retries: int, retry_after: float | None
) -> None:
    pause = delay(POLICY, retries=retries, retry_after=retry_after, seconds_left=None)
    assert pause is not None
    assert (retry_after or 0) <= pause <= max(2 * 2**retries, retry_after or 0)


@given(retries=st.integers(0, 10_000))
def test_the_ceiling_holds_for_any_count(retries: int) -> None:
    pause = delay(Policy(100_000, 2), retries=retries, retry_after=None, seconds_left=None)
    assert pause is not None
    assert 0 <= pause <= LONGEST_SECONDS


def test_retries_end_with_the_policy_and_with_the_deadline() -> None:
    assert delay(POLICY, retries=3, retry_after=None, seconds_left=None) is None
    assert delay(Policy(0, 2), retries=0, retry_after=None, seconds_left=None) is None
    assert delay(POLICY, retries=0, retry_after=5, seconds_left=4) is None
    assert delay(POLICY, retries=0, retry_after=3, seconds_left=60) is not None
