"""The engines of one home, and those who use them.

Any number of processes use the engines of a home. The first starts them, the others adopt what runs, the last
one to leave stops them. They outlive a user that was killed, and wait for the next.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from standalone.engines.account import service_account
from standalone.engines.errors import EngineError, PortTakenError, explained
from standalone.engines.folders import prepare_home
from standalone.engines.locks import Membership, starting_or_stopping
from standalone.engines.postgres import Postgres
from standalone.engines.process import Engine, Launcher, Step, ensure
from standalone.engines.process import stop as stop_engine
from standalone.engines.state import Endpoints, State
from standalone.engines.valkey import Valkey

WATCH_SECONDS = 0.1
RETRY_SECONDS = 1.0
PORT_TRIES = 5


def running(home: Path) -> Endpoints | None:
    """Where the engines of `home` answer now; None unless both do. EngineError on an unreadable home."""
    home = home.absolute()
    with explained(home):
        home = home.resolve()
        state = State.load(home)
        if state is None or not all(engine.answers() for engine in _engines(home, state)):
            return None
        return state.endpoints


def stop(home: Path) -> bool:
    """Stop both engines of `home`, whoever uses them, and tell the watchers so; False when none ran."""
    home = home.absolute()
    with explained(home):
        home = home.resolve()
        if State.load(home) is None:
            return False
        with starting_or_stopping(home):
            state = State.load(home)
            if state is None:
                return False
            replace(state, stopped=True).save(home)
            return _stop_both(home, state)


class Engines:
    """A user of the engines of one home, from `start()` to `close()`; as a context manager, from end to end.

    `on_step` is told what is being done, in a few words, also from the watching thread. `postgres_settings`
    are given to a PostgreSQL started here, over the defaults; one that already runs keeps those it has.
    """

    def __init__(
        self,
        home: Path,
        *,
        on_step: Step = lambda _: None,
        postgres_settings: Mapping[str, str] | None = None,
    ) -> None:
        self._home = home.absolute()
        self._on_step = on_step
        self._settings = dict(postgres_settings or {})
        self._membership: Membership | None = None
        self._state: State | None = None
        self._closing = threading.Event()
        self._watcher: threading.Thread | None = None

    @property
    def endpoints(self) -> Endpoints:
        """Where both answer; there are none before `start()`."""
        if self._state is None:
            raise EngineError(f"The engines of {self._home} have not been started.")
        return self._state.endpoints

    def start(self) -> Endpoints:
        """Adopt the engines that run, start the others; return when both answer. Raises EngineError."""
        if self._state is not None:
            return self._state.endpoints
        with explained(self._home):
            self._home = self._home.resolve()
            launcher = self._launcher()
            prepare_home(self._home, launcher.account)
            with self._lock():
                self._membership = Membership(self._home)
                try:
                    self._state = self._bring_up(launcher)
                except BaseException:
                    self._leave()
                    raise
        return self._state.endpoints

    def watch(self) -> None:
        """Until `close()`, restart an engine that died, in a thread of its own: same port, same password."""
        if self._state is None:
            raise EngineError(f"The engines of {self._home} have not been started.")
        if self._watcher is None:
            engines = _engines(self._home, self._state)
            self._closing.clear()
            self._watcher = threading.Thread(
                target=self._watch, args=[engines], name="watch-engines", daemon=True
            )
            self._watcher.start()

    def close(self) -> None:
        """Stop using the engines. If nobody else uses them, both are stopped."""
        if self._membership is None or self._membership.inherited:
            return
        self._closing.set()
        if self._watcher is not None:
            self._watcher.join()
            self._watcher = None
        with explained(self._home), self._lock():
            self._leave()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _launcher(self) -> Launcher:
        account = service_account(self._home / Postgres.folder_name)
        return Launcher(self._home, account, self._settings, self._on_step)

    def _lock(self) -> AbstractContextManager[None]:
        return starting_or_stopping(
            self._home, lambda: self._on_step("waiting for another process that starts or stops the engines")
        )

    def _bring_up(self, launcher: Launcher) -> State:
        state = State.load(self._home)
        if state is None:
            state = _first_state(self._home)
        elif state.stopped:
            state = replace(state, stopped=False).save(self._home)
        state = _ensured(state, _valkey, State.with_new_valkey_port, launcher)
        state = _ensured(state, _postgres, State.with_new_postgres_port, launcher)
        _postgres(self._home, state).ensure_database()
        return state

    def _leave(self) -> None:
        """Give the share back, with the lock held; the last to leave stops both."""
        if self._membership is None:
            return
        alone = self._membership.leave()
        self._membership = None
        state = self._state or State.load(self._home)
        self._state = None
        if alone and state is not None:
            _stop_both(self._home, state)

    def _watch(self, engines: list[Engine]) -> None:
        while not self._closing.wait(WATCH_SECONDS):
            if any(engine.pid() is None for engine in engines) and not self._revive():
                return

    def _revive(self) -> bool:
        """Start again what died; False when it was stopped on purpose."""
        try:
            with self._lock():
                state = State.load(self._home)
                if state is None or state.stopped:
                    self._on_step("the engines were stopped")
                    return False
                for engine in _engines(self._home, state):
                    if engine.pid() is None and not engine.answers():
                        self._on_step(f"{engine.title} died: starting it again")
                        ensure(engine, self._launcher())
        except (EngineError, OSError) as error:
            self._on_step(str(error))
            self._closing.wait(RETRY_SECONDS)
        return True


def _postgres(home: Path, state: State) -> Postgres:
    return Postgres(home, state.postgres_port, state.postgres_password)


def _valkey(home: Path, state: State) -> Valkey:
    return Valkey(home, state.valkey_port, state.valkey_password)


def _engines(home: Path, state: State) -> list[Engine]:
    return [_valkey(home, state), _postgres(home, state)]


def _first_state(home: Path) -> State:
    """Kept before anything is created with it. EngineError where data lies whose password nobody knows."""
    state = State.invent()
    if _postgres(home, state).is_initialised():
        raise EngineError(
            f"{home / 'engines.json'} (ports and passwords of the engines) is missing beside the data in "
            f"{home / Postgres.folder_name}. Put it back from a backup, or choose another folder with --home."
        )
    return state.save(home)


def _ensured(
    state: State,
    engine_of: Callable[[Path, State], Engine],
    moved: Callable[[State], State],
    launcher: Launcher,
) -> State:
    """Bring one engine up. Where a stranger has its port, it gets another, which the returned state knows."""
    for _ in range(PORT_TRIES):
        engine = engine_of(launcher.home, state)
        try:
            ensure(engine, launcher)
        except PortTakenError as error:
            launcher.on_step(f"{error} Choosing another.")
            state = moved(state).save(launcher.home)
        else:
            return state
    raise EngineError(f"{PORT_TRIES} ports in a row were taken while the engines of {launcher.home} started.")


def _stop_both(home: Path, state: State) -> bool:
    ended = [stop_engine(engine) for engine in _engines(home, state)]
    return any(ended)
