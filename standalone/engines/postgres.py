"""The embedded PostgreSQL: its data directory, its command line, its database."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import psycopg

from standalone.engines.account import credentials
from standalone.engines.binaries import postgres_major
from standalone.engines.errors import EngineError
from standalone.engines.folders import check_space, hand_over, write_private
from standalone.engines.process import ENVIRONMENT, Engine, Launcher
from standalone.engines.state import LOOPBACK

ROLE = DATABASE = "orrery"

SETTINGS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",  # a socket's path may not exceed 107 bytes; a home's may
    "max_connections": "300",
    "shared_buffers": "128MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",  # a line every five minutes for ever, on a machine nobody administers
}

INTERRUPTED = "postgres.new-"


class Postgres(Engine):
    """PostgreSQL with one role, `orrery`, which owns the database `orrery`."""

    title = "PostgreSQL"
    folder_name = "postgres"
    # Fast shutdown; then immediate, which the next start repairs from the log. Never SIGKILL.
    stop_signals = ((signal.SIGINT, 60.0), (signal.SIGQUIT, 10.0))
    retry_phrases = ("pre-existing shared memory block", 'lock file "postmaster.pid" already exists')

    @property
    def pid_file(self) -> Path:
        return self.folder / "postmaster.pid"

    @property
    def mark(self) -> str:
        return str(self.folder)

    def answers(self) -> bool:
        try:
            with self._connect() as connection:
                row = connection.execute("SHOW data_directory").fetchone()
        except psycopg.Error:
            return False
        return row is not None and row[0] == str(self.folder)

    def prepare(self, launcher: Launcher) -> None:
        if not self.is_initialised():
            self._initialise(launcher)

    def command(self, launcher: Launcher) -> list[str]:
        settings = {**SETTINGS, **launcher.postgres_settings}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [str(launcher.binaries.postgres), "-D", str(self.folder), "-p", str(self.port), *options]

    def environment(self) -> dict[str, str]:
        """Declares the process in a stale postmaster.pid to be of no concern.

        PostgreSQL refuses to start while any process of its account happens to have the number in that file:
        for ever, where numbers repeat at each boot, as in containers. It ignores its "grandparent", meant
        for pg_ctl's shell. Its check of shared memory, the one that protects the data, stays.
        """
        noted = self.noted_pid()
        if noted is None or self.pid() is not None:
            return ENVIRONMENT
        return {**ENVIRONMENT, "PG_GRANDPARENT_PID": str(noted)}

    def is_initialised(self) -> bool:
        """Whether data lies here that this version can use; EngineError where something else lies here."""
        if not self.folder.exists():
            return False
        try:
            major = (self.folder / "PG_VERSION").read_text(encoding="utf-8", errors="replace").strip()
        except (FileNotFoundError, NotADirectoryError):
            if self.folder.is_dir() and not any(self.folder.iterdir()):
                return False
            raise EngineError(
                f"{self.folder} is not a PostgreSQL data directory. Move it away, or choose another --home."
            ) from None
        if major != str(postgres_major()):
            raise EngineError(
                f"{self.folder} was made by PostgreSQL {major}, and this is PostgreSQL {postgres_major()}. "
                "Dump it (pg_dump) with the Orrery that made it, or choose another --home."
            )
        return True

    def ensure_database(self) -> None:
        """Create the database `orrery` if it is not there."""
        try:
            with self._connect() as connection:
                query = "SELECT FROM pg_database WHERE datname = %s"
                if connection.execute(query, (DATABASE,)).fetchone() is None:
                    connection.execute(f"CREATE DATABASE {DATABASE} TEMPLATE template0")
        except psycopg.Error as error:
            raise EngineError(f"PostgreSQL in {self.folder} runs, but refuses: {error}") from error

    def _connect(self) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(
            host=LOOPBACK,
            hostaddr=LOOPBACK,  # over a PGHOSTADDR in the environment
            port=self.port,
            user=ROLE,
            password=self.password,
            dbname="postgres",
            connect_timeout=2,
            options="",
            sslmode="disable",
            gssencmode="disable",
            require_auth="scram-sha-256",  # whoever sits on the port cannot ask for the password in clear
            autocommit=True,
        )

    def _initialise(self, launcher: Launcher) -> None:
        """initdb beside the place, then rename: what was interrupted is never taken for a data directory."""
        home = self.folder.parent
        check_space(home)
        launcher.on_step("creating the PostgreSQL data directory")
        for leftover in home.glob(f"{INTERRUPTED}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        draft = Path(tempfile.mkdtemp(dir=home, prefix=INTERRUPTED))
        try:
            hand_over(draft, launcher.account)
            self._initdb(draft, launcher)
            (draft / "data").rename(self.folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def _initdb(self, draft: Path, launcher: Launcher) -> None:
        password = draft / "password"
        write_private(password, self.password, launcher.account)
        command = [
            str(launcher.binaries.initdb),
            f"--pgdata={draft / 'data'}",
            f"--username={ROLE}",
            f"--pwfile={password}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
        ]
        if launcher.postgres_settings.get("fsync") == "off":
            command.append("--no-sync")
        done = subprocess.run(  # noqa: S603 - a list, no shell, and the program is our own
            command,
            cwd=draft,
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
            text=True,
            errors="replace",
            check=False,
            **credentials(launcher.account),
        )
        if done.returncode != 0:
            reason = " ".join(done.stderr.split()) or f"initdb ended with status {done.returncode}"
            raise EngineError(f"The PostgreSQL data directory {self.folder} cannot be created: {reason}")
