"""What a home remembers between starts: ports, passwords, and whether somebody stopped the engines."""

from __future__ import annotations

import json
import secrets
import socket
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from standalone.engines.errors import EngineError
from standalone.engines.folders import write_private

LOOPBACK = "127.0.0.1"

# Below the range from which Linux gives ports to outgoing connections (32768 and up): there, a client that
# keeps reconnecting to a dead engine can end up holding its port, and the engine could not come back on it.
FIRST_PORT, LAST_PORT = 20_000, 29_999


@dataclass(frozen=True, repr=False)
class Endpoints:
    """Where the engines of a home answer; the URLs contain their passwords, the repr does not.

    `database_url` is that of the owner of the database `orrery`.
    """

    database_url: str
    redis_url: str

    def __repr__(self) -> str:
        return f"Endpoints({_masked(self.database_url)}, {_masked(self.redis_url)})"


@dataclass(frozen=True)
class State:
    """The content of `engines.json`."""

    postgres_port: int
    valkey_port: int
    postgres_password: str = field(repr=False)
    valkey_password: str = field(repr=False)
    stopped: bool = False
    """Set by `orrery stop`, so that those who watch do not start again what was stopped on purpose."""

    @classmethod
    def invent(cls) -> State:
        return cls(free_port(), free_port(), secrets.token_urlsafe(24), secrets.token_urlsafe(24))

    @classmethod
    def load(cls, home: Path) -> State | None:
        """The state of `home`; None where there is none yet. Raises EngineError where it cannot be read."""
        path = _path(home)
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, TypeError) as error:
            raise EngineError(
                f"{path} (ports and passwords of the engines) is damaged. Put it back from a backup, "
                f"or move it away together with {home / 'postgres'} to begin anew."
            ) from error

    def save(self, home: Path) -> State:
        write_private(_path(home), json.dumps(asdict(self), indent=1) + "\n")
        return self

    def with_new_postgres_port(self) -> State:
        return replace(self, postgres_port=free_port())

    def with_new_valkey_port(self) -> State:
        # Valkey's AUTH sends the password in clear, so whoever sat on the old port has read it.
        return replace(self, valkey_port=free_port(), valkey_password=secrets.token_urlsafe(24))

    @property
    def endpoints(self) -> Endpoints:
        return Endpoints(
            f"postgresql://orrery:{self.postgres_password}@{LOOPBACK}:{self.postgres_port}/orrery",
            f"redis://:{self.valkey_password}@{LOOPBACK}:{self.valkey_port}/0",
        )


def free_port() -> int:
    """A loopback port nobody listens on."""
    for _ in range(1000):
        port = FIRST_PORT + secrets.randbelow(LAST_PORT - FIRST_PORT + 1)
        if can_listen(port):
            return port
    raise EngineError(f"No free port on {LOOPBACK} between {FIRST_PORT} and {LAST_PORT}.")


def can_listen(port: int) -> bool:
    with socket.socket() as probe:
        # As both engines do: connections that are still closing are no hindrance.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def _path(home: Path) -> Path:
    return home / "engines.json"


def _masked(url: str) -> str:
    scheme, _, rest = url.partition("://")
    name, _, place = rest.partition("@")
    return f"{scheme}://{name.partition(':')[0]}:***@{place}"
