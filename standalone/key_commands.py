"""`orrery keys …` and `orrery import-env`: master keys, and the keys of providers."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from standalone.machine import attached, settings_for
from standalone.terminal import Home, steps

keys_app = typer.Typer(help="Master keys.", no_args_is_help=True)


@keys_app.command("rotate")
def keys_rotate(
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for what others do.")] = 60,
    home: Home = None,
) -> None:
    """Make a new master key and wrap everything by it, while all runs. After an interruption: again."""
    from standalone import keys

    settings = attached(settings_for(home))
    with steps("Rotating") as on_step:
        done = keys.rotate(settings, patience=wait, on_step=on_step)
        on_step("")
    typer.echo(keys.told(done, settings))
    raise typer.Exit(0 if done.is_complete else 1)


def import_env(home: Home = None) -> None:
    """Store the vendors' keys that the environment holds (OPENAI_API_KEY, ...), sealed. Prints no key."""
    from standalone import import_env

    settings = attached(settings_for(home))
    typer.echo(import_env.told(import_env.import_env(settings, os.environ)))
