"""The home folder: made, checked, and written to without ever showing a secret.

<home>/engines.json    ports and passwords, 0600
<home>/engines.lock    serialises starts and stops
<home>/engines.users   holds one shared lock per user
<home>/postgres/       the PostgreSQL data directory, 0700, the account's
<home>/valkey/         append-only file and valkey.conf, 0700, the account's
<home>/log/            what both print, 0700
<home>/binaries/       copies of the server programs, where the virtualenv is out of the account's reach
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from standalone.engines.account import ENTER, Account
from standalone.engines.errors import EngineError

# A fresh PostgreSQL data directory has 39 MB; its write-ahead log soon takes as much again.
FREE_BYTES = 200 * 1024 * 1024

# Entering without listing: the account of the engines passes through, everybody else learns nothing.
HOME_MODE = 0o711


def prepare_home(home: Path, account: Account | None) -> None:
    """Create the home where it is missing, and refuse one that cannot serve, naming the folder and the cure.

    Raises EngineError; OSError where the file system itself refuses.
    """
    _make_folders(home, account)
    if not os.access(home, os.R_OK | os.W_OK | os.X_OK):
        raise EngineError(
            f"The home {home} is not writable by this user. "
            "Run as its owner, or choose another folder with --home."
        )
    if (home / "PG_VERSION").exists():
        raise EngineError(
            f"The home {home} is itself a PostgreSQL data directory. Choose an empty folder with --home."
        )
    if account is not None:
        _check_the_way(home, account)


def _make_folders(home: Path, account: Account | None) -> None:
    for folder in [*reversed(home.parents), home]:
        if folder.exists():
            if not folder.is_dir():
                raise EngineError(
                    f"{folder} is a file, not a folder. Choose another folder with --home, or move the file."
                )
            continue
        folder.mkdir(mode=0o700 if folder == home else 0o777, exist_ok=True)
        if account is not None:
            # Whatever root's umask is: the account must get to its data.
            folder.chmod(HOME_MODE if folder == home else 0o755)
    if account is not None and not account.may(home, ENTER) and not any(home.iterdir()):
        # An empty folder that was made for us (mktemp -d gives 0700) holds nothing that opening could show.
        home.chmod(HOME_MODE)


def _check_the_way(home: Path, account: Account) -> None:
    blocked = account.blocked_at(home / "postgres")
    if blocked is not None:
        raise EngineError(
            f"The engines of {home} run as the account {account.name}, which cannot enter {blocked}. "
            f"Allow it (chmod o+x {blocked}), or choose another folder with --home."
        )


def check_space(home: Path) -> None:
    """Refuse to begin a data directory on a disk that cannot hold it."""
    free = shutil.disk_usage(home).free
    if free < FREE_BYTES:
        raise EngineError(
            f"The disk of {home} has {free // 2**20} MB free; the engines need {FREE_BYTES // 2**20} MB "
            "to begin. Free some space, or choose another folder with --home."
        )


def private_folder(folder: Path, account: Account | None) -> None:
    """Make `folder`, 0700 and the account's, unless it exists."""
    if folder.is_dir():
        return
    folder.mkdir(mode=0o700)
    hand_over(folder, account)


def hand_over(path: Path, account: Account | None) -> None:
    """Make `path` the account's."""
    if account is not None:
        os.chown(path, account.uid, account.gid)


def write_private(path: Path, text: str, account: Account | None = None) -> None:
    """Put `text` at `path` in one step, 0600; a reader sees the old file or the new one, never half of it.

    The file is made under a fresh name and renamed: in a folder that belongs to the engines' account,
    a link laid at `path` is replaced and never followed.
    """
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            if account is not None:
                os.fchown(file.fileno(), account.uid, account.gid)
            os.fsync(file.fileno())
        Path(draft).replace(path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise
