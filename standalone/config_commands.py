"""`orrery config export` and `import`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from standalone.machine import attached, settings_for
from standalone.terminal import Home, fail

config_app = typer.Typer(help="The configuration as a YAML file, without secrets.", no_args_is_help=True)


@config_app.command("export")
def config_export(
    file: Annotated[Path, typer.Argument(help="- is the standard output.", allow_dash=True)],
    home: Home = None,
) -> None:
    """Write providers, models, prices, features, assignments, integrations, schedules and budgets to a file,
    without secrets."""
    from standalone.config_document import written
    from standalone.config_file import exported

    text = written(exported(attached(settings_for(home))))
    if str(file) == "-":
        sys.stdout.write(text)
    else:
        file.write_text(text)


@config_app.command("import")
def config_import(
    file: Annotated[Path, typer.Argument(help="- is the standard input.", allow_dash=True)],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would change; change nothing.")
    ] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove what the file's sections do not have.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    home: Home = None,
) -> None:
    """Show what a file would change, and after a yes change it: all of it or nothing."""
    from standalone import config_file
    from standalone.config_document import read

    entries, kinds = read(sys.stdin.read() if str(file) == "-" else _text_of(file))
    settings = attached(settings_for(home))
    pruned = kinds if prune else frozenset()
    plan = config_file.planned(settings, entries, pruned)
    for change in plan.changes:
        for line in change.lines():
            typer.echo(line)
    if not plan.changes:
        typer.echo("Nothing differs.")
        return
    if dry_run:
        return
    if not yes:
        if str(file) == "-" or not sys.stdin.isatty():
            fail("Nothing was changed: there is nobody to ask. Add --yes, or --dry-run to look only.")
        typer.confirm(f"Make these {len(plan.changes)} changes?", abort=True)
    config_file.imported(settings, entries, pruned, plan)
    typer.echo(f"{len(plan.changes)} changes made.")


def _text_of(file: Path) -> str:
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        fail(f"{file} cannot be read: {error}")
