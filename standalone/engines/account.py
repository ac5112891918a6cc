"""Under which account the engines run: PostgreSQL refuses root."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from standalone.engines.errors import EngineError

SERVICE_ACCOUNTS = ("postgres", "nobody")

READ_AND_ENTER = 0o5
ENTER = 0o1


class Credentials(TypedDict, total=False):
    """The arguments of `subprocess` that drop root's rights; empty for an ordinary user."""

    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True)
class Account:
    """An existing account that root hands the engines and their data to."""

    name: str
    uid: int
    gid: int

    def may(self, path: Path, wanted: int) -> bool:
        """Whether the mode bits of `path` grant `wanted` (a sum of 4 read, 2 write, 1 enter)."""
        status = path.stat()
        shift = 6 if status.st_uid == self.uid else 3 if status.st_gid == self.gid else 0
        return (status.st_mode >> shift) & wanted == wanted

    def blocked_at(self, path: Path) -> Path | None:
        """The first folder on the way to `path` that the account cannot enter."""
        return next((p for p in reversed(path.parents) if not self.may(p, ENTER)), None)


def service_account(data: Path) -> Account | None:
    """The account to run as: None for an ordinary user, who runs the engines as itself.

    Data that exists decides, because PostgreSQL insists on owning it: an account `postgres` that was
    created later does not take over what `nobody` began.
    """
    if os.geteuid() != 0:
        return None
    if data.is_dir():
        return _owner(data)
    for name in SERVICE_ACCOUNTS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, entry.pw_uid, entry.pw_gid)
    raise EngineError(
        f"PostgreSQL refuses to run as root, and none of the accounts {', '.join(SERVICE_ACCOUNTS)} exists. "
        "Create one of them, or start Orrery as an ordinary user."
    )


def credentials(account: Account | None) -> Credentials:
    if account is None:
        return {}
    return {"user": account.uid, "group": account.gid, "extra_groups": []}


def _owner(data: Path) -> Account:
    status = data.stat()
    if status.st_uid == 0:
        raise EngineError(
            f"{data} belongs to root, and PostgreSQL refuses to run as root. "
            f"Give it to the account that shall run it: chown -R {SERVICE_ACCOUNTS[0]} {data}"
        )
    try:
        name = pwd.getpwuid(status.st_uid).pw_name
    except KeyError:
        name = f"uid {status.st_uid}"
    return Account(name, status.st_uid, status.st_gid)
