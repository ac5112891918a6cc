"""`orrery keys rotate`: a new master key, everything sealed wrapped by it, the old key gone. While all runs.

The steps, each of which may be the last before a power cut, for the next call goes on from there:

1. The new key is put into the keyring file, before the old one. Every process reads the file when it changes,
   so from now on all seal with the new key and open with both.
2. What the old key wraps is wrapped anew, in small transactions. Jobs are called with keys all the while.
3. Transactions that began before step 1 may still store what they sealed with the old key: they are waited
   for, and what they stored is wrapped anew.
4. Nothing names the old key any more, and it is taken out of the file.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

import psycopg
from psycopg.rows import tuple_row

from standalone.errors import CommandError
from store import audit
from store.database import conninfo
from store.sealed import SEALED_COLUMNS, Unopened, rewrap
from store.settings import Settings
from store.vault import Keyring, Vault, as_entry, new_key

_ACTOR = "cli"
_PAUSE = 0.1  # seconds between two looks at what others hold

Step = Callable[[str], None]


class KeysError(CommandError):
    """The master keys cannot be rotated now; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Rotation:
    """What a rotation did.

    Args:
        kid: the master key that wraps everything now.
        resumed: it went on with a key that was in the keyring already.
        rewrapped: secrets by table.
        unopened: secrets that no key of the keyring opens where they are.
        kept: older keys that something names still, or may: they stay in the keyring.
        unused: keys that nothing names any more; they are taken out of the file, where there is one.
        waiting: transactions, or rows that they held, that did not end in time.
    """

    kid: str
    resumed: bool
    rewrapped: dict[str, int]
    unopened: Sequence[Unopened]
    kept: Sequence[str]
    unused: Sequence[str]
    waiting: int

    @property
    def is_complete(self) -> bool:
        """Whether the new key is the only one that anything needs."""
        return not self.kept and not self.waiting


def rotate(
    settings: Settings,
    *,
    on_step: Step = lambda _: None,
    patience: float = 60,
    on_batch: Step = lambda _: None,
) -> Rotation:
    """Rotate the master key of an installation that runs, or finish a rotation that was interrupted.

    Where the keys come from the environment, only the wrapping is done here.

    Args:
        on_step: told what is being done.
        patience: seconds to wait for transactions of others.
        on_batch: told the table after each transaction.
    Raises: KeysError, with the steps to take where the keys are set outside; VaultError for a keyring that
        cannot be read.
    """
    with _alone(settings) as db:
        keyring = Keyring.load(settings)
        resumed = len(keyring.kids) > 1
        if not resumed:
            on_step("adding a master key")
            _extend(keyring)
        kid = keyring.current
        _note(db, "begin rotation", kid, {"resumed": resumed})
        began = _now(db)
        vault = Vault(keyring)
        rewrapped = {column.table: 0 for column in SEALED_COLUMNS}
        on_step("wrapping secrets")
        _all(db, vault, kid, rewrapped, patience, on_batch)
        on_step("waiting for transactions that began before")
        waiting = _outlasted(db, began, patience)
        unopened, busy = _all(db, vault, kid, rewrapped, patience, on_batch)
        others = [other for other in keyring.kids if other != kid]
        named = others if busy or waiting else [one.kid for one in unopened]
        unused = [other for other in others if other not in named]
        if keyring.path is not None and unused:
            on_step("retiring what is used no more")
            _retire(keyring, unused)
        _note(db, "rotate", kid, {"rewrapped": rewrapped, "unused": unused, "unopened": len(unopened)})
        kept = [other for other in others if other in named]
        return Rotation(kid, resumed, rewrapped, unopened, kept, unused, busy + waiting)


def told(done: Rotation, settings: Settings) -> str:
    """What a rotation did and what is left to do, for people."""
    count = sum(done.rewrapped.values())
    by_table = ", ".join(f"{table} {number}" for table, number in done.rewrapped.items() if number)
    lines = [
        f"Master key {done.kid} ({'in the keyring already' if done.resumed else 'new'}) seals now. "
        f"Secrets wrapped anew: {count}{f' ({by_table})' if by_table else ''}."
    ]
    lines += [one.reason for one in done.unopened]
    if done.kept and done.waiting:
        lines.append(f"{', '.join(done.kept)} stay: others were not done in time. Run this again.")
    elif done.kept:
        lines.append(
            f"{', '.join(done.kept)} stay as long as something names them. Mend that; run this again."
        )
    if done.unused and settings.master_keys is None:
        lines.append(f"{', '.join(done.unused)} retired: out of {settings.keyring_file}. Keep no copy of it.")
    elif done.unused:
        lines.append(
            f"Nothing names {', '.join(done.unused)}. To end a rotation to {done.kid}, remove the rest from "
            "ORRERY_MASTER_KEYS and restart everything. To begin one to a key that you have added, put it "
            "first, restart everything, and run this again."
        )
    return "\n".join(lines)


