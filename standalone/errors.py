"""What the `orrery` command says when it cannot do something."""

from __future__ import annotations


class CommandError(Exception):
    """A command cannot do what it was asked; the message names what is wrong and the fix. Exit status 1."""
