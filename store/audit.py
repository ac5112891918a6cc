"""The audit log: who did what to which noun, chained by hashes (`audit_append` in the database).

Changes of the configuration are written by triggers at commit, whoever makes them: `acting` names who.
What changes no row of it (a login, a rotation, an export) is told with `record`, in the act's transaction.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

import psycopg
from psycopg.rows import tuple_row

if TYPE_CHECKING:  # workers and applications load no ORM
    import sqlalchemy
    from sqlalchemy.orm import Session

    Database = psycopg.Connection[Any] | sqlalchemy.Connection | Session

request_id: ContextVar[str | None] = ContextVar("orrery_request_id", default=None)
"""The request that is being served, for the audit rows and log lines that it makes."""


@dataclass(frozen=True, slots=True)
class Event:
    """One act. What is in it is kept for ever and shown to admins: no secrets.

    Args:
        action: `login`, `export`, ...
        noun: what it was done to, as its route is called: `providers`, `sessions`, ...
        noun_id: which one.
        actor: in words: `admin a@b`, `application name`, `cli`, `system`. None: the transaction's (`acting`),
            or the admin's.
        admin_id: the admin who acted.
        before, after: JSON; UUIDs, decimals and times become texts.
    """

    action: str
    noun: str
    noun_id: str | UUID | None = None
    actor: str | None = None
    admin_id: UUID | None = None
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None


def record(db: Database, event: Event) -> None:
    """Append `event` in the transaction of `db`; it is kept if and only if that commits.

    Locks the end of the chain until then: call it last, after every other row is written.
    """
    _run(
        db,
        _APPEND,
        {
            "actor": _kept(event.actor),
            "admin_id": event.admin_id,
            "action": event.action,
            "noun": event.noun,
            "noun_id": _kept(None if event.noun_id is None else str(event.noun_id)),
            "before": _json(event.before),
            "after": _json(event.after),
            "request_id": request_id.get(),
        },
    )


def acting(
    db: Database, actor: str | None = None, *, admin_id: UUID | None = None, token_id: UUID | None = None
) -> None:
    """Say who makes the changes of the transaction that `db` is in: in words, or by an id."""
    _run(
        db,
        _ACTING,
        {
            "actor": _kept(actor) or "",
            "admin_id": str(admin_id or ""),
            "token_id": str(token_id or ""),
            "request_id": request_id.get() or "",
        },
    )


_APPEND = """
SELECT audit_append(%(actor)s, %(admin_id)s, %(action)s, %(noun)s, %(noun_id)s, %(before)s::jsonb,
                    %(after)s::jsonb, %(request_id)s)"""

_ACTING = """
SELECT set_config('orrery.actor', %(actor)s, true),
       set_config('orrery.admin_id', %(admin_id)s, true),
       set_config('orrery.token_id', %(token_id)s, true),
       set_config('orrery.request_id', %(request_id)s, true)"""


def _run(db: Database, statement: str, values: Mapping[str, Any]) -> None:
    if isinstance(db, psycopg.Connection):
        db.execute(statement.encode(), values)
        return
    connection = db if hasattr(db, "exec_driver_sql") else db.connection()
    connection.exec_driver_sql(statement, dict(values))


_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def _kept(text: str | None) -> str | None:
    """A text that PostgreSQL takes: the address of a failed login may be anything."""
    return None if text is None else _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def _json(document: Mapping[str, Any] | None) -> str | None:
    return None if document is None else json.dumps(_storable(document), default=_text, ensure_ascii=False)


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        return _kept(value)
    if isinstance(value, Mapping):
        return {_kept(str(name)): _storable(member) for name, member in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_storable(member) for member in value]
    return value


def _text(value: object) -> str:
    if isinstance(value, (bytes, bytearray, memoryview)):
        raise TypeError("Bytes are refused: what is binary here is a secret.")
    return str(value)


# --- verification -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bad:
    """The first row of the log that is not as it was written, or is missing."""

    id: int
    reason: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What `verify` found: rows checked, the first bad one, and the end of the chain.

    Somebody who may do anything in the database can write the whole chain anew. `last_id` and `last_hash`,
    noted outside of it, tell: that row must keep that hash for ever.
    """

    checked: int
    first_bad: Bad | None
    last_id: int
    last_hash: str


GENESIS = bytes(32)
"""What the first row names as the hash before it."""

_BATCH = 2000
_ROWS = b"""
SELECT id::text, previous_hash, extract(epoch FROM at)::text, actor, admin_id::text, action, noun, noun_id,
       before::text, after::text, request_id, hash
FROM audit_log ORDER BY audit_log.id"""


def verify(db: psycopg.Connection[Any]) -> Verdict:
    """Go through the whole chain, from its first row to its end, as one moment shows it.

    The hashes are counted here, not by the database's function, which whoever alters rows might alter too.
    """
    with db.transaction():
        db.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        with db.cursor(row_factory=tuple_row) as cursor:
            head = cursor.execute("SELECT last_id, last_hash FROM audit_head").fetchone()
        checked, last_id, last_hash = 0, 0, GENESIS
        for row in _rows(db):
            bad = _bad(row, last_id, last_hash)
            if bad is not None:
                return Verdict(checked, bad, last_id, last_hash.hex())
            checked, last_id, last_hash = checked + 1, last_id + 1, bytes(row[-1])
        return Verdict(checked, _end(head, last_id, last_hash), last_id, last_hash.hex())


def row_hash(values: Sequence[str | bytes | None]) -> bytes:
    """SHA-256 of an audit row, its columns as texts in the order of `audit_hash` in the database."""
    texts = (value.hex() if isinstance(value, bytes) else value for value in values)
    return hashlib.sha256(
        ",".join("-" if text is None else f"{len(text)}:{text}" for text in texts).encode()
    ).digest()


def _rows(db: psycopg.Connection[Any]) -> Iterator[Sequence[Any]]:
    with db.cursor("audit_rows", row_factory=tuple_row) as cursor:
        cursor.itersize = _BATCH
        cursor.execute(_ROWS)
        yield from cursor


def _bad(row: Sequence[Any], last_id: int, last_hash: bytes) -> Bad | None:
    found = int(row[0])
    if found <= last_id:
        return Bad(found, "This id is not one of the chain's: ids count from 1, each once.")
    if found != last_id + 1:
        return Bad(last_id + 1, "The row is missing: it was removed, or got another id.")
    if row[1] != last_hash:
        return Bad(found, "The row does not follow the one before: that one was altered, or this one moved.")
    if row_hash(row[:-1]) != row[-1]:
        return Bad(found, "The row was altered: its hash is of something else.")
    return None


def _end(head: Sequence[Any] | None, last_id: int, last_hash: bytes) -> Bad | None:
    if head is None:
        return Bad(last_id + 1, "The record of the chain's end is missing, so rows may be, too.")
    if head[0] > last_id:
        return Bad(last_id + 1, f"The row is missing, and with it all up to {head[0]}: the end was cut off.")
    if (head[0], bytes(head[1])) != (last_id, last_hash):
        return Bad(last_id, "The row is not the end that the chain records: one of the two was altered.")
    return None
