"""The embedded Valkey: its configuration file and how to recognise it."""

from __future__ import annotations

import signal
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from standalone.engines.folders import private_folder, write_private
from standalone.engines.process import Engine, Launcher
from standalone.engines.state import LOOPBACK

# Every write goes to the append-only file, synced each second: a power cut costs a second of doorbells, which
# the feeder rings again. `save ""` leaves the snapshots out, because a start reads the append-only file alone
# and each snapshot forks the whole process. A queue must refuse when full rather than forget: noeviction. The
# command line keeps the configuration's path (set-proc-title no), by which the process is recognised.
CONFIGURATION = """\
bind {host}
port {port}
protected-mode yes
requirepass {password}
appendonly yes
appendfsync everysec
save ""
maxmemory-policy noeviction
tcp-backlog 128
set-proc-title no
pidfile valkey.pid
"""


class Valkey(Engine):
    """Valkey with a password, keeping an append-only file."""

    title = "Valkey"
    folder_name = "valkey"
    # SIGTERM is SHUTDOWN, also for one that is still loading. What SIGKILL can lose are doorbells.
    stop_signals = ((signal.SIGTERM, 10.0), (signal.SIGKILL, 10.0))
    advice = " This folder holds only what can be rung again: if its file is damaged, move the folder away."

    @property
    def configuration(self) -> Path:
        return self.folder / "valkey.conf"

    @property
    def pid_file(self) -> Path:
        return self.folder / "valkey.pid"

    @property
    def mark(self) -> str:
        return str(self.configuration)

    def answers(self) -> bool:
        client = redis.Redis(
            host=LOOPBACK,
            port=self.port,
            password=self.password,
            socket_timeout=2,
            socket_connect_timeout=2,
            retry=Retry(NoBackoff(), 0),
        )
        try:
            client.ping()  # refused while it reads its file
            folder = client.config_get("dir")["dir"]
        except (redis.RedisError, OSError):
            return False
        finally:
            client.close()
        return bool(folder == str(self.folder.resolve()))

    def prepare(self, launcher: Launcher) -> None:
        private_folder(self.folder, launcher.account)
        text = CONFIGURATION.format(host=LOOPBACK, port=self.port, password=self.password)
        write_private(self.configuration, text, launcher.account)

    def command(self, launcher: Launcher) -> list[str]:
        return [str(launcher.binaries.valkey), str(self.configuration)]
