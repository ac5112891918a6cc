"""The facts of the machine without which figures mean nothing. None of them names a path or a host."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median
from tempfile import TemporaryFile
from typing import Any

from bench.stage import Stage

_PACKAGES = ("orrery", "dramatiq", "httpx", "psycopg", "redis")
_SYNCS = 30
_PAGE = b"\0" * 8192
_POSTGRES = ("server_version", "fsync", "synchronous_commit")


def facts(stage: Stage) -> dict[str, Any]:
    """Cores, versions, revision, load, and how long the disk takes to make a page durable."""
    return {
        "cores": os.cpu_count(),
        "architecture": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in _PACKAGES},
        "postgres": {name: _setting(stage, name) for name in _POSTGRES},
        "valkey": str(stage.redis.info("server").get("valkey_version", "unknown")),
        "revision": _revision(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "disk_sync_ms": _sync_milliseconds(stage.settings.home),
    }


def _setting(stage: Stage, name: str) -> str:
    row = stage.db.execute("SELECT current_setting(%s)", [name]).fetchone()
    assert row is not None
    return str(row[0])


def _revision() -> str | None:
    """The git revision, with a `+` where files were changed since; None outside of a checkout."""
    root = Path(__file__).parents[1]
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=12"],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()


def _sync_milliseconds(folder: Path) -> float:
    """Median time to write a page of 8 KiB and have it on the disk that holds the database."""
    taken = []
    with TemporaryFile(dir=folder) as file:
        for _ in range(_SYNCS):
            began = time.perf_counter()
            file.write(_PAGE)
            file.flush()
            os.fsync(file.fileno())
            taken.append((time.perf_counter() - began) * 1000)
    return round(median(taken), 3)
