"""Starting, finding and stopping one engine, whichever it is.

Whether an engine runs is decided by asking it with the password. Its pid file is only believed while a
process of that number has the engine's own folder on its command line; all else is left over from a crash.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from standalone.engines.account import Account, credentials
from standalone.engines.binaries import Binaries, locate
from standalone.engines.errors import EngineError, PortTakenError
from standalone.engines.folders import private_folder
from standalone.engines.state import can_listen

POLL_SECONDS = 0.015
ANSWER_SECONDS = 300.0  # PostgreSQL may have a long log to replay
LEFTOVER_SECONDS = 30.0  # the backends of a killed postmaster notice its death at their next wait
PORT_SECONDS = 1.0  # a killed process gives its port back a moment after it is gone
LOG_BYTES = 16 * 1024 * 1024

# Nothing of the caller's environment: it may hold keys, and PG* variables would steer the server.
ENVIRONMENT = {"LC_ALL": "C", "PATH": "/usr/bin:/bin"}

Step = Callable[[str], None]


@dataclass(frozen=True)
class Launcher:
    """What starting needs and asking does not: the programs, the account, the settings."""

    home: Path
    account: Account | None
    postgres_settings: Mapping[str, str]
    on_step: Step

    @cached_property
    def binaries(self) -> Binaries:
        return locate(self.home, self.account)


class Engine(ABC):
    """One engine of one home, at the port it was given."""

    title: ClassVar[str]
    folder_name: ClassVar[str]
    stop_signals: ClassVar[tuple[tuple[signal.Signals, float], ...]]
    """The signals that end it, the polite one first, each with the seconds it is given."""
    retry_phrases: ClassVar[tuple[str, ...]] = ()
    """Last words that mean: try again soon."""
    advice: ClassVar[str] = ""

    def __init__(self, home: Path, port: int, password: str) -> None:
        self.folder = home / self.folder_name
        self.log = home / "log" / f"{self.folder_name}.log"
        self.port = port
        self.password = password

    @property
    @abstractmethod
    def pid_file(self) -> Path: ...

    @property
    @abstractmethod
    def mark(self) -> str:
        """The argument on its command line that no engine of another home has."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether THIS engine answers at its port: it takes the password and names this folder as its own."""

    @abstractmethod
    def prepare(self, launcher: Launcher) -> None:
        """Make the folder ready for a start."""

    @abstractmethod
    def command(self, launcher: Launcher) -> list[str]: ...

    def environment(self) -> dict[str, str]:
        return ENVIRONMENT

    def pid(self) -> int | None:
        """The process, if it lives."""
        pid = self.noted_pid()
        return pid if pid is not None and self.mark in _arguments(pid) else None

    def noted_pid(self) -> int | None:
        """What the pid file says, true or not."""
        try:
            return int(self.pid_file.read_bytes().partition(b"\n")[0])
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return None


def ensure(engine: Engine, launcher: Launcher) -> None:
    """Return when `engine` answers: the one that runs, else one started now.

    Raises PortTakenError if a stranger sits on its port, EngineError if it cannot be started; nothing that
    was started here is left running then.
    """
    if engine.answers():
        return
    engine.prepare(launcher)
    launcher.on_step(f"starting {engine.title}")
    give_up = time.monotonic() + LEFTOVER_SECONDS
    while True:
        if engine.pid() is not None:
            if _answers_while(engine, lambda: engine.pid() is not None, launcher.on_step):
                return
            continue
        _wait_for_port(engine)
        last_words = _start(engine, launcher)
        if last_words is None:
            return
        if "Address already in use" in last_words:
            raise PortTakenError(f"Port {engine.port} of {engine.title} was taken by another program.")
        if time.monotonic() > give_up or not any(p in last_words for p in engine.retry_phrases):
            raise EngineError(
                f"{engine.title} did not start in {engine.folder}: {_reason(last_words)} "
                f"(the whole story: {engine.log}).{engine.advice}"
            )
        time.sleep(10 * POLL_SECONDS)


