"""The benchmark measures what it says, and refuses figures of rounds in which jobs were lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.__main__ import main
from bench.contenders.bare import Bare
from bench.crew import Report
from bench.result import BenchError
from bench.stage import Stage, stage
from bench.throughput import CONTENDERS, Scenario, steady, turn


def test_rate_and_cpu_are_those_of_the_steady_part() -> None:
    warming_up = [1000.0 + second for second in range(20)]
    working = [1020.0 + number / 10 for number in range(80)]
    cpu = [(1000.0, 0.0), (1016.0, 100.0), (1020.0, 100.0), (1030.0, 101.0)]

    measured = steady(warming_up + working, [Report((), 0, cpu)])

    assert measured.jobs == 100
    began, ended = warming_up[15], working[74]  # jobs 15 and 94 of 100
    assert measured.jobs_per_second == pytest.approx(79 / (ended - began))
    used = 0.1 * (ended - 1020.0) + 100.0 - 93.75  # interpolated between the samples
    assert measured.cpu_ms_per_job == pytest.approx(used / 79 * 1000)


def test_every_contender_does_each_job_once_and_a_lost_job_spoils_the_round() -> None:
    with stage() as set_up:
        _each_contender_plays(set_up)
        _a_lost_job_is_noticed(set_up)


def _each_contender_plays(set_up: Stage) -> None:
    for make in CONTENDERS.values():
        contender = make(set_up)
        try:
            done = turn(set_up, contender, Scenario(0, 1, 4), 24)
        finally:
            contender.close()
        assert done.jobs == 24
        assert done.jobs_per_second > 0


def _a_lost_job_is_noticed(set_up: Stage) -> None:
    contender = Bare(set_up)
    try:
        set_up.reset(latency_seconds=0)
        contender.fill(3)
        with pytest.raises(BenchError, match="of 3 jobs 2 succeeded; 0 runs failed"):
            contender.finished([Report((1.0, 2.0), 0, ())])
    finally:
        contender.close()


def test_results_are_written_as_json_without_any_path(tmp_path: Path) -> None:
    output = tmp_path / "results.json"

    assert main(["--quick", "--only", "resolve", "--output", str(output)]) == 0

    document = json.loads(output.read_text())
    assert document["quick"] is True
    assert document["machine"]["postgres"]["fsync"] == "on"
    assert document["measurements"]["resolve"]["median_us"] > 0
    assert "/" not in output.read_text()
