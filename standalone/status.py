"""What runs: for `orrery status` and `orrery job`."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from decimal import Decimal
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import psycopg
import redis
from psycopg.rows import dict_row
from rich.console import Console
from rich.table import Table

from standalone.machine import attached
from store.database import conninfo
from store.settings import Settings, SettingsError
from workers import lanes
from workers.doorbells import LANES, Doorbells
from workers.records import Job

_VERSIONS = """
SELECT (SELECT version_num FROM alembic_version) AS revision,
       (SELECT version FROM config_state) AS config_version"""
_COUNTS = ("queued", "scheduled", "running", "doorbells")


def describe(settings: Settings) -> dict[str, Any]:
    """Engines, versions and queues as JSON values; a part that does not answer says so. No passwords."""
    described: dict[str, Any] = {"version": version("orrery"), "home": str(settings.home)}
    try:
        reached = attached(settings)
    except SettingsError as error:
        return {**described, "running": False, "reason": str(error)}
    doorbells = Doorbells(reached.redis())
    try:
        database = _database(reached, doorbells)
        queues = database.pop("queues", None) or {
            lane: {**dict.fromkeys(_COUNTS), "doorbells": doorbells.waiting(lane)} for lane in LANES
        }
        cache = _redis(reached)
    finally:
        doorbells.close()
    up = database["answers"] and cache["answers"]
    return {**described, "running": up, "postgresql": database, "redis": cache, "queues": queues}


def render(described: dict[str, Any], console: Console) -> None:
    """Print what `describe` found for people."""
    console.print(f"Orrery {described['version']}, home {described['home']}")
    if "postgresql" not in described:
        console.print(described["reason"])
        return
    for title, part in (("PostgreSQL", described["postgresql"]), ("Redis", described["redis"])):
        state = f"{part['version']} at {part['address']}" if part["answers"] else f"down: {part['error']}"
        console.print(f"{title} {state}")
    if "revision" in described["postgresql"]:
        console.print(
            f"Schema revision {described['postgresql']['revision']}, configuration version "
            f"{described['postgresql']['config_version']}"
        )
    table = Table("lane", "queued", "scheduled", "running", "doorbells")
    for lane, queue in described["queues"].items():
        table.add_row(lane, *("-" if queue[name] is None else str(queue[name]) for name in _COUNTS))
    console.print(table)


def job_as_json(job: Job) -> dict[str, Any]:
    """A job as JSON values: times RFC 3339, money as decimal strings."""
    return {name: _plain(value) for name, value in asdict(job).items()}


def _database(settings: Settings, doorbells: Doorbells) -> dict[str, Any]:
    address = urlsplit(settings.database())
    described: dict[str, Any] = {"address": f"{address.hostname}:{address.port or 5432}", "answers": False}
    try:
        target = conninfo(settings.database())
        with psycopg.connect(target, autocommit=True, row_factory=dict_row) as db:
            described |= {"answers": True, "version": db.info.parameter_status("server_version")}
            described |= db.execute(_VERSIONS).fetchone() or {}
            described["queues"] = {
                state.lane: {name: getattr(state, name) for name in _COUNTS}
                for state in lanes.states(db, doorbells)
            }
    except psycopg.Error as error:
        described["error"] = str(error).splitlines()[0]
    return described


def _redis(settings: Settings) -> dict[str, Any]:
    address = urlsplit(settings.redis())
    described: dict[str, Any] = {"address": f"{address.hostname}:{address.port or 6379}", "answers": False}
    client = redis.Redis.from_url(settings.redis(), socket_timeout=1, socket_connect_timeout=1)
    try:
        info = client.info("server")
        number = info.get("valkey_version") or info.get("redis_version")
        described |= {"answers": True, "version": number}
    except redis.RedisError as error:
        described["error"] = str(error)
    finally:
        client.close()
    return described


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(member) for key, member in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(member) for member in value]
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return str(value) if isinstance(value, (UUID, Decimal)) else value
