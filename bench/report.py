"""Results as tables on the terminal and as JSON in a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from bench.result import Bound, Effort, Result

_DIGITS = 4  # after the point; more would be noise


def show(console: Console, result: Result) -> None:
    """Print a result's table, and each bound beside its figure."""
    table = Table(box=SIMPLE_HEAD)
    for position, column in enumerate(result.columns):
        table.add_column(column, justify="right" if position else "left")
    for row in result.rows:
        table.add_row(*row)
    console.print(f"\n[bold]{result.title}[/bold]", table, sep="\n")
    for bound in result.bounds:
        console.print(_line(bound))
    if result.note:
        console.print(result.note)
    console.print()


def save(
    path: Path, *, began: datetime, effort: Effort, machine: Mapping[str, Any], results: Mapping[str, Result]
) -> None:
    """Write everything that was measured, as one JSON document, in place of an older one."""
    document = {
        "began": began.isoformat(timespec="seconds"),
        "quick": effort.quick,
        "machine": machine,
        "measurements": {name: _rounded(_document(result)) for name, result in results.items()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".tmp")
    draft.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    draft.replace(path)


def _line(bound: Bound) -> str:
    verdict = "[green]met[/green]" if bound.is_met else "[red]missed[/red]"
    figure = f"{bound.figure:,.0f}" if bound.figure >= 100 else f"{bound.figure:.3g}"
    limit = f"{'at least' if bound.floor else 'at most'} {bound.limit:,g} {bound.unit}".rstrip()
    return f"{verdict}: {bound.what} {figure} ({limit})"


def _document(result: Result) -> dict[str, Any]:
    bounds = [bound.as_json() for bound in result.bounds]
    return {**result.data, **({"bounds": bounds} if bounds else {})}


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, _DIGITS)
    if isinstance(value, dict):
        return {name: _rounded(member) for name, member in value.items()}
    return [_rounded(member) for member in value] if isinstance(value, list) else value
