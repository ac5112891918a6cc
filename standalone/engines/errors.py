"""What can go wrong with the embedded engines.

EngineError            the message names the folder, the reason and what to do
└── PortTakenError     somebody else listens on the kept port
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from standalone.errors import CommandError


class EngineError(CommandError):
    """The engines of a home cannot be started, asked or stopped."""


class PortTakenError(EngineError):
    """Another program listens on the port this engine was given."""


@contextmanager
def explained(home: Path) -> Iterator[None]:
    """Turn a refusal of the operating system into an EngineError that names the path it is about."""
    try:
        yield
    except OSError as error:
        path = error.filename or home
        raise EngineError(
            f"The home {home} cannot be used: {path}: {error.strerror or error}. "
            "Mend that, or choose another folder with --home."
        ) from error