def instructions(where: str, current: str) -> str:
    """How to rotate keys that are set outside: a new key, and in which order to set it where."""
    kid, key = new_key()
    return f"""The master keys come from {where}, which only you can change. In this order:
1. Put this new key at the END of it, for every process (API, workers, this shell), and restart them all:
     {as_entry(kid, key)}
   Nothing is sealed with it yet, and everybody can open what will be.
2. When all of them run, move it to the FRONT, before {current}, and restart them all.
3. Run `orrery keys rotate` again. It wraps every secret by {kid} and says when {current} is used no more.
4. Remove {current} from {where}, and restart them all."""


def _all(
    db: psycopg.Connection[Any],
    vault: Vault,
    kid: str,
    rewrapped: dict[str, int],
    patience: float,
    on_batch: Step,
) -> tuple[list[Unopened], int]:
    """Go through all columns until only what does not open is left; that, and how many rows others held."""
    ends = time.monotonic() + patience
    unopened, busy = list[Unopened](), 0
    for column in SEALED_COLUMNS:
        while True:
            done = rewrap(db, column, vault, kid, actor=_ACTOR, on_batch=partial(on_batch, column.table))
            rewrapped[column.table] += done.rewrapped
            if not done.busy or time.monotonic() > ends:
                break
            time.sleep(_PAUSE)
        unopened += done.unopened
        busy += done.busy
    return unopened, busy


_OPEN = b"""
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
  AND xact_start <= %s"""


def _outlasted(db: psycopg.Connection[Any], began: datetime, patience: float) -> int:
    """Wait until the transactions that were open at `began` have ended; how many have not in time."""
    ends = time.monotonic() + patience
    while True:
        row = db.execute(_OPEN, [began]).fetchone()
        assert row is not None, "count yields a row"  # noqa: S101
        if not row[0] or time.monotonic() > ends:
            return int(row[0])
        time.sleep(_PAUSE)


def _extend(keyring: Keyring) -> None:
    if keyring.path is None:
        raise KeysError(instructions("ORRERY_MASTER_KEYS", keyring.current))
    try:
        keyring.extend()
    except OSError as error:
        where = f"{keyring.path} (it cannot be replaced here: {error.strerror})"
        raise KeysError(instructions(where, keyring.current)) from None


def _retire(keyring: Keyring, kids: Sequence[str]) -> None:
    try:
        keyring.retire(kids)
    except OSError as error:
        raise KeysError(
            f"Everything is wrapped by {keyring.current}, but {keyring.path} cannot be replaced "
            f"({error.strerror}). Remove {', '.join(kids)} from it."
        ) from None


@contextmanager
def _alone(settings: Settings) -> Iterator[psycopg.Connection[Any]]:
    """A connection as the owner. Raises KeysError while another rotation runs."""
    target = conninfo(settings.database(), application="orrery keys rotate")
    with psycopg.connect(target, autocommit=True, row_factory=tuple_row) as db:
        row = db.execute("SELECT pg_try_advisory_lock(hashtextextended('orrery.keys rotate', 0))").fetchone()
        if row is None or not row[0]:
            raise KeysError("Another `orrery keys rotate` runs. Wait for it; run it again if it was killed.")
        yield db


def _now(db: psycopg.Connection[Any]) -> datetime:
    row = db.execute("SELECT clock_timestamp()").fetchone()
    assert row is not None, "a function yields a row"  # noqa: S101
    return row[0]  # type: ignore[no-any-return]  # the connection's rows are untyped


def _note(db: psycopg.Connection[Any], action: str, kid: str, after: dict[str, Any]) -> None:
    with db.transaction():
        audit.record(db, audit.Event(action, "master-keys", kid, actor=_ACTOR, after=after))
