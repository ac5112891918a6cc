"""What the demo prints."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from standalone.demo import Findings

_VIOLET, _CYAN, _DIM = "#c084fc", "#22d3ee", "dim"


def show(findings: Findings, console: Console) -> None:
    """Print the jobs, the failover and the checks."""
    console.print(_jobs(findings))
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


def _jobs(findings: Findings) -> Table:
    table = Table(title="Text → speech, with a hot swap in between", title_style=f"bold {_VIOLET}")
    table.add_column("sign", style=_CYAN)
    for name in ("model", "config", "started", "tokens", "cost $", "audio s"):
        table.add_column(name, justify="left" if name in ("model", "started") else "right", no_wrap=True)
    table.add_column("text", overflow="ellipsis", no_wrap=True, max_width=44)
    for horoscope in findings.horoscopes:
        job = horoscope.text
        result = job["result"] or {}
        failed = f"{(job['error'] or {}).get('class')}: {(job['error'] or {}).get('message')}"
        table.add_row(
            horoscope.sign,
            job["model"],
            str(job["config_version"]),
            "after swap" if horoscope.after_swap else "before",
            str(sum(job["tokens"][kind] or 0 for kind in ("input", "output"))),
            f"{Decimal(job['cost_usd']):.6f}" if job["cost_usd"] is not None else "?",
            f"{horoscope.audio_seconds:.1f}",
            result.get("text") or failed,
        )
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
