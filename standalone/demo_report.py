"""What the demo prints."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from standalone.demo import Findings

_VIOLET, _CYAN, _DIM = "#c084fc", "#22d3ee", "dim"


_PLAIN_WIDTH = 120
_WIDTH_WITH_TEXT = 110
_PREVIEW = 26


def console() -> Console:
    """The terminal, or plain lines of 120 characters where there is none."""
    found = Console()
    return found if found.is_terminal else Console(width=_PLAIN_WIDTH)


def show(findings: Findings, console: Console) -> None:
    """Print the jobs, the failover and the checks."""
    console.print(_jobs(findings, with_text=console.width >= _WIDTH_WITH_TEXT))
    after = sum(horoscope.after_swap for horoscope in findings.horoscopes)
    console.print(
        f"Swapped at configuration version {findings.swap_version}: "
        f"{after} jobs started after it, {findings.stale} of them stale."
    )
    console.print(_failover(findings))
    console.print(f"Audio: {findings.home / 'audio'}/*.wav")
    for claim, held in findings.checks():
        console.print(f"[{'green' if held else 'bold red'}]{'ok  ' if held else 'FAIL'}[/] {claim}")
    console.print(f"[{_DIM}]{findings.seconds:.1f} s, everything included.[/]")


def _jobs(findings: Findings, *, with_text: bool) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD, title="Text → speech, with a hot swap in between", title_style=f"bold {_VIOLET}"
    )
    table.add_column("sign", style=_CYAN, no_wrap=True)
    for name in ("model", "config", "started", "tokens", "cost $", "audio s"):
        table.add_column(name, justify="left" if name in ("model", "started") else "right", no_wrap=True)
    if with_text:
        table.add_column("text", no_wrap=True)
    for horoscope in findings.horoscopes:
        job = horoscope.text
        result = job["result"] or {}
        failed = f"{(job['error'] or {}).get('class')}: {(job['error'] or {}).get('message')}"
        cells = [
            horoscope.sign,
            job["model"],
            str(job["config_version"]),
            "after swap" if horoscope.after_swap else "before",
            str(sum(job["tokens"][kind] or 0 for kind in ("input", "output"))),
            f"{Decimal(job['cost_usd']):.6f}" if job["cost_usd"] is not None else "?",
            f"{horoscope.audio_seconds:.1f}",
        ]
        table.add_row(*cells, *([f"{(result.get('text') or failed)[:_PREVIEW]}…"] if with_text else []))
    return table


def _failover(findings: Findings) -> str:
    jobs = findings.failover
    succeeded = sum(job["state"] == "succeeded" for job in jobs)
    providers = sorted({job["provider"] or "none" for job in jobs})
    failed = sum(a["outcome"] == "failed" and a["breaker"] != "open" for job in jobs for a in job["attempts"])
    return (
        f"Provider down: {succeeded} of {len(jobs)} jobs succeeded, served by {', '.join(providers)}; "
        f"{failed} calls failed before, {findings.open_breaker_saved} were spared by the open breaker."
    )
