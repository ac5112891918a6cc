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

from bench.result import Effort, Result

_DIGITS = 4  # after the point; more would be noise


def show(console: Console, result: Result) -> None:
    """Print a result's table."""
    table = Table(box=SIMPLE_HEAD)
    for position, column in enumerate(result.columns):
        table.add_column(column, justify="right" if position else "left")
    for row in result.rows:
        table.add_row(*row)
    console.print(
        f"\n[bold]{result.title}[/bold]", table, f"{result.note}\n" if result.note else "", sep="\n"
    )


def save(
    path: Path, *, began: datetime, effort: Effort, machine: Mapping[str, Any], results: Mapping[str, Result]
) -> None:
    """Write everything that was measured, as one JSON document, in place of an older one."""
    document = {
        "began": began.isoformat(timespec="seconds"),
        "quick": effort.quick,
        "machine": machine,
        "measurements": {name: _rounded(result.data) for name, result in results.items()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".tmp")
    draft.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    draft.replace(path)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, _DIGITS)
    if isinstance(value, dict):
        return {name: _rounded(member) for name, member in value.items()}
    return [_rounded(member) for member in value] if isinstance(value, list) else value
