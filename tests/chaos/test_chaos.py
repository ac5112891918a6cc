"""Accepted is safe, recorded once: under everything that can be killed, wiped, stopped or restarted."""

from __future__ import annotations

import pytest

from tests.chaos.installation import Installation
from tests.chaos.storm import Fault, Report, Weather, run

LEASE_SECONDS = 3.0
_RECOVERED = 0.9  # of the throughput before a fault; the calls' length bounds both, and the rest is sampling

KILL = Fault("kill -9 of a worker", Installation.kill_worker, dying=1)
FLUSH = Fault("FLUSHALL", Installation.flush_valkey)
EMPTY = Fault("Valkey killed, empty again", Installation.empty_valkey)
DOWN = Fault("Valkey down 3 s", lambda it: it.empty_valkey(down_seconds=3))
LONG_DOWN = Fault("Valkey down 30 s", lambda it: it.empty_valkey(down_seconds=30))
MUTE = Fault("Valkey mute 6 s", lambda it: it.suspend_valkey(6))
FAST = Fault("PostgreSQL fast restart", lambda it: it.restart_postgres(immediate=False))
# Loses claims, which are not synchronously committed: whatever is in flight may run twice.
IMMEDIATE = Fault("PostgreSQL immediate restart", lambda it: it.restart_postgres(immediate=True), dying=None)
ABSENT = Fault(
    "PostgreSQL down for two leases",
    lambda it: it.restart_postgres(immediate=False, down_seconds=2 * LEASE_SECONDS),
)
TERMINATE = Fault("backends terminated", Installation.terminate_backends)
STOP = Fault("worker stopped for two leases", lambda it: it.stop_worker(2 * LEASE_SECONDS), dying=1)


GUSTS = Weather(
    jobs=600,
    backlog=100,
    singles=(KILL, FLUSH, FAST, KILL, EMPTY, TERMINATE, KILL, IMMEDIATE, STOP, DOWN, KILL),
    calm_seconds=0.0,
    settle_seconds=1.0,
)


def test_faults_lose_nothing_and_record_nothing_twice() -> None:
    """Each fault once, four workers killed, little pause between."""
    with Installation(processes=3, threads=4, lease_seconds=LEASE_SECONDS, call_seconds=0.15) as installation:
        _judge(run(installation, GUSTS), GUSTS)


STORM = Weather(
    jobs=10_000,
    backlog=400,
    singles=(KILL, FLUSH, EMPTY, LONG_DOWN, MUTE, FAST, IMMEDIATE, ABSENT, TERMINATE, STOP),
    calm_seconds=6.0,
    settle_seconds=10.0,
    storm=(FLUSH, EMPTY, DOWN, FAST, IMMEDIATE, TERMINATE, TERMINATE, STOP, *[KILL] * 29),
)


@pytest.mark.full
def test_a_storm_of_faults_loses_nothing_and_records_nothing_twice() -> None:
    """Ten thousand jobs, thirty workers killed. Prints how throughput recovers from each single fault."""
    with Installation(processes=3, threads=8, lease_seconds=LEASE_SECONDS, call_seconds=0.4) as installation:
        report = run(installation, STORM)
    _judge(report, STORM)
    assert [fault.name for fault in STORM.singles] == [name for name, _, _ in report.recovery]
    slow = [one for one in report.recovery if one[2] < _RECOVERED * one[1]]
    assert not slow, "throughput does not come back"


def _judge(report: Report, weather: Weather) -> None:
    print(f"\n{report}")
    assert report.accepted >= weather.jobs
    assert report.lost == 0
    assert report.recorded_twice == 0
    assert report.succeeded_twice == 0
    assert report.unasked <= report.refused, "only an enqueue whose answer was lost may leave a job behind"
    assert report.states == {"succeeded": report.accepted + report.unasked}
    assert report.usage_rows >= report.accepted
    assert abs(report.called_rows - report.sandbox_calls) <= report.most_calls_in_doubt
