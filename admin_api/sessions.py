"""The request's transaction: opened before the route, committed after it and before the answer leaves.

Nobody else commits. FastAPI ends `scope="function"` dependencies once the answer is made but not yet sent: a
change that was answered is committed, which hot swap depends on, and a commit that fails is no success.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy import text
from sqlalchemy.orm import Session

from admin_api import etags
from admin_api.services import Using

_LOCK = text("SELECT version FROM config_state FOR UPDATE")
_VERSION = text("SELECT version FROM config_state")


def _reading(using: Using) -> Iterator[Session]:
    with Session(using.engine) as session:
        yield session


def _writing(using: Using, request: Request) -> Iterator[Session]:
    """Writers queue at the version row, so what a route has read stays true until it has written.

    What they write is audited by the database, at commit.
    """
    with Session(using.engine, autoflush=False, expire_on_commit=False) as session, session.begin():
        session.execute(_LOCK)
        etags.compare(request, session)
        yield session


def configuration_version(session: Session) -> int:
    """The configuration's version, as the transaction will leave it; what it changes must be flushed."""
    return int(session.execute(_VERSION).scalar_one())


writing = contextmanager(_writing)
"""The transaction of a route that has something slow to do before it; others take `Writing`."""

Reading = Annotated[Session, Depends(_reading, scope="function")]
Writing = Annotated[Session, Depends(_writing, scope="function")]