def stop(engine: Engine) -> bool:
    """End the engine and wait for it; False when it did not run."""
    pid = engine.pid()
    if pid is None:
        return False
    for number, seconds in engine.stop_signals:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return True
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if not _lives(pid):
                return True
            time.sleep(POLL_SECONDS)
    raise EngineError(f"{engine.title} in {engine.folder} (process {pid}) does not end. See {engine.log}.")


def _start(engine: Engine, launcher: Launcher) -> str | None:
    """None once it answers; if it ended instead, what it printed."""
    before = _prepare_log(engine.log)
    process = _spawn(engine, launcher)
    try:
        answered = _answers_while(engine, lambda: process.poll() is None, launcher.on_step)
    except BaseException:
        _kill(engine, process)
        raise
    if not answered:
        return _printed_since(engine.log, before)
    # Reaped whenever it ends: a zombie would still look alive to those who only have its number.
    threading.Thread(target=process.wait, name=f"reap-{engine.folder_name}", daemon=True).start()
    return None


def _spawn(engine: Engine, launcher: Launcher) -> subprocess.Popen[bytes]:
    command = engine.command(launcher)
    with engine.log.open("ab") as log:
        try:
            return subprocess.Popen(  # noqa: S603 - a list, no shell, and the program is our own
                command,
                cwd=engine.folder,
                env=engine.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                umask=0o077,
                **credentials(launcher.account),
            )
        except OSError as error:
            account = launcher.account.name if launcher.account else "this user"
            raise EngineError(
                f"{engine.title} cannot be run as {account}: {command[0]}: {error.strerror}."
            ) from error


def _kill(engine: Engine, process: subprocess.Popen[bytes]) -> None:
    for number, _ in engine.stop_signals:
        process.send_signal(number)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            continue
        return
    process.kill()
    process.wait()


def _answers_while(engine: Engine, lives: Callable[[], bool], on_step: Step) -> bool:
    """Wait until the engine answers (True) or no longer lives (False)."""
    begun = time.monotonic()
    told = False
    while not engine.answers():
        if not lives():
            return False
        waited = time.monotonic() - begun
        if waited > ANSWER_SECONDS:
            raise EngineError(
                f"{engine.title} in {engine.folder} runs but has not answered at port {engine.port} "
                f"for {waited:.0f} s. See {engine.log}."
            )
        if waited > 2 and not told:
            told = True
            on_step(f"waiting for {engine.title} to read its data")
        time.sleep(POLL_SECONDS)
    return True


def _wait_for_port(engine: Engine) -> None:
    deadline = time.monotonic() + PORT_SECONDS
    while not can_listen(engine.port):
        if time.monotonic() > deadline:
            raise PortTakenError(f"Port {engine.port} of {engine.title} is taken by another program.")
        time.sleep(POLL_SECONDS)


def _prepare_log(log: Path) -> int:
    """Begin a new log when the old one has grown; the size it has now, in bytes."""
    private_folder(log.parent, None)
    size = log.stat().st_size if log.exists() else 0
    if size <= LOG_BYTES:
        return size
    log.replace(log.with_suffix(".log.1"))
    return 0


def _printed_since(log: Path, position: int) -> str:
    with log.open("rb") as file:
        file.seek(position)
        return file.read().decode("utf-8", "replace")


def _reason(last_words: str) -> str:
    lines = [line.strip() for line in last_words.splitlines() if line.strip()]
    fatal = [line for line in lines if "FATAL" in line or "# " in line]
    return (fatal or lines or ["it printed nothing"])[-1]


def _arguments(pid: int) -> list[str]:
    """The command line of a process; empty if there is none, or only its zombie."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "surrogateescape").split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return []


def _lives(pid: int) -> bool:
    """Whether the process is there and no zombie: only then are its port and its memory free."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"
