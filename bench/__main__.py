"""`python -m bench`: measure, print tables, write `bench/results/latest.json`."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from bench import (
    bulk_copy,
    bulk_upload,
    enqueue,
    group_commit,
    history,
    in_flight,
    interactive,
    listing,
    machine,
    pages,
    pick_up,
    report,
    resolve,
    retention,
    statements,
    streaming,
    throughput,
)
from bench.result import BenchError, Effort, Result
from bench.stage import Stage, stage

Measure = Callable[[Stage, Effort, Callable[[str], None]], Result]

MEASUREMENTS: Mapping[str, Measure] = {
    "resolve": resolve.measure,
    "enqueue": enqueue.measure,
    "pick_up": pick_up.measure,
    "streaming": streaming.measure,
    "statements": statements.measure,
    "group_commit": group_commit.measure,
    "bulk_copy": bulk_copy.measure,
    "bulk_upload": bulk_upload.measure,
    "interactive": interactive.measure,
    "in_flight": in_flight.measure,
    "throughput": throughput.measure,
    "history": history.measure,
    "listing": listing.measure,
    "pages": pages.measure,
    "retention": retention.measure,
}

_RESULTS = Path(__file__).parent / "results"
_WIDTH = 110  # columns of a file or pipe


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the chosen measurements; exit status 1 where one of them is worthless, 130 on Ctrl-C."""
    chosen = _parser().parse_args(arguments)
    effort = Effort(rounds=chosen.rounds, seconds=chosen.seconds, quick=chosen.quick)
    output = chosen.output or _RESULTS / ("partial.json" if chosen.quick or chosen.only else "latest.json")
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    try:
        _run(chosen.only or list(MEASUREMENTS), effort, output, console)
    except BenchError as error:
        console.print(f"[red]Worthless:[/red] {error}")
        return 1
    except KeyboardInterrupt:
        console.print("Stopped.")
        return 130
    return 0


def _run(names: Sequence[str], effort: Effort, output: Path, console: Console) -> None:
    began = datetime.now(UTC)
    results: dict[str, Result] = {}

    def progress(step: str) -> None:
        console.print(f"[dim]{step}[/dim]")

    with stage() as set_up:
        found = machine.facts(set_up)
        console.print(
            f"{found['cores']} cores, Python {found['python']}, PostgreSQL "
            f"{found['postgres']['server_version']} (fsync {found['postgres']['fsync']}), Valkey "
            f"{found['valkey']}, {found['disk_sync_ms']:.2f} ms to sync a page, "
            f"load {found['load_average'][0]}"
        )
        for name in names:
            results[name] = MEASUREMENTS[name](set_up, effort, progress)
            report.show(console, results[name])
    report.save(output, began=began, effort=effort, machine=found, results=results)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=_count, default=5, help="interleaved rounds (default 5)")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a round (default 4)")
    parser.add_argument("--quick", action="store_true", help="few samples, only to see that all works")
    parser.add_argument(
        "--only", action="append", choices=list(MEASUREMENTS), help="leave out the others; may be repeated"
    )
    parser.add_argument(
        "--output",
        type=Path,
        help="JSON file (default bench/results/latest.json; partial.json of a quick or partial run)",
    )
    return parser


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be 1 at least")
    return value


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is stopped
    sys.exit(main())
