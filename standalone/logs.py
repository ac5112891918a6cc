"""Logging of a process: one line an event on stderr, never a key."""

from __future__ import annotations

import logging

_FORMAT = "%(asctime)s %(levelname)-7s %(process)d %(name)s: %(message)s"
_CHATTY = ("httpx", "httpcore", "dramatiq", "uvicorn.access", "psycopg.pool", "alembic")


def configure(level: str) -> None:
    """Log from `level` on. Libraries that describe each request stay at WARNING at any level."""
    logging.basicConfig(level=level, format=_FORMAT)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLevelName(level)))
