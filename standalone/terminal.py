"""What the commands have in common: their options, and how they speak to a terminal."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

Home = Annotated[
    Path | None,
    typer.Option(
        "--home", help="Folder of engines, keyring, artifacts; else ORRERY_HOME.", show_default=False
    ),
]


@contextmanager
def steps(title: str) -> Iterator[Callable[[str], None]]:
    """Shows what is being done: one moving line on a terminal, plain lines elsewhere; "" ends the line."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda step: print(f"{title}: {step}", file=sys.stderr, flush=True) if step else None
        return
    with console.status(f"{title} …") as line:

        def on_step(step: str) -> None:
            if step:
                line.start()
                line.update(f"{title}: {step} …")
            else:
                line.stop()

        yield on_step


def fail(message: str) -> NoReturn:
    """End the command with one sentence on stderr and exit status 1."""
    logging.getLogger(__name__).debug("failed", exc_info=True)
    print(f"orrery: {message}", file=sys.stderr)
    sys.exit(1)
